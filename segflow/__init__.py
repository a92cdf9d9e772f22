"""segflow: from a log of user events to segments, per-segment rankers, and a verdict on whether segmenting paid."""

import os

# One thread for the arithmetic of a process: on two cores, two processes do in the time of one what two threads do in twice
# that, and threads that spin while they wait take the core from those that work. OpenMP reads these when it is first loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
