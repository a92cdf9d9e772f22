"""A person is removed from everything that segflow made, and it is shown that nothing is left.

Lives here: what is looked into, in which order things are erased, the proof, and the line that says so afterwards. Does not
live here: how tables forget (`storage/erasing.py`), and what Dagster is doing (`defs/records.py`).
"""

from segflow.erasure.erase import Erased, Found, erase, look

__all__ = ["Erased", "Found", "erase", "look"]
