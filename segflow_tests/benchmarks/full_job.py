"""The full job as the project does it: source files to sessions and quarantine, as Parquet."""

from __future__ import annotations

from pathlib import Path

from segflow.events.whole_log import ROWS_AT_ONCE, share_one_heap, write_sessions
from segflow.settings import load


def run(folder: Path, out: Path, memory_limit: str | None = None, rows_at_once: int = ROWS_AT_ONCE) -> None:
    """Write `out`/sessions and `out`/quarantine from the generated log in `folder`.

    memory_limit: of DuckDB, such as `1GB`; the default without it. rows_at_once: as `write_sessions` has it.
    """
    share_one_heap()
    settings = load(folder / "segflow.yaml")
    own = {"threads": 2, "spill": str(out.parent / "spill"), "memory_limit": memory_limit}
    told = {name: value for name, value in own.items() if value is not None}
    compute = settings.compute.model_copy(update=told)
    write_sessions(settings.model_copy(update={"compute": compute}), out, rows_at_once)
