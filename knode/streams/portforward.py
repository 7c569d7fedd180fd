"""Port forwarding over SPDY: each pair of streams (error, data) is one TCP connection to the pod.

Newer clients put the SPDY frames into a WebSocket, older ones speak SPDY on the upgraded connection; the frames are
the same. Source: kubelet cri/streaming/portforward/httpstream.go, apimachinery pkg/util/portforward.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiohttp
import structlog
from aiohttp import web

from kcore.tasks import start_detached, stop
from kcore.upgrade import Upgraded
from knode.errors import os_text
from knode.streams.channels import HEARTBEAT_S, MESSAGE_BYTES_MAX
from knode.streams.spdy import DATA, RST_STREAM, SYN_STREAM, Frame, SpdyError
from knode.streams.upgraded import SpdyConnection, accept, asks_for_spdy, negotiate

log = structlog.get_logger('knode.portforward')

PROTOCOL = 'portforward.k8s.io'
TUNNELLED = f'SPDY/3.1+{PROTOCOL}'
CONNECTIONS_MAX = 256
"""Connections of one forwarder at once; one more is refused."""
WAITING_FRAMES_MAX = 4
"""Frames that a pod has not taken yet, per connection; then the forwarder reads no further."""
READ_BYTES = 32 * 1024
CONNECT_TIMEOUT_S = 5.0
Connecting = Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]


class WebSocketCarrier:
    """SPDY's bytes as the messages of a WebSocket."""

    def __init__(self) -> None:
        self.response = web.WebSocketResponse(
            protocols=(TUNNELLED,), max_msg_size=MESSAGE_BYTES_MAX, heartbeat=HEARTBEAT_S, compress=False
        )

    async def receive(self) -> bytes:
        async for message in self.response:
            if message.type == aiohttp.WSMsgType.BINARY and message.data:
                data: bytes = message.data
                return data
        return b''

    async def send(self, data: bytes) -> None:
        if self.response.closed:
            raise ConnectionResetError('the WebSocket is closed')
        await self.response.send_bytes(data)


async def serve(request: web.Request, address: str) -> web.StreamResponse:
    """Raises BadRequestError, ProtocolRefused: no protocol of ours is offered."""
    if asks_for_spdy(request):
        duplex = await accept(request, negotiate(request.headers, (PROTOCOL,)))
        try:
            await Forwarder(address, SpdyConnection(duplex)).run()
        finally:
            duplex.close()
        return Upgraded()
    carrier = WebSocketCarrier()
    await carrier.response.prepare(request)
    try:
        await Forwarder(address, SpdyConnection(carrier)).run()
    finally:
        await carrier.response.close()
    return carrier.response


class Relay:
    """One connection to the pod, and the client's bytes on their way to it."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[bytes | None] = asyncio.Queue(WAITING_FRAMES_MAX)
        self._over = False

    async def put(self, data: bytes | None) -> None:
        """None is the end of the client's bytes. Waits while the pod does not take them."""
        if not self._over:
            await self._waiting.put(data)

    async def run(self, connection: Connecting, send: Callable[[bytes], Awaitable[None]]) -> str:
        """Returns what went wrong with the pod; empty: nothing. Raises ConnectionError: the client is gone."""
        try:
            return await self._run(connection, send)
        finally:
            self._over = True
            while not self._waiting.empty():
                self._waiting.get_nowait()  # lets go of whoever waits for room

    async def _run(self, connection: Connecting, send: Callable[[bytes], Awaitable[None]]) -> str:
        try:
            reader, writer = await connection
        except OSError as e:
            return str(e)
        forth = start_detached('forward input', self._feed(writer))
        try:
            while data := await _read(reader):
                await send(data)
            writer.close()
        except BaseException:
            writer.transport.abort()
            raise
        finally:
            await stop(forth)
        return ''

    async def _feed(self, writer: asyncio.StreamWriter) -> None:
        """Everything goes on being taken, also when the pod has stopped listening."""
        listening = True
        while (data := await self._waiting.get()) is not None:
            if listening:
                try:
                    writer.write(data)
                    await writer.drain()
                except ConnectionError:
                    listening = False
        if listening and writer.can_write_eof():
            with contextlib.suppress(OSError):
                writer.write_eof()


async def connect(address: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Raises OSError with a sentence for the client."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            return await asyncio.open_connection(address, port)
    except OSError as e:
        why = f'dial tcp {address}:{port}: ' + (
            'i/o timeout' if isinstance(e, TimeoutError) else f'connect: {os_text(e)}'
        )
        raise OSError(f'failed to connect to {address}:{port} inside the pod: {why}') from e


async def _read(reader: asyncio.StreamReader) -> bytes:
    """Empty at the end, and when the pod has reset the connection."""
    try:
        return await reader.read(READ_BYTES)
    except ConnectionError:
        return b''


@dataclass(slots=True)
class _Pair:
    """The two streams of one connection."""

    error: int
    relay: Relay
    task: asyncio.Task[None] | None = None


class Forwarder:
    """One `kubectl port-forward`."""

    def __init__(self, address: str, spdy: SpdyConnection) -> None:
        self._address, self._spdy = address, spdy
        self._errors: dict[str, int] = {}  # request id → error stream that waits for its data stream
        self._pairs: dict[int, _Pair] = {}

    async def run(self) -> None:
        """Until the client leaves."""
        try:
            async for frame in self._spdy.frames():
                await self._take(frame)
        except (SpdyError, ConnectionError) as e:
            log.info('port forward ended', err=str(e))
        finally:
            await stop(*(p.task for p in self._pairs.values()))

    async def _take(self, frame: Frame) -> None:
        if frame.kind == SYN_STREAM:
            await self._open(frame)
        elif frame.kind == RST_STREAM:
            self._drop(frame.stream)
        elif frame.kind == DATA and (pair := self._pairs.get(frame.stream)) is not None:
            if frame.data:
                await pair.relay.put(frame.data)
            if frame.fin:
                await pair.relay.put(None)

    async def _open(self, frame: Frame) -> None:
        request, port = frame.headers.get('requestid', ''), frame.headers.get('port', '')
        if frame.headers.get('streamtype') == 'error':
            if len(self._pairs) + len(self._errors) >= CONNECTIONS_MAX:
                await self._spdy.refuse(frame.stream)
                return
            await self._spdy.reply(frame.stream)
            self._errors[request] = frame.stream
        elif request not in self._errors or not port.isdecimal() or not 1 <= int(port) <= 65535:
            await self._spdy.refuse(frame.stream)
        else:
            await self._spdy.reply(frame.stream)
            pair = self._pairs[frame.stream] = _Pair(self._errors.pop(request), Relay())
            pair.task = start_detached('forward', self._relay(frame.stream, pair, int(port)))

    def _drop(self, stream: int) -> None:
        pair = self._pairs.pop(stream, None)
        if pair is not None and pair.task is not None:
            pair.task.cancel()
        self._errors = {k: v for k, v in self._errors.items() if v != stream}

    async def _relay(self, stream: int, pair: _Pair, port: int) -> None:
        try:
            with contextlib.suppress(ConnectionError):  # the client is gone; `run` hears of it too
                work = pair.relay.run(connect(self._address, port), lambda data: self._spdy.send(stream, data))
                problem = await work
                await self._spdy.send(stream, b'', fin=True)
                await self._spdy.send(pair.error, problem.encode(), fin=True)
        finally:
            self._pairs.pop(stream, None)
