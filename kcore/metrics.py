"""Prometheus metrics without a global registry: fifty clusters fit into one process."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

__all__ = ['CONTENT_TYPE', 'CollectorRegistry', 'render']

CONTENT_TYPE = CONTENT_TYPE_LATEST


def render(registry: CollectorRegistry) -> bytes:
    """The text that a scraper reads."""
    return generate_latest(registry)
