"""The service proxy: Services and EndpointSlices → who listens where, and the connections that come of it."""
