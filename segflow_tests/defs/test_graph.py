"""The asset graph as it was last looked at, and how light the code location is."""

from __future__ import annotations

import subprocess
import sys

from segflow_tests.defs.graph import FILE, graph

HEAVY = ("torch", "transformers", "mlflow", "sklearn")


def test_the_asset_graph_is_the_one_that_was_committed() -> None:
    committed = FILE.read_text(encoding="utf-8")
    assert graph() == committed, "run `make graph`, and look at what changed in segflow_tests/defs/graph.txt"


def test_the_code_location_loads_no_library_that_only_steps_need() -> None:
    """Every process of Dagster imports it: the servers, the daemon, each run."""
    program = f"import sys, segflow.definitions; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
