"""The replicated key-value store: Raft, write-ahead log, MVCC, leases, watch."""

__version__ = '0.1.0'
