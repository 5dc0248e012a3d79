"""Numbers of runs as something to look at."""
