"""One command's streams on their way to a client, whatever carries them: WebSocket messages or SPDY streams.

Bytes move between descriptors and the carrier with back-pressure on both sides: a descriptor is read when the carrier
took the bytes before, and the carrier when the descriptor did. Source: apimachinery pkg/util/remotecommand.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import orjson
from aiohttp import web

from kcore.tasks import start_detached, stop
from knode.streams import fds

STDIN, STDOUT, STDERR, ERROR, RESIZE = 0, 1, 2, 3, 4
"""Channel numbers of the WebSocket protocols, and the names of the streams here."""
DRAIN_S = 2.0
"""How long output may still arrive after the command has ended, when something else keeps its streams open."""
END_OF_TRANSMISSION = b'\x04'


def exit_status(code: int) -> dict[str, Any]:
    """What the error stream says of an exit code."""
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


class RemoteStreams(ABC):
    """Owns the descriptors it is given and closes them."""

    def __init__(self) -> None:
        self._stdin = -1
        self._terminal = -1
        self._outputs: list[asyncio.Task[None]] = []
        self._input: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self.left = asyncio.Event()
        """The client is gone."""

    # — the carrier —

    @property
    @abstractmethod
    def response(self) -> web.StreamResponse:
        """What the handler returns at the end."""

    @abstractmethod
    async def open(self, request: web.Request) -> None:
        """Agree with the client. Raises NodeError when the carrier refuses, ConnectionError when the client left."""

    @abstractmethod
    async def _write(self, stream: int, data: bytes) -> None:
        """Raises ConnectionError."""

    @abstractmethod
    async def _end(self, stream: int) -> None:
        """No more output on this stream. Raises ConnectionError."""

    @abstractmethod
    async def _take_all(self) -> None:
        """Hand what arrives to `_feed`, `_resize` and `_end_input` until the client is gone."""

    @abstractmethod
    async def _lost(self) -> None:
        """Return once the connection is known to be dead, also while nobody takes what arrives."""

    @abstractmethod
    async def _finish(self, outcome: dict[str, Any]) -> None:
        """Tell the outcome; the carrier closes afterwards. Raises ConnectionError."""

    @abstractmethod
    async def _close(self) -> None: ...

    # — the descriptors —

    def carry(self, *, stdin: int, outputs: Sequence[tuple[int, int]], terminal: int) -> None:
        """Start moving bytes. outputs: (stream, descriptor); -1 for what there is not."""
        self._stdin, self._terminal = stdin, terminal
        for fd in (stdin, *(fd for _, fd in outputs)):
            if fd >= 0:
                os.set_blocking(fd, False)
        self._outputs = [start_detached(f'output {s}', self._send(s, fd)) for s, fd in outputs]
        self._input = start_detached('input', self._receive())
        self._watching = start_detached('connection', self._watch())

    async def _send(self, stream: int, fd: int) -> None:
        try:
            while data := await fds.read(fd):
                await self._write(stream, data)
            await self._end(stream)
        except ConnectionError:
            self.left.set()
        finally:
            if fd == self._terminal:
                self._terminal = -1  # the number may soon be another descriptor's
            os.close(fd)

    async def _receive(self) -> None:
        try:
            await self._take_all()
        finally:
            self.left.set()
            self.close_stdin()

    async def _watch(self) -> None:
        """A command that takes no input must not keep `_receive` from seeing that the client is gone."""
        await self._lost()
        self.left.set()

    async def _feed(self, data: bytes) -> None:
        if self._stdin >= 0 and data and not await fds.write(self._stdin, data):
            self.close_stdin()

    def _resize(self, data: bytes) -> None:
        if self._terminal >= 0:
            with contextlib.suppress(orjson.JSONDecodeError, KeyError, TypeError, ValueError, OSError):
                size = orjson.loads(data)
                fds.resize(self._terminal, int(size['Width']), int(size['Height']))

    async def _end_input(self) -> None:
        if self._terminal >= 0 and self._stdin >= 0:
            await fds.write(self._stdin, END_OF_TRANSMISSION)  # a terminal has no end of file, only the key for it
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
            await self._finish(outcome)
        await stop(*self._outputs, self._input, self._watching)
        self.close_stdin()
        await self._close()
