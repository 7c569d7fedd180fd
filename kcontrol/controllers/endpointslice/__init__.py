"""EndpointSlice: the addresses behind a Service in slices of at most a hundred."""
