"""Kinds of the authorization group."""
