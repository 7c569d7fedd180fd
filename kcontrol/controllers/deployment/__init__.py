"""Deployment: move from one ReplicaSet to the next within bounds."""
