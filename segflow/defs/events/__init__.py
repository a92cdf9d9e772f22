"""Assets of the events stage."""
