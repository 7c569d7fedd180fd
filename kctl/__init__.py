"""Command line, local cluster, test fixture."""
