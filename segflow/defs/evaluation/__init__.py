"""Assets of the evaluation stage."""
