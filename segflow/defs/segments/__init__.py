"""Assets of the segments stage."""
