"""ResourceQuota: what an object uses, which quotas it counts for, and exact reservations."""
