"""Controller manager and scheduler."""
