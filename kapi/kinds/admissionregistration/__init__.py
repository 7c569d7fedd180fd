"""Kinds of the admissionregistration group."""
