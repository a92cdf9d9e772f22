"""Evaluation: how well each arm ranks, how sure that is, whether segmenting paid, and the report that says so."""
