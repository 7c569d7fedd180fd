"""Kinds of the rbac group."""
