"""segflow: from a log of user events to segments, per-segment rankers, and a verdict on whether segmenting paid."""
