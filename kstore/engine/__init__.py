"""Ordered, durable tables under the state machine: layers in memory over LMDB, or over plain memory in simulation."""
