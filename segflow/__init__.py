"""segflow: from a log of user events to segments, per-segment rankers, and a verdict on whether segmenting paid."""

import os

# Threads that spin while they wait take the core from those that work: with two busy processes on two cores, training took
# six times as long. OpenMP reads this when it is first loaded, so it is set before anything else.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
