"""exec, attach, portforward: the client's WebSocket joined to one at the node agent, frame by frame.

The agent speaks the streaming protocols (v4/v5.channel.k8s.io, SPDY/3.1+portforward.k8s.io); here only the choice of
subprotocol is passed on: the client's offer goes to the agent, the agent's choice to the client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import aiohttp
from aiohttp import web

from kapi.errors import BadRequest, InternalError, NotFound
from kapi.registry.kind import Kind
from kapi.server.context import Context
from kapi.server.handlers.log import node_url, pick_container
from kcore import tasks

Obj = dict[str, Any]

MESSAGE_BYTES_MAX = 4 * 1024 * 1024
"""One WebSocket message; longer ones close the connection (clients send 32 KiB at most)."""
_ENDPOINTS = {'exec': 'exec', 'attach': 'attach', 'portforward': 'portForward'}


async def stream(ctx: Context, kind: Kind) -> web.StreamResponse:
    """Raises BadRequest without an upgrade to WebSocket, and what the agent says instead of switching protocols."""
    if ctx.raw.headers.get('Upgrade', '').lower() != 'websocket':
        raise BadRequest('Upgrade request required: only WebSocket streams are served')
    pod = (await ctx.server.registry.get(kind, ctx.info.namespace, ctx.info.name)).obj
    base = await node_url(ctx, pod)
    if base is None:
        raise BadRequest(f'pod {ctx.info.name} does not have a host assigned')
    path = f'{base}/{_ENDPOINTS[ctx.info.subresource]}/{ctx.info.namespace}/{ctx.info.name}'
    if ctx.info.subresource != 'portforward':
        path += f'/{pick_container(pod, ctx.info.query)}'
    params = [(k, v) for k, values in ctx.info.query.items() for v in values if k != 'container']
    offered = [p.strip() for p in ctx.raw.headers.get('Sec-WebSocket-Protocol', '').split(',') if p.strip()]
    agent = await _dial(ctx, path, params, offered)
    try:
        chosen = (agent.protocol,) if agent.protocol else ()
        client = web.WebSocketResponse(protocols=chosen, compress=False, max_msg_size=MESSAGE_BYTES_MAX)
        await client.prepare(ctx.raw)
        await _join(client, agent)
        return client
    finally:
        await agent.close()


async def _dial(
    ctx: Context, url: str, params: Sequence[tuple[str, str]], offered: Sequence[str]
) -> aiohttp.ClientWebSocketResponse:
    session = ctx.server.kubelets.session()
    try:
        return await session.ws_connect(url, params=params, protocols=offered, max_msg_size=MESSAGE_BYTES_MAX)
    except aiohttp.WSServerHandshakeError as e:
        if e.status == 404:
            raise NotFound(f'the node agent does not know this stream: {e.message}', details={}) from e
        raise InternalError(f'error dialing backend: the node agent answered {e.status}') from e
    except aiohttp.ClientConnectionError as e:
        raise InternalError(f'error dialing backend: {e}') from e


async def _join(client: web.WebSocketResponse, agent: aiohttp.ClientWebSocketResponse) -> None:
    """Until either side closes; then the other is closed with the same code."""
    forth = tasks.start_detached('stream to agent', _pump(client, agent))
    back = tasks.start_detached('stream to client', _pump(agent, client))
    try:
        await asyncio.wait({forth, back}, return_when=asyncio.FIRST_COMPLETED)
        if not back.done():
            # The client has said its last word, but the agent may still be speaking.
            await agent.close(code=client.close_code or aiohttp.WSCloseCode.OK)
        else:
            await client.close(code=agent.close_code or aiohttp.WSCloseCode.OK)
    finally:
        await tasks.stop(forth, back)


_Socket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


async def _pump(source: _Socket, sink: _Socket) -> None:
    try:
        async for message in source:
            if message.type == aiohttp.WSMsgType.BINARY:
                await sink.send_bytes(message.data)
            elif message.type == aiohttp.WSMsgType.TEXT:
                await sink.send_str(message.data)
    except (ConnectionResetError, aiohttp.ClientConnectionError):
        return  # the other side is gone; `_join` closes this one
