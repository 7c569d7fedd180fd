"""Passing another server's answer on: what streams, a pod's proxy and an aggregated API server have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web

from kapi.server.websockets import Sink
from kcore import tasks

if TYPE_CHECKING:
    from kapi.server.context import Context

MESSAGE_BYTES_MAX = 4 * 1024 * 1024
"""One WebSocket message; longer ones close the connection (clients send 32 KiB at most)."""
HOP_BY_HOP = frozenset(
    (
        'connection', 'keep-alive', 'proxy-authenticate', 'proxy-authorization', 'te', 'trailer', 'transfer-encoding',
        'upgrade', 'host', 'authorization', 'content-length',
    )
)  # fmt: skip


async def pass_back(
    ctx: Context, answer: aiohttp.ClientResponse, more: Mapping[str, str] | None = None
) -> web.StreamResponse:
    """Stream another server's answer to our client, with `more` headers; cut short where the other one cut it."""
    response = web.StreamResponse(status=answer.status, reason=answer.reason)
    for name, value in answer.headers.items():
        if name.lower() not in HOP_BY_HOP:
            response.headers.add(name, value)
    for name, value in (more or {}).items():
        response.headers[name] = value
    if answer.content_length is not None and ctx.raw.method != 'HEAD':
        response.content_length = answer.content_length
    elif ctx.raw.method != 'HEAD':
        response.enable_chunked_encoding()
    await pour(ctx, answer, response)
    return response


async def pour(ctx: Context, answer: aiohttp.ClientResponse, sink: Sink) -> None:
    """Pass the body on as it comes; where the other side broke off, so that the client sees that it is not whole."""
    await sink.prepare(ctx.raw)
    try:
        async for chunk in answer.content.iter_any():
            await sink.write(chunk)
        await sink.write_eof()
    except ConnectionResetError:
        pass  # the client left
    except aiohttp.ClientPayloadError:
        if ctx.raw.transport is not None:  # without the final chunk
            ctx.raw.transport.close()


async def join(ctx: Context, agent: aiohttp.ClientWebSocketResponse) -> web.WebSocketResponse:
    """Switch our client to a WebSocket too, with the subprotocol the other side chose, and pass messages both ways."""
    try:
        chosen = (agent.protocol,) if agent.protocol else ()
        client = web.WebSocketResponse(protocols=chosen, compress=False, max_msg_size=MESSAGE_BYTES_MAX)
        await client.prepare(ctx.raw)
        await _pump_both(client, agent)
        return client
    finally:
        await agent.close()


async def _pump_both(client: web.WebSocketResponse, agent: aiohttp.ClientWebSocketResponse) -> None:
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
        return  # the other side is gone; `_pump_both` closes this one
