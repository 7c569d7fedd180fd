"""Kinds of the apiextensions group."""
