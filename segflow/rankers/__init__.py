"""Rankers: one global ranker, what is specific to each segment on top of it, and the simple scorers they must beat."""
