"""Aggregated ClusterRoles: their rules are those of the roles that they select."""
