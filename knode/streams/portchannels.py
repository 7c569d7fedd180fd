"""Port forwarding over WebSocket channels, as Python's clients do it: two channels for each `ports=` of the query.

Channel 2n carries the data of the n-th port, 2n+1 what went wrong; each begins with the port in two bytes, the lower
one first. The connections to the pod are made at once, and the WebSocket ends with the last of them.
Source: kubelet cri/streaming/portforward/websocket.go.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct

import structlog
from aiohttp import web

from kcore.tasks import start_detached, stop
from knode.errors import BadRequestError
from knode.streams.channels import Socket
from knode.streams.portforward import Relay, connect

log = structlog.get_logger('knode.portforward')

PORTS_MAX = 64
"""Channel numbers are one byte, and two channels belong to a port."""


def ports_of(request: web.Request) -> list[int]:
    """Raises BadRequestError."""
    texts = [p for value in request.query.getall('ports', []) for p in value.split(',')]
    if not texts:
        raise BadRequestError('query parameter "ports" is required')
    if len(texts) > PORTS_MAX:
        raise BadRequestError(f'at most {PORTS_MAX} ports can be forwarded at once')
    for text in texts:
        if not text.isdecimal() or not 1 <= int(text) <= 65535:
            raise BadRequestError(f'unable to parse {text!r} as a port')
    return [int(p) for p in texts]


async def serve(request: web.Request, address: str) -> web.StreamResponse:
    """Raises BadRequestError."""
    ports = ports_of(request)
    socket = Socket()
    await socket.response.prepare(request)
    relays = [Relay() for _ in ports]
    reading = start_detached('forward input', _read(socket, relays))
    writing = [
        start_detached(f'forward {p}', _forward(socket, i, relays[i], (address, p))) for i, p in enumerate(ports)
    ]
    ended = start_detached('forward all', _all(writing))
    try:
        await asyncio.wait({reading, ended}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await stop(reading, ended, *writing)
        await socket.response.close()
    return socket.response


async def _all(tasks: list[asyncio.Task[None]]) -> None:
    await asyncio.wait(tasks)


async def _read(socket: Socket, relays: list[Relay]) -> None:
    while (message := await socket.receive()) is not None:
        channel, data = message
        if channel % 2 == 0 and channel // 2 < len(relays) and data:
            await relays[channel // 2].put(data)


async def _forward(socket: Socket, number: int, relay: Relay, to: tuple[str, int]) -> None:
    with contextlib.suppress(ConnectionError):  # the client is gone
        port = struct.pack('<H', to[1])
        await socket.send(2 * number, port)
        await socket.send(2 * number + 1, port)
        problem = await relay.run(connect(*to), lambda data: socket.send(2 * number, data))
        if problem:
            await socket.send(2 * number + 1, problem.encode())
