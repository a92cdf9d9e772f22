"""The floor: what any job must do that promises this order and tells where each row came from. One DuckDB statement.

No row is judged here, and nothing is gathered into sessions.
"""

from __future__ import annotations

from pathlib import Path

from segflow.config import ComputeConfig
from segflow.sql import literal
from segflow.storage import connect


def run(folder: Path, out: Path, provenance: bool) -> None:
    """Scan the generated log in `folder`, sort it and write it to `out`.

    provenance: with file and row of each event, by user, time, file and row; otherwise by user and time alone.
    """
    out.mkdir(parents=True)
    files = literal(str(folder / "events" / "*.parquet"))
    where = ", filename = 'source_file', file_row_number = true" if provenance else ""
    order = "user_id, ts" + (", source_file, file_row_number" if provenance else "")
    with connect(ComputeConfig(threads=2, spill=str(out / "spill"))) as connection:
        connection.execute(
            f"COPY (SELECT * FROM read_parquet({files}{where}) ORDER BY {order}) "
            f"TO {literal(str(out / 'sorted.parquet'))} (FORMAT parquet, COMPRESSION snappy)"
        )
