"""Subresources with handlers of their own, by (plural, subresource)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from kapi.registry.kind import Kind
from kapi.server.context import Context, Reply
from kapi.server.handlers import binding, eviction, finalize, log, partial, streams

Handler = Callable[[Context, Kind], Awaitable[Reply | web.StreamResponse]]

HANDLERS: Mapping[tuple[str, str], Handler] = {
    ('pods', 'binding'): binding.bind,
    ('pods', 'eviction'): eviction.evict,
    ('pods', 'log'): log.log,
    ('pods', 'exec'): streams.stream,
    ('pods', 'attach'): streams.stream,
    ('pods', 'portforward'): streams.stream,
    ('pods', 'ephemeralcontainers'): partial.ephemeral_containers,
    ('pods', 'resize'): partial.resize,
    ('namespaces', 'finalize'): finalize.finalize,
}
