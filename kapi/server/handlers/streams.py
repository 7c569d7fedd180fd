"""exec, attach, portforward: the client's upgraded connection joined to one at the node agent, byte for byte.

The agent speaks the streaming protocols, over WebSocket (`v5.channel.k8s.io` and older, SPDY inside) and over
SPDY/3.1; here only the request for the upgrade is passed on, and the agent's answer to it.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

from aiohttp import web

from kapi.authn.bearer import WEBSOCKET_PREFIX
from kapi.errors import BadRequest
from kapi.registry.kind import Kind
from kapi.server import tunnel
from kapi.server.context import Context
from kapi.server.handlers.log import node_url, pick_container

Obj = dict[str, Any]

_ENDPOINTS = {'exec': 'exec', 'attach': 'attach', 'portforward': 'portForward'}
_UPGRADES = frozenset({'websocket', 'spdy/3.1'})
_PASSED = frozenset(
    (
        'upgrade', 'connection', 'origin', 'x-stream-protocol-version', 'sec-websocket-key', 'sec-websocket-version',
        'sec-websocket-extensions',
    )
)  # fmt: skip


async def stream(ctx: Context, kind: Kind) -> web.StreamResponse:
    """Raises BadRequest without a request for an upgrade; InternalError when the agent cannot be reached."""
    if ctx.raw.headers.get('Upgrade', '').lower() not in _UPGRADES:
        raise BadRequest('Upgrade request required')
    pod = (await ctx.server.registry.get(kind, ctx.info.namespace, ctx.info.name)).obj
    base = await node_url(ctx, pod)
    if base is None:
        raise BadRequest(f'pod {ctx.info.name} does not have a host assigned')
    path = f'/{_ENDPOINTS[ctx.info.subresource]}/{quote(ctx.info.namespace)}/{quote(ctx.info.name)}'
    if ctx.info.subresource != 'portforward':
        path += f'/{quote(pick_container(pod, ctx.info.query))}'
    params = urlencode([(k, v) for k, values in ctx.info.query.items() for v in values if k != 'container'])
    target = f'{path}?{params}' if params else path
    return await tunnel.through(ctx, tunnel.address_of(base, ctx.server.kubelets.tls), target, _headers(ctx))


def _headers(ctx: Context) -> list[tuple[str, str]]:
    """What the agent has to know of the client's request; credentials stay here."""
    raw = ctx.raw.headers
    found = [(name, value) for name, value in raw.items() if name.lower() in _PASSED]
    offered = [p.strip() for p in raw.get('Sec-WebSocket-Protocol', '').split(',')]
    protocols = [p for p in offered if p and not p.startswith(WEBSOCKET_PREFIX)]
    return [*found, ('Sec-WebSocket-Protocol', ', '.join(protocols))] if protocols else found
