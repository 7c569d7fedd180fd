"""Kinds of the metrics group: what nodes and pods use, answered from the node agents' figures, never stored."""
