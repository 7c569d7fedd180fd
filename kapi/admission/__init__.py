"""Mutating and validating admission: an explicit chain of plugins."""
