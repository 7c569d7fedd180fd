"""Taint eviction: pods leave a node whose NoExecute taints they do not (or no longer) tolerate."""
