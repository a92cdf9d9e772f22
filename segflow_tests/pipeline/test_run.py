"""A whole run: what it prints, finds, counts and records, and that running it again changes nothing."""

from __future__ import annotations

import base64
import json
from collections import Counter
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import Run
from sklearn.metrics import adjusted_rand_score

import segflow.definitions  # noqa: F401  (an asset is known once it is defined)
from segflow import tables
from segflow.defs.jobs import SEGMENT_RANKERS
from segflow.defs.materializes import PLANS
from segflow.defs.rankers.serving import GATE
from segflow.evaluation.record import read_summary
from segflow.evaluation.verdict import plain_name
from segflow_tests.pipeline.conftest import Made

PARENT = "mlflow.parentRunId"
WRITTEN = set(tables.ALL) - {"newcomer_segments"}
"""Newcomers are placed by a job of their own, which a run leaves out."""
STEPS = {plan.name for plan in PLANS.values() if {table.name for table in plan.tables} <= WRITTEN}
"""Some write several tables in one pass."""


def mlflow_runs(made: Made) -> list[Run]:
    """Every MLflow run of the project."""
    client = MlflowClient(made.project.mlflow)
    experiments = [one.experiment_id for one in client.search_experiments()]
    return list(client.search_runs(experiments, max_results=5000))


def test_the_summary_names_segments_arms_verdict_report_and_what_to_open_next(made: Made) -> None:
    _, _, summary = made.run.stdout.partition("\nSegments of week")
    assert 0 < len(summary.splitlines()) < 40
    names = made.project.read(tables.SEGMENT_PROFILES, {"week": made.weeks[1]})["name"].to_pylist()
    assert names
    assert all(name in summary for name in names)
    arms = set(made.project.read(tables.RANKING_RESULTS, {"week": made.weeks[1]})["arm"].to_pylist())
    assert {"global", "segments", "popularity_7_days", "tifu_knn", "ease", "global_shuffled", "placebo_1"} <= arms
    lines = {line.strip(): line for line in summary.splitlines()}
    for arm in arms - {"global_shuffled"}:
        found = [line for line in lines if line.startswith(f"{plain_name(arm)}  ")]
        assert len(found) == 1, (arm, summary)
        assert found[0].count("[") == found[0].count("]") == 2
    (row,) = made.project.read(tables.EVALUATION_REPORT, {"week": made.weeks[1]}).to_pylist()
    assert f"Verdict: {row['sentence']}" in summary
    page = made.project.folder / "data" / "reports" / f"{made.weeks[1]}.html"
    assert str(page) in summary
    assert page.read_text(encoding="utf-8") == row["html"]
    assert "dagster dev" in summary
    assert "mlflow ui" in summary


def test_every_table_was_written(made: Made) -> None:
    assert {name for name, version in made.project.versions().items() if version is None} == set(tables.ALL) - WRITTEN
    weekly = [tables.ALL[name] for name in WRITTEN if tables.ALL[name].partitions[:1] == ("week",)]
    for table in weekly:
        assert {key[0] for key in made.project.storage.partitions(table)} == set(made.weeks), table.name


def test_planted_segments_are_found_and_keep_their_id_and_name(made: Made) -> None:
    names = []
    for week in made.weeks:
        rows = made.project.read(tables.USER_SEGMENTS, {"week": week}).to_pylist()
        known = [row for row in rows if row["segment_id"] != "unassigned"]
        assert len(known) >= 0.9 * len(made.log.truth)
        truth = [made.log.truth[row["user_id"]] for row in known]
        assert adjusted_rand_score(truth, [row["segment_id"] for row in known]) >= 0.8
        ledger = made.project.read(tables.SEGMENT_LEDGER, {"week": week}).to_pylist()
        names.append({row["segment_id"]: row["name"] for row in ledger})
    assert names[0] == names[1]
    assert len(names[1]) == len(set(made.log.truth.values()))
    assert {row["event"] for row in ledger} == {"survive"}


def test_every_source_row_is_an_event_or_in_quarantine_for_its_reason(made: Made) -> None:
    def by_day(table: tables.Table) -> Counter[object]:
        return Counter(made.project.read(table)["day"].to_pylist())

    raw, events, quarantined = (
        by_day(table) for table in (tables.RAW_EVENTS, tables.EVENTS, tables.QUARANTINED_EVENTS)
    )
    assert raw == events + quarantined
    assert raw.total() == made.log.rows + sum(made.log.dirt.values())
    assert events.total() == made.log.rows
    reasons = Counter(made.project.read(tables.QUARANTINED_EVENTS)["reason"].to_pylist())
    assert reasons == made.log.dirt


def test_every_trained_arm_is_tested_by_two_seeds_and_what_is_served_by_one(
    made: Made, instance: dg.DagsterInstance
) -> None:
    week = made.weeks[1]
    trained = {"global", "segments", "global_extra", "placebo_1", "segment_feature"}
    repeated = made.project.read(tables.REPEATED_RANKERS, {"week": week}).to_pylist()
    assert {(row["seed"], row["arm"]) for row in repeated} == {(1000, arm) for arm in trained}
    results = made.project.read(tables.RANKING_RESULTS, {"week": week}).to_pandas()
    seeds = results.groupby("arm")["seed"].agg(set).to_dict()
    assert {arm for arm, found in seeds.items() if found == {0, 1000}} == trained
    assert {arm for arm, found in seeds.items() if found == {0}} == set(seeds) - trained
    means = results[results["arm"] == "global"].groupby("seed")["ndcg_20"].mean()
    assert means[0] != means[1000]
    quality = made.project.read(tables.LIST_QUALITY, {"week": week}).to_pandas()
    assert not quality.duplicated(["arm", "diversity_weight"]).any()
    event = instance.get_latest_materialization_event(dg.AssetKey("repeated_rankers"))
    assert event is not None
    assert event.asset_materialization is not None
    seconds = [event.asset_materialization.metadata[f"training_seconds_{part}"].value for part in ("global", "groups")]
    assert min(map(float, seconds)) > 0  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(WRITTEN))
def test_a_materialization_says_what_was_written_and_leads_to_its_mlflow_run(
    made: Made, instance: dg.DagsterInstance, name: str
) -> None:
    records = instance.fetch_materializations(dg.AssetKey(name), limit=1000).records
    table = tables.ALL[name]
    assert len(records) >= (len(made.project.storage.partitions(table)) if table.partitions else 1) > 0
    client = MlflowClient(made.project.mlflow)
    for number, record in enumerate(records):
        event = record.asset_materialization
        assert event is not None
        metadata = {key: value.value for key, value in event.metadata.items()}
        assert {"dagster/row_count", "dagster/column_schema", "segflow/table_version", "mlflow_run"} <= set(metadata)
        schema = metadata["dagster/column_schema"]
        assert isinstance(schema, dg.TableSchema)
        assert [column.name for column in schema.columns] == tables.ALL[name].column_names
        if number < 2:
            run = client.get_run(str(metadata["mlflow_run"]).rsplit("/", 1)[-1])
            assert run.data.tags["dagster.run_id"] == record.run_id
            assert name in run.data.tags["dagster.asset"].split(",")


def test_the_report_is_shown_in_short_on_its_materialization_and_kept_in_mlflow(
    made: Made, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    event = instance.get_latest_materialization_event(dg.AssetKey("evaluation_report"))
    assert event is not None
    assert event.asset_materialization is not None
    metadata = {key: value.value for key, value in event.asset_materialization.metadata.items()}
    shown = str(metadata["summary"])
    run_id = str(metadata["mlflow_run"]).rsplit("/", 1)[-1]
    kept = Path(download_artifacts(run_id=run_id, dst_path=str(tmp_path), tracking_uri=made.project.mlflow))
    svg = (kept / "summary.svg").read_bytes()
    address = f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
    assert f"]({address})" in shown
    assert (kept / "summary.md").read_text(encoding="utf-8") == shown.replace(address, "summary.svg")
    week = date.fromisoformat(str(event.asset_materialization.partition))
    (row,) = made.project.read(tables.EVALUATION_REPORT, {"week": week}).to_pylist()
    assert read_summary(row["summary"], "here").verdict.outcome.capitalize() in shown


def test_the_weeks_together_are_judged_after_their_reports(made: Made) -> None:
    first, last = made.project.read(tables.POOLED_VERDICT).to_pylist()
    assert [(row["week"], row["first_week"], row["weeks"]) for row in (first, last)] == [
        (made.weeks[0], made.weeks[0], 1),
        (made.weeks[1], made.weeks[0], 2),
    ]
    (report,) = made.project.read(tables.EVALUATION_REPORT, {"week": made.weeks[0]}).to_pylist()
    pooled, own = (read_summary(row["summary"], "here") for row in (first, report))
    # Of one week it is that week's report, but for what only the report knows of users and segments.
    assert (pooled.verdict, pooled.arms, pooled.comparisons) == (own.verdict, own.arms, own.comparisons)
    assert f"Over 2 weeks: {last['sentence']}" in made.run.stdout
    page = made.project.folder / "data" / "reports" / f"{made.weeks[1]}-trend.html"
    assert page.read_text(encoding="utf-8") == last["html"]


def test_the_champion_is_a_registered_version_of_the_arm_that_the_verdict_allows(
    made: Made, instance: dg.DagsterInstance
) -> None:
    client = MlflowClient(made.project.mlflow)
    for week in made.weeks:
        (row,) = made.project.read(tables.CHAMPION, {"week": week}).to_pylist()
        offered = {one["arm"]: one for one in made.project.read(tables.SERVED_RANKER, {"week": week}).to_pylist()}
        assert set(offered) == {"global", "segments"}
        (report,) = made.project.read(tables.EVALUATION_REPORT, {"week": week}).to_pylist()
        if not report["outcome"].startswith("segment"):
            assert (row["arm"], row["digest"], row["segments"]) == ("global", offered["global"]["digest"], [])
        found = client.search_model_versions(f"name = 'segflow' AND tags.`segflow.digest` = '{row['digest']}'")
        assert found
        assert {version.tags["segflow.week"] for version in found} == {str(week)}
    (check,) = instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(dg.AssetKey("champion"), GATE), limit=1
    )
    assert check.event is not None
    evaluation = check.event.asset_check_evaluation
    assert evaluation is not None
    assert not evaluation.blocking
    assert {"arm", "cleared", "harmed_segments"} <= set(evaluation.metadata)


def test_a_day_of_a_range_does_not_pass_off_the_figures_of_the_range_as_its_own(
    made: Made, instance: dg.DagsterInstance
) -> None:
    records = instance.fetch_materializations(dg.AssetKey("events"), limit=1000).records
    of_ranges = [one.asset_materialization.metadata for one in records if one.asset_materialization]
    assert all("raw_rows" not in metadata and "run/raw_rows" in metadata for metadata in of_ranges)
    assert len({metadata["dagster/row_count"].value for metadata in of_ranges}) > 1


def test_every_mlflow_run_is_finished_and_leads_back_to_its_dagster_run(
    made: Made, instance: dg.DagsterInstance
) -> None:
    runs = mlflow_runs(made)
    assert len(runs) > len(WRITTEN)
    known = {run.run_id for run in instance.get_runs()}
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in runs:
        assert run.data.tags["dagster.run_id"] in known
        assert set(run.data.tags["dagster.asset"].split(",")) <= set(tables.ALL)
        assert "dagster.partition" in run.data.tags
    whole = [run for run in runs if PARENT not in run.data.tags]
    spans = {run.data.tags["dagster.asset"]: run.data.tags["dagster.partition"] for run in whole}
    assert spans["items"] == ""
    assert spans["sessions"] == f"{made.log.start}…{made.log.end - timedelta(days=1)}"
    assert spans["segmentation"] in {str(week) for week in made.weeks}


def test_each_day_of_a_range_has_an_mlflow_run_below_that_of_the_range(
    made: Made, instance: dg.DagsterInstance
) -> None:
    runs = {run.info.run_id: run for run in mlflow_runs(made)}
    for name in ("events", "session_embeddings"):
        records = instance.fetch_materializations(dg.AssetKey(name), limit=1000).records
        linked = set()
        for record in records:
            assert record.asset_materialization is not None
            metadata = {key: value.value for key, value in record.asset_materialization.metadata.items()}
            run = runs[str(metadata["mlflow_run"]).rsplit("/", 1)[-1]]
            linked.add(run.info.run_id)
            assert run.data.tags["dagster.partition"] == record.partition_key
            # One pass makes two tables of events.
            rows = run.data.metrics["rows/events" if name == "events" else "rows"]
            assert rows == metadata["dagster/row_count"]
            assert run.data.tags[f"segflow.content.{name}"] == metadata["segflow/content"]
            above = runs[run.data.tags[PARENT]]
            assert PARENT not in above.data.tags
            assert above.data.tags["dagster.partition"] == f"{made.log.start}…{made.log.end - timedelta(days=1)}"
        assert len(linked) == len(records) == (made.log.end - made.log.start).days


def test_an_mlflow_run_says_what_decided_what_was_read_and_what_came_of_it(made: Made, tmp_path: Path) -> None:
    of_week = {
        run.data.tags["dagster.asset"]: run
        for run in mlflow_runs(made)
        if run.data.tags["dagster.partition"] in (str(made.weeks[1]), "")
    }
    model = of_week["behavior_model"]
    assert (model.data.params["behavior.width"], model.data.params["seed"]) == ("32", "0")
    inputs = {one.dataset.name: one.dataset for one in model.inputs.dataset_inputs}
    assert set(inputs) == {"events", "item_embeddings"}
    assert inputs["events"].profile is not None
    read = json.loads(inputs["events"].profile)
    assert (read["first_partition"], read["last_partition"]) == (
        str(made.log.start),
        str(made.weeks[1] - timedelta(days=1)),
    )
    where = json.loads(inputs["events"].source)
    assert made.project.storage.open(tables.EVENTS, where["delta_table_version"]) is not None
    assert where["path"] == made.project.storage.uri(tables.EVENTS)
    assert len(model.data.tags["segflow.content.behavior_model"]) == 16
    assert of_week["items"].inputs.dataset_inputs == []

    def table_of(asset: str, name: str) -> Any:
        run_id = of_week[asset].info.run_id
        file = download_artifacts(
            run_id=run_id, artifact_path=name, dst_path=str(tmp_path), tracking_uri=made.project.mlflow
        )
        return json.loads(Path(file).read_text(encoding="utf-8"))

    profiles = made.project.read(tables.SEGMENT_PROFILES, {"week": made.weeks[1]}).to_pylist()
    shown = table_of("segment_profiles", "segments.json")
    assert [dict(zip(shown["columns"], row, strict=True))["name"] for row in shown["data"]] == [
        row["name"] for row in profiles
    ]
    gains = table_of("evaluation_report", "segment_gains.json")
    assert {"task", "segment_id", "users", "difference", "low", "high"} <= set(gains["columns"])
    assert {row[gains["columns"].index("segment_id")] for row in gains["data"]} == {
        row["segment_id"] for row in profiles
    }


def test_materializations_lead_to_the_report_and_numbers_are_numbers(made: Made, instance: dg.DagsterInstance) -> None:
    for name, artifact in (("evaluation_report", "report.html"), ("segment_page", "segments.html")):
        event = instance.get_latest_materialization_event(dg.AssetKey(name))
        assert event is not None
        assert event.asset_materialization is not None
        metadata = event.asset_materialization.metadata
        assert metadata["page_in_mlflow"].value == f"{metadata['mlflow_run'].value}/artifacts/{artifact}"
        assert Path(str(metadata["page"].value)).is_file()
    for name in sorted(WRITTEN):
        event = instance.get_latest_materialization_event(dg.AssetKey(name))
        assert event is not None
        assert event.asset_materialization is not None
        texts = {
            key: str(value.value)
            for key, value in event.asset_materialization.metadata.items()
            if isinstance(value, dg.TextMetadataValue) and not key.startswith("segflow/")
        }
        assert [key for key, text in texts.items() if text.replace(".", "", 1).lstrip("-").isdigit()] == [], name


def test_a_check_says_which_partitions_and_how_many_rows_it_looked_at(made: Made, instance: dg.DagsterInstance) -> None:
    key = dg.AssetCheckKey(dg.AssetKey("events"), "keys")
    (record,) = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
    assert record.event is not None
    assert record.event.asset_check_evaluation is not None
    figures = {name: value.value for name, value in record.event.asset_check_evaluation.metadata.items()}
    last = made.log.end - timedelta(days=1)
    assert figures == {"partition": f"{made.log.start} … {last}", "rows": made.log.rows}


def test_a_second_run_finds_everything_up_to_date(made: Made) -> None:
    versions, runs = made.project.versions(), len(mlflow_runs(made))
    again = made.project.segflow("run", "--weeks", "2")
    assert again.returncode == 0, again.stderr
    assert made.project.versions() == versions
    assert len(mlflow_runs(made)) == runs, "something was materialized"
    assert " rows in " not in again.stdout
    assert "session_embeddings: up to date" in again.stdout
    assert again.stdout.partition("\nSegments of week")[2] == made.run.stdout.partition("\nSegments of week")[2]


def test_materializing_everything_again_gives_the_same_content(made: Made, instance: dg.DagsterInstance) -> None:
    versions, runs = made.project.versions(), len(mlflow_runs(made))
    items = made.project.read(tables.ITEM_EMBEDDINGS).num_rows
    assert texts_of(instance) == {"encoded_texts": items, "reused_texts": 0}
    again = made.project.segflow("run", "--force", "--week", str(made.weeks[1]))
    assert again.returncode == 0, again.stderr
    assert len(mlflow_runs(made)) >= runs + len(STEPS)
    changed = {name for name, version in made.project.versions().items() if version != versions[name]}
    assert changed == set()
    assert texts_of(instance) == {"encoded_texts": 0, "reused_texts": items}


def texts_of(instance: dg.DagsterInstance) -> dict[str, object]:
    """What the latest materialization of the item vectors says it had to encode."""
    event = instance.get_latest_materialization_event(dg.AssetKey("item_embeddings"))
    assert event is not None
    assert event.asset_materialization is not None
    shown = event.asset_materialization.metadata
    assert "minilm" in str(shown["encoder"].value)
    return {name: shown[name].value for name in ("encoded_texts", "reused_texts")}


def test_a_segment_trained_alone_equals_the_same_one_trained_with_all(made: Made, instance: dg.DagsterInstance) -> None:
    segment = made.project.read(tables.SEGMENT_RANKERS, {"week": made.weeks[1]})["segment_id"][1].as_py()
    version = made.project.storage.version(tables.SEGMENT_RANKERS)
    before = {one.info.run_id for one in mlflow_runs(made)}
    made.project.materialize(SEGMENT_RANKERS.name, f"{segment}|{made.weeks[1]}")
    (own,) = [run for run in mlflow_runs(made) if run.info.run_id not in before]
    assert own.data.tags["dagster.partition"] == f"{segment}|{made.weeks[1]}"
    assert made.project.storage.version(tables.SEGMENT_RANKERS) == version, "the model differs"
