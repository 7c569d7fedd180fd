"""Subresources with handlers of their own, by (plural, subresource)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from kapi.admission.chain import Attributes
from kapi.registry.kind import Kind
from kapi.server.context import Context, Reply
from kapi.server.handlers import binding, eviction, finalize, get, log, partial, patch, proxy, streams, token, update

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


async def admit(ctx: Context, kind: Kind) -> None:
    """Let admission judge a connection before anything is connected. Raises what refuses."""
    info = ctx.info
    name = OPTIONS.get((kind.resource.plural, info.subresource))
    if name is None:
        return
    asked = {k: values if k == 'command' else values[0] for k, values in info.query.items() if values}
    attributes = Attributes(
        'CONNECT', kind, info.namespace, info.name, {'apiVersion': 'v1', 'kind': name, **asked}, None, ctx.user,
        info.subresource,
    )  # fmt: skip
    await ctx.server.admission.mutate(attributes)
    await ctx.server.admission.validate(attributes)
    ctx.annotations.update(attributes.annotations)


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
