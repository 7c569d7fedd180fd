"""ResourceQuota: what a namespace uses of what it may hold."""
