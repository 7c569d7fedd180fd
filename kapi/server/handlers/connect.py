"""Subresources with handlers of their own, by (plural, subresource)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from kapi.registry.kind import Kind
from kapi.server.context import Context, Reply
from kapi.server.handlers import binding, eviction, finalize, log

Handler = Callable[[Context, Kind], Awaitable[Reply | web.StreamResponse]]

HANDLERS: Mapping[tuple[str, str], Handler] = {
    ('pods', 'binding'): binding.bind,
    ('pods', 'eviction'): eviction.evict,
    ('pods', 'log'): log.log,
    ('namespaces', 'finalize'): finalize.finalize,
}
