"""Garbage collector: dependents go with their owners, in the order that the deletion asked for."""
