"""Subresources with handlers of their own, by (plural, subresource)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from kapi.registry.kind import Kind
from kapi.server.context import Context, Reply
from kapi.server.handlers import binding, eviction, finalize, get, log, partial, patch, proxy, streams, token, update

Handler = Callable[[Context, Kind], Awaitable[Reply | web.StreamResponse]]


async def approval(ctx: Context, kind: Kind) -> Reply:
    """`certificatesigningrequests/approval`: a status write under a permission of its own."""
    verbs = {'get': get.get, 'update': update.update, 'patch': patch.patch}
    return await verbs[ctx.info.verb](ctx, kind)


HANDLERS: Mapping[tuple[str, str], Handler] = {
    ('serviceaccounts', 'token'): token.token,
    ('pods', 'binding'): binding.bind,
    ('pods', 'eviction'): eviction.evict,
    ('pods', 'log'): log.log,
    ('pods', 'exec'): streams.stream,
    ('pods', 'attach'): streams.stream,
    ('pods', 'portforward'): streams.stream,
    ('pods', 'proxy'): proxy.proxy,
    ('services', 'proxy'): proxy.proxy,
    ('nodes', 'proxy'): proxy.proxy,
    ('pods', 'ephemeralcontainers'): partial.ephemeral_containers,
    ('pods', 'resize'): partial.resize,
    ('namespaces', 'finalize'): finalize.finalize,
    ('certificatesigningrequests', 'approval'): approval,
}
