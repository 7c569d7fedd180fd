"""Node IPAM: every node gets a /24 of its own for its pods."""
