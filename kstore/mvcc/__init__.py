"""Multi-version keys: every revision of every key until it is compacted. No I/O of its own, nothing asynchronous."""
