"""Runtime drivers: what a pod's containers are made of."""
