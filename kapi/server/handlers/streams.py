"""exec, attach, portforward: the client's upgraded connection joined to one at the node agent, byte for byte.

The agent speaks the streaming protocols, over WebSocket (`v5.channel.k8s.io` and older, SPDY inside) and over
SPDY/3.1; here only the request for the upgrade is passed on, and the agent's answer to it.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

from aiohttp import web
from yarl import URL

from kapi.errors import BadRequest, InternalError
from kapi.registry.kind import Kind
from kapi.server import tunnel
from kapi.server.context import Context
from kapi.server.handlers.log import node_url, pick_container
from kapi.server.websockets import offered

Obj = dict[str, Any]

_ENDPOINTS = {'exec': 'exec', 'attach': 'attach', 'portforward': 'portForward'}
_PASSED = frozenset(
    (
        'upgrade', 'connection', 'origin', 'x-stream-protocol-version', 'sec-websocket-key', 'sec-websocket-version',
        'sec-websocket-extensions',
    )
)  # fmt: skip


async def stream(ctx: Context, kind: Kind) -> web.StreamResponse:
    """Raises BadRequest without a request for an upgrade; InternalError when the agent cannot be reached."""
    if not tunnel.wanted(ctx.raw):
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
    address = tunnel.address_of(URL(base), ctx.server.kubelets.tls)
    try:
        return await tunnel.through(ctx, address, target, _headers(ctx))
    except tunnel.Unreached as e:
        raise InternalError(f'error dialing backend: {e}') from e


def _headers(ctx: Context) -> list[tuple[str, str]]:
    """What the agent has to know of the client's request; credentials stay here."""
    found = [(name, value) for name, value in ctx.raw.headers.items() if name.lower() in _PASSED]
    protocols = offered(ctx.raw)
    return [*found, ('Sec-WebSocket-Protocol', ', '.join(protocols))] if protocols else found
