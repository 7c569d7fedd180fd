"""Aggregation: groups that another server answers for, and how the API server reaches servers beside it."""
