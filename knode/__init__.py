"""Node agent: pods that are processes."""
