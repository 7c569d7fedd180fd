"""Subresources with handlers of their own, by (plural, subresource)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from kapi.registry.kind import Kind
from kapi.registry.options import flag, text
from kapi.server.context import Context, Reply
from kapi.server.handlers import binding, eviction, finalize, get, log, partial, patch, proxy, streams, token, update
from kapi.server.handlers.admit import admit
from kapi.storage.codec import clone
from kcore.meta.gvk import Resource

Handler = Callable[[Context, Kind], Awaitable[Reply | web.StreamResponse]]


async def approval(ctx: Context, kind: Kind) -> Reply:
    """`certificatesigningrequests/approval`: a status write under a permission of its own."""
    verbs = {'get': get.get, 'update': update.update, 'patch': patch.patch}
    return await verbs[ctx.info.verb](ctx, kind)


OPTIONS = {
    ('pods', 'exec'): 'PodExecOptions', ('pods', 'attach'): 'PodAttachOptions',
    ('pods', 'portforward'): 'PodPortForwardOptions', ('pods', 'proxy'): 'PodProxyOptions',
    ('services', 'proxy'): 'ServiceProxyOptions', ('nodes', 'proxy'): 'NodeProxyOptions',
}  # fmt: skip
"""Subresources that connect, and what admission is shown of the request."""


async def admit_connection(ctx: Context, kind: Kind) -> None:
    """Let admission judge a connection before anything is connected. Raises what refuses."""
    info = ctx.info
    name = OPTIONS.get((kind.resource.plural, info.subresource))
    if name is None:
        return
    options = {'apiVersion': 'v1', 'kind': name, **_options(ctx)}
    body = Resource('', 'v1', kind.resource.plural, name)
    admitted = await admit(ctx, kind, body, clone(options), operation='CONNECT')
    if admitted != options:
        kept = {k: v for k, v in admitted.items() if k not in {'apiVersion', 'kind', 'path'} and v}
        query = {k: [str(i).lower() if isinstance(i, bool) else str(i) for i in (v if isinstance(v, list) else [v])]
                 for k, v in kept.items()}  # fmt: skip
        ctx.info = info._replace(query=query)


def _options(ctx: Context) -> dict[str, Any]:
    """The query as the fields of an options object; output is asked for unless a proxy is."""
    query, subresource = ctx.info.query, ctx.info.subresource
    if subresource == 'proxy':
        return {'path': f'/{ctx.info.rest}'} if ctx.info.rest else {}
    if subresource == 'portforward':
        ports = [int(p) for value in query.get('ports') or () for p in value.split(',') if p.isdecimal()]
        return {'ports': ports} if ports else {}
    found: dict[str, Any] = {k: True for k in ('stdin', 'stdout', 'stderr', 'tty') if flag(query, k)}
    found |= {'stdout': True, 'stderr': True}
    if container := text(query, 'container'):
        found['container'] = container
    if command := list(query.get('command') or ()):
        found['command'] = command
    return found


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
