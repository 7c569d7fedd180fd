"""Node TTL: how long a node may keep Secrets and ConfigMaps before it asks again; longer in large clusters."""
