"""Admission webhooks: how they are reached, and what is said to them."""
