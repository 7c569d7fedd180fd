"""Port forwarding: SPDY streams inside a WebSocket, each pair of them (error, data) one TCP connection to the pod."""

from __future__ import annotations

import asyncio
import contextlib
import struct

import aiohttp
import structlog
from aiohttp import web

from kcore.tasks import start_detached, stop
from knode.streams.spdy import (
    DATA,
    PING,
    RST_STREAM,
    SYN_REPLY,
    SYN_STREAM,
    Frame,
    Spdy,
    SpdyError,
    control,
    data_frame,
)

log = structlog.get_logger('knode.portforward')

PROTOCOL = 'SPDY/3.1+portforward.k8s.io'
MESSAGE_BYTES_MAX = 4 * 1024 * 1024
CONNECTIONS_MAX = 256
"""Streams of one forwarder at once; one more is reset."""
READ_BYTES = 32 * 1024
CONNECT_TIMEOUT_S = 5.0


class Forwarder:
    """One `kubectl port-forward`."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._spdy = Spdy()
        self._socket = web.WebSocketResponse(protocols=(PROTOCOL,), max_msg_size=MESSAGE_BYTES_MAX, compress=False)
        self._errors: dict[str, int] = {}  # request id → error stream
        self._writers: dict[int, asyncio.StreamWriter] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        await self._socket.prepare(request)
        try:
            async for message in self._socket:
                if message.type == aiohttp.WSMsgType.BINARY:
                    for frame in self._spdy.receive(message.data):
                        await self._take(frame)
        except SpdyError as e:
            log.info('port forward ended', err=str(e))
        finally:
            await stop(*self._tasks.values())
            for writer in self._writers.values():
                writer.transport.abort()
            await self._socket.close()
        return self._socket

    async def _take(self, frame: Frame) -> None:
        if frame.kind == PING and frame.stream % 2:
            await self._send(control(PING, 0, struct.pack('>I', frame.stream)))
        elif frame.kind == SYN_STREAM:
            await self._open(frame)
        elif frame.kind == RST_STREAM:
            self._drop(frame.stream)
        elif frame.kind == DATA and (writer := self._writers.get(frame.stream)) is not None:
            with contextlib.suppress(ConnectionError):
                writer.write(frame.data)
                if frame.fin:
                    writer.write_eof()
                await writer.drain()

    async def _open(self, frame: Frame) -> None:
        request, kind = frame.headers.get('requestid', ''), frame.headers.get('streamtype')
        if len(self._tasks) >= CONNECTIONS_MAX:
            await self._send(control(RST_STREAM, 0, struct.pack('>II', frame.stream, 3)))
            return
        await self._send(self._spdy.syn(SYN_REPLY, frame.stream, {}))
        if kind == 'error':
            self._errors[request] = frame.stream
            return
        error = self._errors.pop(request, 0)
        port = frame.headers.get('port', '')
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(self._address, int(port))
        except (OSError, ValueError, TimeoutError) as e:
            text = f'failed to connect to {self._address}:{port} inside the pod: {e or "timeout"}'
            await self._send(data_frame(error, text.encode(), fin=True))
            await self._send(data_frame(frame.stream, b'', fin=True))
            return
        self._writers[frame.stream] = writer
        self._tasks[frame.stream] = start_detached('forward', self._back(frame.stream, error, reader))

    async def _back(self, stream: int, error: int, reader: asyncio.StreamReader) -> None:
        try:
            while data := await reader.read(READ_BYTES):
                await self._send(data_frame(stream, data))
        except ConnectionError as e:
            await self._send(data_frame(error, str(e).encode()))
        await self._send(data_frame(stream, b'', fin=True))
        await self._send(data_frame(error, b'', fin=True))
        self._tasks.pop(stream, None)
        self._drop(stream)

    def _drop(self, stream: int) -> None:
        writer = self._writers.pop(stream, None)
        if writer is not None:
            writer.close()
        task = self._tasks.pop(stream, None)
        if task is not None:
            task.cancel()

    async def _send(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            if not self._socket.closed:
                await self._socket.send_bytes(data)
