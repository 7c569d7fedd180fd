"""ReplicaSet: keep so many pods of one template."""
