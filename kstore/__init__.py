"""The replicated key-value store: Raft, write-ahead log, MVCC, leases, watch."""
