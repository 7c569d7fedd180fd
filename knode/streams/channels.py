"""The channel protocols (`v5.channel.k8s.io` and older): one byte says which stream a message belongs to.

0 stdin, 1 stdout, 2 stderr, 3 the outcome as a Status, 4 terminal size; 255 (v5) half-closes the channel that
follows it. Source: apimachinery/pkg/util/remotecommand/constants.go.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from kcore.tasks import start_detached, stop
from knode.streams import fds

STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
PROTOCOLS = ('v5.channel.k8s.io', 'v4.channel.k8s.io', 'v3.channel.k8s.io', 'v2.channel.k8s.io', 'channel.k8s.io')
MESSAGE_BYTES_MAX = 4 * 1024 * 1024
DRAIN_S = 2.0
"""How long output may still arrive after the command has ended, when something else keeps its streams open."""
HEARTBEAT_S = 30.0


def exit_status(code: int) -> dict[str, Any]:
    """What channel 3 says of an exit code."""
    if code == 0:
        return {'metadata': {}, 'status': 'Success'}
    return {
        'metadata': {},
        'status': 'Failure',
        'message': f'command terminated with non-zero exit code: command terminated with exit code {code}',
        'reason': 'NonZeroExitCode',
        'details': {'causes': [{'reason': 'ExitCode', 'message': str(code)}]},
    }


def failure(message: str) -> dict[str, Any]:
    return {'metadata': {}, 'status': 'Failure', 'message': message, 'reason': 'InternalError', 'code': 500}


class Channels:
    """One WebSocket; owns the descriptors it is given and closes them."""

    def __init__(self) -> None:
        self._socket = web.WebSocketResponse(
            protocols=PROTOCOLS, max_msg_size=MESSAGE_BYTES_MAX, heartbeat=HEARTBEAT_S, compress=False
        )
        self._stdin = -1
        self._terminal = -1
        self._outputs: list[asyncio.Task[None]] = []
        self._input: asyncio.Task[None] | None = None
        self.left = asyncio.Event()
        """The client is gone."""

    @property
    def response(self) -> web.WebSocketResponse:
        return self._socket

    async def open(self, request: web.Request) -> None:
        await self._socket.prepare(request)

    def carry(self, *, stdin: int, outputs: Sequence[tuple[int, int]], terminal: int) -> None:
        """Start moving bytes. outputs: (channel, descriptor); -1 for what there is not."""
        self._stdin, self._terminal = stdin, terminal
        for fd in (stdin, *(fd for _, fd in outputs)):
            if fd >= 0:
                os.set_blocking(fd, False)
        self._outputs = [start_detached(f'channel {c}', self._send(c, fd)) for c, fd in outputs]
        self._input = start_detached('channel input', self._receive())

    async def _send(self, channel: int, fd: int) -> None:
        try:
            while data := await fds.read(fd):
                await self._socket.send_bytes(bytes([channel]) + data)
        except ConnectionError:
            self.left.set()
        finally:
            if fd == self._terminal:
                self._terminal = -1  # the number may soon be another descriptor's
            os.close(fd)

    async def _receive(self) -> None:
        async for message in self._socket:
            if message.type == aiohttp.WSMsgType.BINARY and message.data:
                await self._take(message.data[0], message.data[1:])
        self.left.set()
        self.close_stdin()

    async def _take(self, channel: int, data: bytes) -> None:
        if channel == STDIN and self._stdin >= 0 and data:
            if not await fds.write(self._stdin, data):
                self.close_stdin()
        elif channel == RESIZE and self._terminal >= 0:
            with contextlib.suppress(orjson.JSONDecodeError, KeyError, TypeError, ValueError, OSError):
                size = orjson.loads(data)
                fds.resize(self._terminal, int(size['Width']), int(size['Height']))
        elif channel == CLOSE and data[:1] == bytes([STDIN]):
            if self._terminal >= 0 and self._stdin >= 0:
                await fds.write(self._stdin, b'\x04')  # a terminal has no end of file, only the key for it
            self.close_stdin()

    def close_stdin(self) -> None:
        fd, self._stdin = self._stdin, -1
        if fd >= 0:
            os.close(fd)

    async def outputs_ended(self) -> None:
        if self._outputs:
            await asyncio.wait(self._outputs)

    async def finish(self, outcome: dict[str, Any]) -> None:
        """Let the last output pass, tell the outcome, close."""
        if self._outputs:
            await asyncio.wait(self._outputs, timeout=DRAIN_S)
        with contextlib.suppress(ConnectionError):
            if not self._socket.closed:
                await self._socket.send_bytes(bytes([ERROR]) + orjson.dumps(outcome))
        await stop(*self._outputs, self._input)
        self.close_stdin()
        await self._socket.close(code=aiohttp.WSCloseCode.OK)
