"""HTTP: the request pipeline, handlers, discovery, OpenAPI."""
