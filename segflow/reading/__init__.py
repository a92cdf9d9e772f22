"""What a step reads, and in the same way whoever works for it in another process: no Dagster, and no settings file.

`Reader` reads the declared windows of tables at fixed versions; the other modules say what several asset bodies read alike.
"""

from segflow.reading.reader import Reader, ReaderSpec, opened

__all__ = ["Reader", "ReaderSpec", "opened"]
