"""exec, attach, portforward: the client's WebSocket joined to one at the node agent, frame by frame.

The agent speaks the streaming protocols (v4/v5.channel.k8s.io, SPDY/3.1+portforward.k8s.io); here only the choice of
subprotocol is passed on: the client's offer goes to the agent, the agent's choice to the client.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import aiohttp
from aiohttp import web

from kapi.errors import BadRequest, InternalError, NotFound
from kapi.registry.kind import Kind
from kapi.server.context import Context
from kapi.server.handlers.log import node_url, pick_container
from kapi.server.relay import MESSAGE_BYTES_MAX, join
from kapi.server.websockets import offered, wanted

Obj = dict[str, Any]

_ENDPOINTS = {'exec': 'exec', 'attach': 'attach', 'portforward': 'portForward'}


async def stream(ctx: Context, kind: Kind) -> web.StreamResponse:
    """Raises BadRequest without an upgrade to WebSocket, and what the agent says instead of switching protocols."""
    if not wanted(ctx.raw):
        raise BadRequest('Upgrade request required: only WebSocket streams are served')
    pod = (await ctx.server.registry.get(kind, ctx.info.namespace, ctx.info.name)).obj
    base = await node_url(ctx, pod)
    if base is None:
        raise BadRequest(f'pod {ctx.info.name} does not have a host assigned')
    path = f'{base}/{_ENDPOINTS[ctx.info.subresource]}/{ctx.info.namespace}/{ctx.info.name}'
    if ctx.info.subresource != 'portforward':
        path += f'/{pick_container(pod, ctx.info.query)}'
    params = [(k, v) for k, values in ctx.info.query.items() for v in values if k != 'container']
    agent = await _dial(ctx, path, params, offered(ctx.raw))
    return await join(ctx, agent)


async def _dial(
    ctx: Context, url: str, params: Sequence[tuple[str, str]], protocols: Sequence[str]
) -> aiohttp.ClientWebSocketResponse:
    options = {'params': params, 'protocols': protocols, 'max_msg_size': MESSAGE_BYTES_MAX}
    try:
        agent: aiohttp.ClientWebSocketResponse = await ctx.server.kubelets.websocket(url, **options)
    except aiohttp.WSServerHandshakeError as e:
        if e.status == 404:
            raise NotFound(f'the node agent does not know this stream: {e.message}', details={}) from e
        raise InternalError(f'error dialing backend: the node agent answered {e.status}') from e
    except aiohttp.ClientConnectionError as e:
        raise InternalError(f'error dialing backend: {e}') from e
    return agent
