"""Node lifecycle: a silent node becomes Unknown, gets taints, and its pods move."""
