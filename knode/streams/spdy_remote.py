"""exec and attach over SPDY/3.1: a stream each for stdin, stdout, stderr, terminal size and the outcome.

The client opens all of them, says in the header `streamType` what each is for, and waits for our answers; then the
command begins. Source: kubelet cri/streaming/remotecommand/httpstream.go.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Set
from typing import Any

import orjson
import structlog
from aiohttp import web

from kcore.upgrade import Duplex, Upgraded
from knode.errors import BadRequestError
from knode.streams.remote import ERROR, RESIZE, STDERR, STDIN, STDOUT, RemoteStreams
from knode.streams.spdy import DATA, RST_STREAM, SYN_STREAM, Frame, SpdyError
from knode.streams.upgraded import SpdyConnection, accept, negotiate

log = structlog.get_logger('knode.streams')

PROTOCOLS = ('v4.channel.k8s.io', 'v3.channel.k8s.io', 'v2.channel.k8s.io', 'channel.k8s.io')
STREAMS: Mapping[str, int] = {'stdin': STDIN, 'stdout': STDOUT, 'stderr': STDERR, 'error': ERROR, 'resize': RESIZE}
CREATION_S = 30.0
"""How long a client may take to open its streams (upstream's figure)."""
LINGER_S = 2.0
"""How long a client that was told the outcome may take to close."""
HEARTBEAT_S = 30.0
SIZES_BYTES_MAX = 4096
"""Terminal sizes that have not been understood yet."""


class StreamsMissing(ConnectionError):
    """The client did not open what it had asked for."""


class SpdyStreams(RemoteStreams):
    def __init__(self, wants: Set[str]) -> None:
        super().__init__()
        self._wants = wants
        self._response = Upgraded()
        self._protocol = ''
        self._ids: dict[int, int] = {}
        self._by_id: dict[int, int] = {}
        self._frames: AsyncIterator[Frame] | None = None
        self._duplex: Duplex | None = None
        self._connection: SpdyConnection | None = None
        self._sizes = b''

    @property
    def response(self) -> web.StreamResponse:
        return self._response

    @property
    def _spdy(self) -> SpdyConnection:
        assert self._connection is not None, 'open comes first'
        return self._connection

    def _expected(self) -> set[int]:
        expected = {STREAMS[name] for name in ('stdin', 'stdout', 'stderr') if name in self._wants} | {ERROR}
        if 'tty' in self._wants:
            expected.discard(STDERR)
            if self._protocol.startswith(('v3', 'v4')):
                expected.add(RESIZE)
        return expected

    async def open(self, request: web.Request) -> None:
        """Raises ProtocolRefused, BadRequestError; StreamsMissing after the upgrade."""
        if not self._wants & {'stdin', 'stdout', 'stderr'}:
            raise BadRequestError('you must specify at least 1 of stdin, stdout, stderr')
        self._protocol = negotiate(request.headers, PROTOCOLS)
        self._duplex = await accept(request, self._protocol)
        self._connection = SpdyConnection(self._duplex)
        self._frames = self._connection.frames()
        try:
            async with asyncio.timeout(CREATION_S):
                await self._open_streams(self._frames)
        except (TimeoutError, SpdyError, ConnectionError) as e:
            self._duplex.close()
            raise StreamsMissing(str(e) or 'timed out waiting for client to create streams') from e

    async def _open_streams(self, frames: AsyncIterator[Frame]) -> None:
        expected = self._expected()
        while self._ids.keys() != expected:
            frame = await anext(frames, None)
            if frame is None:
                raise StreamsMissing('the client left before it had opened its streams')
            if frame.kind != SYN_STREAM:
                continue
            stream = STREAMS.get(frame.headers.get('streamtype', ''))
            if stream in expected and stream not in self._ids:
                self._ids[stream], self._by_id[frame.stream] = frame.stream, stream
                await self._spdy.reply(frame.stream)
            else:
                await self._spdy.refuse(frame.stream)

    async def _write(self, stream: int, data: bytes) -> None:
        if stream in self._ids:
            await self._spdy.send(self._ids[stream], data)

    async def _end(self, stream: int) -> None:
        if stream in self._ids:
            await self._spdy.send(self._ids.pop(stream), b'', fin=True)

    async def _take_all(self) -> None:
        assert self._frames is not None
        try:
            async for frame in self._frames:
                await self._take(frame)
        except (SpdyError, ConnectionError) as e:
            log.info('a stream ended', err=str(e))

    async def _take(self, frame: Frame) -> None:
        if frame.kind == SYN_STREAM:
            await self._spdy.refuse(frame.stream)
            return
        stream = self._by_id.get(frame.stream)
        if stream == STDIN and frame.kind == RST_STREAM:
            self.close_stdin()
        elif stream == STDIN and frame.kind == DATA:
            await self._feed(frame.data)
            if frame.fin:
                await self._end_input()
        elif stream == RESIZE and frame.kind == DATA:
            self._take_sizes(frame.data)

    def _take_sizes(self, data: bytes) -> None:
        *whole, self._sizes = (self._sizes + data)[-SIZES_BYTES_MAX:].split(b'}')
        for size in whole:
            self._resize(size + b'}')

    async def _lost(self) -> None:
        assert self._duplex is not None, 'open comes first'
        with contextlib.suppress(ConnectionError):
            while not self._duplex.lost.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(HEARTBEAT_S):
                        await self._duplex.lost.wait()
                await self._spdy.ping()

    async def _finish(self, outcome: dict[str, Any]) -> None:
        for stream in (STDOUT, STDERR):
            await self._end(stream)
        told = b''
        if self._protocol.startswith('v4'):
            told = orjson.dumps(outcome)
        elif outcome['status'] != 'Success':
            told = str(outcome['message']).encode()
        await self._spdy.send(self._ids[ERROR], told, fin=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                await self.left.wait()

    async def _close(self) -> None:
        if self._duplex is not None:
            self._duplex.close()
