"""One step: what an asset body reads with, writes with and logs with, bounded to the partitions of its run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import duckdb
import pyarrow as pa
from dagster._core.storage.tags import BACKFILL_ID_TAG

from segflow.compute import Engine, open_engine
from segflow.compute.processes import end_with_parent
from segflow.defs.kept import Over
from segflow.defs.logged import dataset, run_tags, settings_of
from segflow.defs.partitions import DAY, Window, segment_of
from segflow.defs.provenance import Provenance, partition_day
from segflow.defs.resources import Segflow
from segflow.defs.results import Results, image
from segflow.errors import UserError
from segflow.events.days import Days, spans
from segflow.pages import escaped, write_page
from segflow.reading import Reader
from segflow.reading.reader import Bounds
from segflow.storage import ViolationsError, connect
from segflow.tables import Table
from segflow.tracking import Run
from segflow.tracking.backfills import PARENT, parent_of

if TYPE_CHECKING:
    from segflow.defs.materializes import Plan
    from segflow.segments.drawing import Picture

Partition = tuple[date | str, ...]
_TELL_SECONDS = 5.0


class Curve:
    """The learning curve of one training."""

    def __init__(self, step: Step):
        self._step = step
        self._epochs: list[dict[str, float]] = []

    def __call__(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self._epochs.append(dict(metrics))
        self._step.run.metrics(metrics, step=epoch)

    def best(self, by: str) -> dict[str, float]:
        """The figures of the epoch with the smallest `by`, which is the one that training keeps.

        Speeds are left out: they go to MLflow, and a model's row is the same each time it is made.
        """
        best = min(range(len(self._epochs)), key=lambda epoch: self._epochs[epoch][by])
        figures = {name: value for name, value in self._epochs[best].items() if not name.endswith("_per_second")}
        return {**figures, "epochs": len(self._epochs), "best_epoch": best}


class Step(Reader):
    """The hands of an asset body. Open it with `Step.open`."""

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        segflow: Segflow,
        plan: Plan,
        connection: duckdb.DuckDBPyConnection,
        run: Run,
        closing: ExitStack,
    ):
        super().__init__(plan.name, segflow.config, segflow.storage, connection)
        self.context = context
        self.tracking = segflow.tracking
        self.run = run
        self._closing = closing
        self._plan = plan
        self._week: date | None = None
        self._began = self._told = time.monotonic()
        self._started = int(time.time() * 1000)
        # Digested before anything is read: if an input changes meanwhile, the record says so and the partition is stale.
        self.provenance = provenance = Provenance(context.instance)
        provenance.read_ahead(plan, self.keys)
        inputs = {key: provenance.inputs(plan, key) for key in self.keys}
        upstream = {key: provenance.contents(plan, key) for key in self.keys}
        self._results = Results(plan, self.keys, self.partitions, inputs, upstream)
        self.contents = upstream[self.keys[0]] if len(self.keys) == 1 else {}
        run.parameters(settings_of(self.config, plan.settings))
        run.inputs([dataset(one, self.storage.uri(one.table)) for one in provenance.read(plan, self.keys)])

    @classmethod
    @contextmanager
    def open(cls, context: dg.AssetExecutionContext, segflow: Segflow, plan: Plan, group: str) -> Iterator[Step]:
        """A step with its own connection and its own MLflow run, which is FAILED if the body raises.

        Its process ends with the one that started it, so that nothing is written while the run is already tried again.
        """
        end_with_parent()
        # An asset without partitions may share its run with others that have some.
        keys = context.partition_keys if plan.partitions is not None else []
        Over.read().require_none(plan, [str(key) for key in keys])
        span = "" if not keys else str(keys[0]) if len(keys) == 1 else f"{keys[0]}…{keys[-1]}"
        tags = run_tags(context, plan, span)
        if backfill := context.run.tags.get(BACKFILL_ID_TAG):
            tags[PARENT] = parent_of(segflow.tracking, backfill, f"segflow {group}")
        name = f"{plan.name} {span}".strip()
        with (
            segflow.tracking.run(f"segflow {group}", name, tags) as run,
            connect(segflow.config.compute, segflow.config.storage.root) as connection,
            ExitStack() as closing,
        ):
            yield cls(context, segflow, plan, connection, run, closing)

    @cached_property
    def engine(self) -> Engine:
        """Where pieces of the step are worked on: `compute.engine`, opened when it is first asked for."""
        return self._closing.enter_context(open_engine(self.config.compute, self.storage.options, self.log))

    @property
    def code_version(self) -> str:
        """Digest of the code and settings that decide the content."""
        return self._plan.code_version

    @property
    def keys(self) -> list[str]:
        """The partition keys of this run, or of its week in `each_week`; one empty key for an asset without partitions."""
        if self._plan.partitions is None:
            return [""]
        keys = [str(key) for key in self.context.partition_keys]
        return keys if self._week is None else [key for key in keys if partition_day(key) == self._week]

    @property
    def days(self) -> tuple[date, date]:
        """The run's days as a half-open range."""
        days = [partition_day(key) for key in self.keys]
        return min(days), max(days) + DAY

    @property
    def week(self) -> date:
        """The first day of the run's snapshot week."""
        weeks = {partition_day(key) for key in self.keys}
        if len(weeks) > 1:
            raise UserError(
                f"{self._plan.name}: one run takes one week, not {len(weeks)}; backfill weeks as separate runs"
            )
        return weeks.pop()

    def each_week(self) -> Iterator[date]:
        """The weeks of the run in order. Until the next one is asked for, the step reads and writes that week only."""
        for week in sorted({partition_day(key) for key in self.keys}):
            self._week = week
            yield week
        self._week = None

    @property
    def partitions(self) -> list[Partition]:
        """The run's partitions as the keys that storage replaces by."""
        if self._plan.partitions is None:
            return [()]
        return [storage_key(key) for key in self.keys]

    def log(self, message: str) -> None:
        """A line for people who watch."""
        self.context.log.info(message)

    def progress(self, done: int, of: int) -> None:
        """Tell people how far a long step is, every few seconds."""
        if time.monotonic() - self._told >= _TELL_SECONDS:
            self._told = time.monotonic()
            self.log(f"{self._plan.name}: {done:,} of {of:,}")

    def previous(self, table: Table, name: str, days: Days | None = None) -> None:
        """A DuckDB view over what the step's own `table` holds before this run, of all partitions or of `days`."""
        self.storage.view(self.connection, table, name=name, where={"day": days} if days else None)

    def pin(self, table: Table, name: str) -> int:
        """A DuckDB view over all that the step's own `table` holds, and its version, for `write` to build on."""
        version = self.storage.pin(table)
        self.storage.view(self.connection, table, name=name, version=version)
        return version

    def spans(self, table: Table) -> Iterator[Days]:
        """The run's days, half-open, cut so that one span of `table` does not exceed `compute.rows_at_once`."""
        first, last = self.days
        yield from spans(self._rows_of_days(table), first, last, self.config.compute.rows_at_once)

    def rows(self, table: Table, days: Days) -> int:
        """How many rows `table` holds of `days`, by its own records."""
        return sum(count for day, count in self._rows_of_days(table).items() if days[0] <= day < days[1])

    def _rows_of_days(self, table: Table) -> dict[date, int]:
        return {key[0]: count for key, count in self.storage.rows(table).items() if isinstance(key[0], date)}

    def write(
        self,
        table: Table,
        rows: str | pa.Table | pa.RecordBatchReader,
        days: Days | None = None,
        version: int | None = None,
    ) -> None:
        """Check the rows (a query, a table, or a stream of batches) and replace the run's partitions of `table`, atomically.

        days: only the partitions of these days, half-open. version: of `pin`; raises UserError when there is a newer one.
        """
        self.commit(table, self.stage(table, rows, days), days, version)

    def stage(self, table: Table, rows: str | pa.Table | pa.RecordBatchReader, days: Days | None = None) -> str:
        """The first half of `write`: the name of a temporary table of checked rows.

        Raises ViolationsError when the rows break the table's contract.
        """
        query = rows
        if not isinstance(query, str):
            self.connection.register(f"new_{table.name}", rows)
            query = f"SELECT * FROM new_{table.name}"
        return self.storage.stage(self.connection, table, query, self._keys(days))

    def commit(self, table: Table, staged: str, days: Days | None = None, version: int | None = None) -> None:
        """The second half of `write`, for rows already staged and checked.

        Raises RuntimeError when Dagster has given the run up meanwhile: another one may be at work in its place.
        """

        def allowed() -> None:
            run = self.context.instance.get_run_by_id(self.context.run.run_id)
            if run is not None and run.is_finished:
                raise RuntimeError(f"{table.name} is not written: the run {run.run_id} is over ({run.status.value})")

        facts = {"dagster_run": self.context.run.run_id, "mlflow_run": self.run.run_id}
        written = self.storage.commit(
            self.connection, table, staged, self._keys(days), commit=facts, version=version, allowed=allowed
        )
        self._versions.pop(table.name, None)
        self._results.wrote(written)

    def aspects(self, table: Table, digests: Mapping[str, Mapping[str, str]]) -> None:
        """Digests of parts of what was written, by partition key and name of the part; see `Window.aspect`."""
        self._results.aspects(table, digests)

    def note(self, **values: Any) -> None:
        """Figures to show on the materialization; numbers go to MLflow as metrics too."""
        self._results.note(values)
        numbers = {key: value for key, value in values.items() if isinstance(value, (int, float))}
        if numbers:
            self.run.metrics(numbers)

    def picture(self, picture: Picture) -> None:
        """Show a picture on the materialization, and keep it as an artifact of the MLflow run."""
        svg = picture.standalone()
        self.run.text(svg, f"{picture.name}.svg")
        shown = f"![{picture.title}]({image(svg)})\n\n{escaped(picture.caption)}"
        self.note(**{f"picture_{picture.name}": dg.MetadataValue.md(shown)})

    def summary(self, markdown: Callable[[str | None], str], svg: str) -> None:
        """Show a text with one picture on the materialization, and keep both as artifacts of the MLflow run.

        markdown: makes the text from the address of its picture; svg: the picture, empty if there is none.
        """
        if svg:
            self.run.text(svg, "summary.svg")
        self.run.text(markdown("summary.svg" if svg else None), "summary.md")
        self.note(summary=dg.MetadataValue.md(markdown(image(svg) if svg else None)))

    def page(self, name: str, html: str) -> Path:
        """Write a page below `report.folder`, whole or not at all, for people to open and send."""
        return write_page(self.config.report.folder, name, html)

    def show_page(self, name: str, html: str, artifact: str) -> None:
        """`page`, kept as an artifact of the MLflow run too, with links to both on the materialization."""
        self.run.text(html, artifact)
        self.note(page=self.page(name, html), page_in_mlflow=dg.MetadataValue.url(self.run.artifact_url(artifact)))

    def curve(self) -> Curve:
        """A callback for training loops: logs each epoch to MLflow and remembers it."""
        return Curve(self)

    def model_row(self, model: bytes, metrics: Mapping[str, float], **keys: str | int) -> pa.Table:
        """One row of a model table; the model is kept as an artifact of the MLflow run too."""
        # One run may hold several models: each one and its figures keep their own name.
        weeks = [] if len(self.context.partition_keys) == len(self.keys) else [str(self.week)]
        names = [*weeks, *(str(key) for key in keys.values())]
        self.run.bytes(model, f"model/{'-'.join([self._plan.name, *names])}.safetensors")
        self.note(**{"/".join([*names, name]): value for name, value in metrics.items()})
        row = {"week": [self.week], **{name: [key] for name, key in keys.items()}}
        return pa.table({**row, "model": [model], "metrics": [json.dumps(metrics)]})

    def require(self, check: str, passed: bool, message: str, **figures: Any) -> None:
        """Report a check of this asset's own. A broken rule ends the step, so call this before writing.

        Raises ViolationsError when it did not pass.
        """
        self._results.check(check, passed, message, figures, dg.AssetCheckSeverity.ERROR)
        if not passed:
            raise ViolationsError(self._plan.tables[0], [])

    def tell(self, check: str, passed: bool, message: str, **figures: Any) -> None:
        """Report a check that stops nothing: a warning if it did not pass."""
        self._results.check(check, passed, message, figures, dg.AssetCheckSeverity.WARN)

    def results(self) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
        """Everything Dagster is told about what was written."""
        addresses = {table.name: self.storage.uri(table) for table in self._plan.tables}
        yield from self._results.tell(self.context, addresses, self._partition_runs())
        seconds, rows = time.monotonic() - self._began, self._results.rows
        self.run.metrics({"seconds": seconds, "rows": rows})
        self.run.tags(self._results.outputs)
        span = "" if self._plan.partitions is None else f" [{self.keys[0]}{' …' if len(self.keys) > 1 else ''}]"
        self.log(f"{self._plan.name}{span}: {rows:,} rows in {seconds:.1f} s")

    def failed(self, error: ViolationsError) -> Iterator[dg.AssetCheckEvaluation]:
        """The checks that stopped the step."""
        yield from self._results.failed(error)

    def _partition_runs(self) -> dict[str, str]:
        """Partition key -> the page of its MLflow run: of a range a run of its own, below that of the range."""
        if len(self.keys) == 1 or not self.config.tracking.partition_runs:
            return dict.fromkeys(self.keys, self.run.url)
        children = [
            self._results.as_run(number, f"{self._plan.name} {key}", run_tags(self.context, self._plan, key))
            for number, key in enumerate(self.keys)
        ]
        return dict(zip(self.keys, self.run.children(children, self._started), strict=True))

    def bounds(self, table: Table, days: Days | None = None) -> Bounds:
        """The declared window of `table` for this run or for `days` of it: partition column -> half-open range."""
        window: Window = self._plan.reads[table]
        if window.days is None or not table.partitions:
            return {}
        first, last = days or self.days
        return {table.partitions[0]: window.days(first, last - DAY)}

    def _keys(self, days: Days | None) -> list[Partition]:
        if days is None:
            return self.partitions
        return [key for key in self.partitions if isinstance(key[0], date) and days[0] <= key[0] < days[1]]


def storage_key(key: str) -> Partition:
    """The storage partition of a Dagster partition key: a day, a week, or a week and a segment."""
    if "|" not in key:
        return (date.fromisoformat(key),)
    return (partition_day(key), segment_of(key))
