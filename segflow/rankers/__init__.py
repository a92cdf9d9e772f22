"""Scorers, the global ranker, segment rankers and recommendations. Pure."""
