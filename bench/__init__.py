"""Benchmarks: `python -m bench NAME` prints a table on standard error, one JSON object a figure on standard out."""
