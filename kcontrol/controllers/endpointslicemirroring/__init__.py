"""EndpointSlice mirroring: Endpoints that a person wrote appear as slices too."""
