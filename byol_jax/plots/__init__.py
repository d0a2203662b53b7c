"""Tables and pictures of runs and results."""
