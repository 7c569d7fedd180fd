"""HorizontalPodAutoscaler: as many replicas as the load asks for."""
