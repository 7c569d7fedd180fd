"""Namespace: empty it, then let it go."""
