"""Kinds of the apiregistration group."""
