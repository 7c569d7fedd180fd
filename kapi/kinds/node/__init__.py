"""Kinds of the node group."""
