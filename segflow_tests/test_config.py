"""Settings: every mistake is named with its file, key and remedy; paths, presets and weeks come out right."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from segflow.config import WEEKDAYS, CalendarConfig
from segflow.errors import UserError
from segflow.settings import DATASETS, default_path, load

MINIMAL = """\
source:
  events:
    path: log.csv
    columns: {user_id: user, item_id: item, event_type: type, ts: time}
calendar:
  start: 2024-01-03
"""


def settings(folder: Path, text: str) -> Path:
    path = folder / "segflow.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_minimal_file_gets_the_defaults(tmp_path: Path) -> None:
    config = load(settings(tmp_path, MINIMAL))
    assert config.sessions.gap_minutes == 30
    assert config.source.items is None
    assert config.seed == 0


def changed(old: str, new: str) -> str:
    assert MINIMAL.count(old) == 1
    return MINIMAL.replace(old, new)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            MINIMAL + "sesions: {gap_minutes: 5}\n",
            r"sesions: unknown key \(did you mean 'sessions'\?\); known here: .*",
        ),
        (MINIMAL + "sessions: {gap: 5}\n", r"sessions\.gap: unknown key.*known here: gap_minutes, use_source_ids"),
        (MINIMAL + "zzz: 1\n", r"zzz: unknown key; known here"),
        (changed("path: log.csv", "path: log.csv\n    timezon: UTC"), r"source\.events\.timezon: .*mean 'timezone'"),
        (changed("calendar:", "  users: {path: u.csv, atributes: []}\ncalendar:"), r"users\.atributes: .*'attributes'"),
        (
            changed("path: log.csv", "path: l\n    timezone: Europe/Pariss"),
            r"timezone 'Europe|time zone 'Europe/Pariss'.*Paris'",
        ),
        (changed("    path: log.csv\n", ""), r"source\.events\.path: missing; add it"),
        (changed("  start: 2024-01-03", "  {}"), r"calendar\.start: missing; add it"),
        (changed("event_type: type, ", ""), r"source\.events: columns: map 'event_type', or set `event_type: "),
        (changed("user_id: user, ", ""), r"columns: 'user_id' is not mapped; add `user_id: <your column>`"),
        (changed("ts: time", "ts: [day, hour]"), r"columns: 'ts' takes one column"),
        (changed("ts: time", "tss: time"), r"columns: unknown event field 'tss' \(did you mean 'ts'\?\)"),
        (
            MINIMAL + "  end: 2024-01-03\n",
            r"calendar\.end \(2024-01-03\) must come after calendar\.start \(2024-01-03\)",
        ),
        (MINIMAL + "  end: 2023-01-03\n", r"calendar: calendar\.end \(2023-01-03\) must come after"),
        (MINIMAL + "  week_starts: mondays\n", r"calendar\.week_starts: Input should be 'monday', "),
        (MINIMAL + "sessions: {gap_minutes: 0}\n", r"sessions\.gap_minutes: .*greater than or equal to 1"),
        (MINIMAL + "compute: {memory_limit: lots}\n", r"compute\.memory_limit: "),
        (
            MINIMAL + "preset: complete_journey_type\n",
            r"preset: unknown preset .*mean 'complete_journey_types'.*; known: ",
        ),
        (MINIMAL + "segments: {k_min: 9, k_max: 3}\n", r"segments: k_min \(9\) must not exceed k_max \(3\)"),
        (
            changed("calendar:", "  inputs: {more: {path: m.csv, frmat: csv}}\ncalendar:"),
            r"source\.inputs\.more\.frmat: unknown key \(did you mean 'format'\?\)",
        ),
        (MINIMAL + "seed: 1\nseed: 2\n", r"line 8: the key 'seed' stands twice; remove one"),
        (changed("2024-01-03", "2024-02-30"), r"line 6: '2024-02-30' is no timestamp: day is out of range for month"),
        (MINIMAL + "seed: 1" + "0" * 5000, r"line 7: '10{59}' is no int"),
        (MINIMAL + "sessions: &own {gap_minutes: *own}\n", r"line 7: \*own stands inside itself"),
        (MINIMAL + "seed: " + "[" * 3000 + "]" * 3000, r"line 7: nested deeper than 30 levels"),
        (MINIMAL + 'preset: "a\\0b"\n', r"line 7: holds a character that no text may hold"),
        (MINIMAL + 'preset: "two\\nlines"\n', r"unknown preset 'two lines'"),
        (MINIMAL + "cleaning: {type_weights: {view: .inf}}\n", r"type_weights\.view: .*finite"),
        (MINIMAL + "".join(f"k{number}: 1\n" for number in range(3000)), r"k0: unknown key.*and 2,980 more mistakes"),
        (changed("2024-01-03", "0001-01-01"), r"calendar\.start: .*greater than or equal to 1900-01-01"),
        (
            changed("log.csv", "~no_such_user/log.csv"),
            r"'~no_such_user/log\.csv': no such user's home; write the path without ~",
        ),
        (changed("log.csv", '""'), r"source\.events\.path: .*at least 1 character"),
        (changed("path: log.csv", "path: l\n    timezone: localtime"), r"unknown time zone 'localtime'"),
        (
            changed("path: log.csv", "path: l\n    csv: {delimiter: '|', quote: '|'}"),
            r"csv: quote: '\|' is in the delim",
        ),
        (changed("path: log.csv", "path: l\n    csv: {quote: “}"), r"csv: quote: '“' cannot be one; use ASCII"),
        (
            changed("path: log.csv", "path: l\n    csv: {columns: [a, A]}"),
            r"csv: columns: 'a' is empty or stands twice",
        ),
        (changed("ts: time", "ts: time, text: []"), r"columns: 'text' names no column"),
        (
            changed("calendar:", "  items: {columns: {item_id: item, titel: name}}\ncalendar:"),
            r"source\.items: columns: unknown item field 'titel' \(did you mean 'title'\?\)",
        ),
        (changed("calendar:", "  items: {columns: {title: name}}\ncalendar:"), r"'item_id' is not mapped; add"),
        (MINIMAL + "cleaning: {bots: {user_pattern: ''}}\n", r"user_pattern: .*at least 1 character"),
        ("a: [1,\n", r"not valid YAML: line 2: "),
        ("- a\n", r"expected keys and values, found list"),
        ("", r"expected keys and values, found NoneType"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = settings(tmp_path, text)
    with pytest.raises(UserError, match=message) as raised:
        load(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (MINIMAL.encode() + b"preset: caf\xe9\n", r"line 7: is not UTF-8; save the file as UTF-8"),
        (MINIMAL.encode() + b"# " + b"x" * 10_000_000, r"has 10 MB, far more than settings have"),
    ],
)
def test_bytes_that_are_no_settings(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "segflow.yaml").write_bytes(content)
    with pytest.raises(UserError, match=message):
        load(tmp_path / "segflow.yaml")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_marks_of_the_encoding_are_no_mistake(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "segflow.yaml").write_bytes(MINIMAL.encode(encoding))
    assert load(tmp_path / "segflow.yaml").calendar.start == date(2024, 1, 3)


def test_what_is_too_long_for_a_path_is_none(tmp_path: Path) -> None:
    assert load(settings(tmp_path, MINIMAL + f"text: {{encoder: {'x' * 5000}}}\n")).text.encoder == "x" * 5000


def test_keys_that_are_merged_do_not_stand_twice(tmp_path: Path) -> None:
    text = MINIMAL + "sessions: &own {gap_minutes: 7}\ncleaning: {bots: {<<: {events_per_day: 9}, enabled: false}}\n"
    config = load(settings(tmp_path, text))
    assert (config.cleaning.bots.events_per_day, config.cleaning.bots.enabled) == (9, False)


def test_all_mistakes_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        load(settings(tmp_path, MINIMAL + "seed: -1\nsessions: {gap_minutes: x}\nzzz: 1\n"))
    assert [key in str(raised.value) for key in ("seed: ", "sessions.gap_minutes: ", "zzz: ")] == [True] * 3


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.yaml: no such file; create it"):
        load(tmp_path / "nowhere.yaml")


def test_the_file_is_found_above_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEGFLOW_CONFIG", raising=False)
    path = settings(tmp_path, MINIMAL)
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert default_path() == path
    assert load().calendar.start == date(2024, 1, 3)
    monkeypatch.setenv("SEGFLOW_CONFIG", "other.yaml")
    assert default_path() == Path("other.yaml")
    with pytest.raises(UserError, match=r"b/other\.yaml: no such file"):
        load()
    monkeypatch.delenv("SEGFLOW_CONFIG")
    path.unlink()
    with pytest.raises(UserError, match=r"no segflow\.yaml in .*/a/b or above it: create one"):
        default_path()


def test_relative_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        MINIMAL.replace(
            "calendar:",
            "  items: {path: package:shop/items.csv, columns: {item_id: id}}\n  users: {path: /data/users.csv}\ncalendar:",
        )
        + "storage: {root: 's3://bucket/tables'}\ntracking: {root: ../runs}\ntext: {encoder: encoders/own}\n"
    )
    settings(tmp_path, text)
    (tmp_path / "encoders" / "own").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    config = load(Path("segflow.yaml"))
    assert config.source.items is not None
    assert config.source.users is not None
    assert config.source.events.path == f"{tmp_path}/log.csv"
    assert config.source.items.path == "package:shop/items.csv"
    assert config.source.users.path == "/data/users.csv"
    assert config.storage.root == "s3://bucket/tables"
    assert Path(config.tracking.root).resolve() == tmp_path.parent / "runs"
    assert config.compute.spill == f"{tmp_path}/data/spill"
    assert config.compute.exchange == f"{tmp_path}/data/exchange"
    assert config.report.folder == f"{tmp_path}/data/reports"
    assert config.text.cache == f"{tmp_path}/data/cache/text"
    assert config.text.encoder == f"{tmp_path}/encoders/own"
    assert config.behavior.checkpoints == f"{tmp_path}/data/checkpoints"
    assert config.rankers.checkpoints == f"{tmp_path}/data/checkpoints"


@pytest.mark.parametrize("name", sorted(file.stem for file in DATASETS.glob("*.yaml")))
def test_presets_are_a_base_for_the_files_own_keys(tmp_path: Path, name: str) -> None:
    plain = load(settings(tmp_path, f"preset: {name}\n"))
    own = load(
        settings(tmp_path, f"preset: {name}\ncalendar: {{end: 2030-03-01}}\ncleaning: {{exclude_categories: [x]}}\n")
    )
    assert own.calendar == plain.calendar.model_copy(update={"end": date(2030, 3, 1)}) != plain.calendar
    assert own.cleaning == plain.cleaning.model_copy(update={"exclude_categories": ["x"]}) != plain.cleaning
    assert own.source == plain.source


def test_settings_do_not_change_after_loading(tmp_path: Path) -> None:
    config = load(settings(tmp_path, MINIMAL))
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 3  # type: ignore[misc]


days = st.dates(date(1990, 1, 1), date(2100, 1, 1))


@given(start=days, weekday=st.sampled_from(WEEKDAYS), ahead=st.integers(-1000, 3000))
def test_weeks(start: date, weekday: str, ahead: int) -> None:
    calendar = CalendarConfig(start=start, week_starts=weekday)
    assert 0 <= (calendar.first_week - start).days < 7
    assert WEEKDAYS[calendar.first_week.weekday()] == weekday
    day = start + timedelta(days=ahead)
    week = calendar.week(day)
    assert 0 <= (day - week).days < 7
    assert week.weekday() == calendar.first_week.weekday()
    assert calendar.first_snapshot - calendar.first_week == timedelta(weeks=2)
    assert calendar.week(week) == week
    assert calendar.week(week - timedelta(days=1)) == week - timedelta(weeks=1)


def test_the_last_day() -> None:
    closed = CalendarConfig(start=date(2024, 1, 1), end=date(2024, 2, 1))
    assert closed.last_day == date(2024, 1, 31)
    before = datetime.now(UTC).date()
    assert before <= CalendarConfig(start=date(2024, 1, 1)).last_day <= datetime.now(UTC).date()


@pytest.mark.parametrize(
    ("section", "says"),
    [
        (
            "text: {cache: 's3://bucket/cache'}",
            r"text\.cache: 's3://bucket/cache' is not on this machine; name a folder",
        ),
        ("compute: {spill: 's3://bucket/spill'}", r"compute\.spill: .* is not on this machine"),
        ("behavior: {checkpoints: 's3://bucket/x'}", r"behavior\.checkpoints: .* is not on this machine"),
        ("rankers: {checkpoints: 's3://bucket/x'}", r"rankers\.checkpoints: .* is not on this machine"),
        ("report: {folder: 's3://bucket/x'}", r"report\.folder: .* is not on this machine"),
        ("tracking: {root: 's3://bucket/x'}", r"tracking\.root: .* is not on this machine"),
        ("storage: {erasures: 's3://bucket/x'}", r"storage\.erasures: .* is not on this machine"),
        (
            "storage: {root: 's4://bucket/x'}",
            r"storage\.root: 's4://bucket/x': s4:// is not known; known: s3, .* or a folder",
        ),
        (
            "storage: {options: {aws_secret_access_key: x}}",
            r"storage\.options: aws_secret_access_key is a secret, .* write \$\{AWS_SECRET_ACCESS_KEY\} and set that",
        ),
        ("storage: {options: {azure_storage_sas_token: x}}", r"write \$\{AZURE_STORAGE_SAS_TOKEN\}"),
    ],
)
def test_what_must_be_on_this_machine_or_in_the_environment(tmp_path: Path, section: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        load(settings(tmp_path, f"{MINIMAL}{section}\n"))


def test_files_with_secrets_may_be_named(tmp_path: Path) -> None:
    options = "{aws_web_identity_token_file: /run/token, google_service_account_path: /run/key, aws_region: x}"
    config = load(settings(tmp_path, f"{MINIMAL}storage: {{options: {options}}}\n"))
    assert config.storage.options["aws_region"] == "x"
