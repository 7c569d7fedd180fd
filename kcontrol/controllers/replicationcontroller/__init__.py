"""ReplicationController: the ReplicaSet's elder, with equality selectors."""
