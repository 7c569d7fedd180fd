"""Passing another server's answer on: what logs, a pod's proxy and an aggregated API server have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web

from kapi.server import audit
from kapi.server.websockets import Sink

if TYPE_CHECKING:
    from kapi.server.context import Context

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
    audit.started(ctx, sink.status)
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
