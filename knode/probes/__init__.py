"""Probes: exec, HTTP and TCP checks of running containers."""
