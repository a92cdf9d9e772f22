"""Assets of the rankers stage."""
