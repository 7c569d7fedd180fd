"""The agent's end of a shim: requests with answers, events in between, descriptors beside them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from knode.errors import ShimError, ShimGone

ANSWER_TIMEOUT_S = 30.0
"""A shim answers in microseconds; one that is silent this long is stuck and counts as gone."""
UNIX_PATH_MAX = 100

Event = dict[str, Any]


def connect_socket(directory: str, name: str) -> socket.socket:
    """A connected Unix socket; a directory too deep for a socket address is reached through /proc. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        path = os.path.join(directory, name)
        if len(path.encode()) <= UNIX_PATH_MAX:
            sock.connect(path)
        else:
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                sock.connect(f'/proc/self/fd/{fd}/{name}')
            finally:
                os.close(fd)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


class ShimConnection(asyncio.Protocol):
    """One connection. What `attend` is given runs on the loop."""

    def __init__(self) -> None:
        self._on_event: Callable[[Event], None] = lambda _: None
        self._on_lost: Callable[[], None] = lambda: None
        self._transport: asyncio.Transport | None = None
        self._closed = False
        self._rest = b''
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._serial = 0

    @classmethod
    async def open(cls, directory: str, name: str) -> ShimConnection:
        """Raises ShimGone when nobody listens."""
        try:
            sock = connect_socket(directory, name)
        except OSError as e:
            raise ShimGone(f'{directory}: no shim: {e.strerror}') from e
        connection = cls()
        await connection._connect(sock)
        return connection

    @classmethod
    async def born(cls, sock: socket.socket) -> tuple[ShimConnection, Any]:
        """The connection that a shim is born with, and what it says first: the answer to a question nobody asked.

        Raises ShimError (it could not be made) or ShimGone.
        """
        connection = cls()
        first = connection._expect(0)
        await connection._connect(sock)
        try:
            return connection, await first
        except BaseException:
            connection.close()
            raise

    async def _connect(self, sock: socket.socket) -> None:
        connecting = asyncio.get_running_loop().create_unix_connection(lambda: self, sock=sock)
        try:
            await asyncio.shield(connecting)  # interrupted, uvloop closes the descriptor, and the socket once more
        except asyncio.CancelledError:
            self.close()
            raise

    def attend(self, on_event: Callable[[Event], None], on_lost: Callable[[], None]) -> None:
        """Tell of events and of the end from now on."""
        self._on_event, self._on_lost = on_event, on_lost
        if not self.alive:
            on_lost()

    @property
    def alive(self) -> bool:
        return self._transport is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, 'write')
        self._transport = transport  # type: ignore[assignment]
        if self._closed:  # while it was being made
            transport.close()

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b'\n')
        for line in lines:
            message = orjson.loads(line)
            if 'event' in message:
                self._on_event(message)
                continue
            future = self._waiting.pop(message['id'], None)
            if future is None or future.done():
                continue
            if 'error' in message:
                future.set_exception(ShimError(message['error']))
            else:
                future.set_result(message['ok'])

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ShimGone('the shim is gone'))
        self._waiting.clear()
        self._on_lost()

    async def call(self, op: str, **fields: Any) -> Any:
        """Raises ShimError (refused) or ShimGone."""
        if self._transport is None:
            raise ShimGone('the shim is gone')
        self._serial += 1
        future = self._expect(self._serial)
        self._transport.write(orjson.dumps({'id': self._serial, 'op': op, **fields}) + b'\n')
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await future
        except TimeoutError:
            self.close()
            raise ShimGone('the shim does not answer') from None

    def _expect(self, number: int) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        return future

    def close(self) -> None:
        self._closed = True
        if self._transport is not None:
            self._transport.close()


class FdChannel:
    """A connection of its own for requests that carry descriptors; used for one exec or attach, then closed."""

    def __init__(self, directory: str, name: str) -> None:
        try:
            self._sock = connect_socket(directory, name)
        except OSError as e:
            raise ShimGone(f'{directory}: no shim: {e.strerror}') from e
        self._rest = b''
        self.received_fds: list[int] = []

    async def call(self, request: Mapping[str, Any], fds: Sequence[int]) -> Any:
        """Raises ShimError (refused) or ShimGone."""
        data = json.dumps(request | {'id': 1} if isinstance(request, dict) else dict(request)).encode() + b'\n'
        try:
            sent = socket.send_fds(self._sock, [data], list(fds))
            await asyncio.get_running_loop().sock_sendall(self._sock, data[sent:])
        except OSError as e:
            raise ShimGone(f'the shim is gone: {e.strerror}') from e
        answer = await self.next()
        if 'error' in answer:
            raise ShimError(answer['error'])
        return answer['ok']

    async def next(self) -> Event:
        """The next message that is an answer or about this channel's request."""
        while True:
            while b'\n' not in self._rest:
                self._rest += await self._receive()
            line, _, self._rest = self._rest.partition(b'\n')
            message: Event = json.loads(line)
            if message.get('event') != 'container':  # other people's news
                return message

    async def _receive(self) -> bytes:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._sock, _resolve, ready)
        try:
            await ready
        finally:
            loop.remove_reader(self._sock)
        try:
            data, fds, _, _ = socket.recv_fds(self._sock, 1 << 16, 4)
        except OSError as e:
            raise ShimGone(f'the shim is gone: {e.strerror}') from e
        self.received_fds += fds
        if not data:
            raise ShimGone('the shim is gone')
        return data

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.close()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
