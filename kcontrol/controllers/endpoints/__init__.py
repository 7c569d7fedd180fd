"""Endpoints: the addresses behind a Service, as v1 clients read them."""
