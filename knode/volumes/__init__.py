"""Volumes: directories of a pod and what the API puts into them."""
