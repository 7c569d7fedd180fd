"""Storage drivers behind one protocol, and the watch cache."""
