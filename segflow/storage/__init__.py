"""The seam to tables: Delta Lake on local disk or an object store, read and written through DuckDB.

Everything that knows the table format is here. `Storage` holds the tables, `connect` opens the DuckDB that a step works
in, `explained` tells what an error says about an object store.
"""

from segflow.storage.engine import confine, connect
from segflow.storage.remote import explained
from segflow.storage.tables import Storage, Violation, ViolationsError, Written

__all__ = ["Storage", "Violation", "ViolationsError", "Written", "confine", "connect", "explained"]
