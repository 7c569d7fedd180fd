"""Kinds of the authentication group."""
