"""Node-pressure eviction: end pods before the node runs out of memory, disk or process ids."""
