"""Kinds of the flowcontrol group."""
