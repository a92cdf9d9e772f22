"""Assets of the representation stage."""
