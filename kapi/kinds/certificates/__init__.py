"""Kinds of the certificates group."""
