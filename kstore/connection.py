"""The server's end of one connection: frames in, frames out, one write a turn of the event loop (see `Outbox`).

Bytes that are no frame of the protocol close this connection, with a logged reason, and nothing else. A client that
does not read is not read from either, so its own requests bound what is buffered for it; events are not buffered for it
at all (see kstore.watching).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, Protocol, cast

import structlog

from kstore.errors import ProtocolError, StoreError
from kstore.mvcc.store import Store
from kstore.mvcc.watch import Hub, Scope
from kstore.watching import Watches
from kstore.wire import (
    FRAME_BYTES_MAX,
    HELLO_BYTES_MAX,
    REQUEST_BYTES_MAX,
    FrameReader,
    Hello,
    Role,
    failure,
    reply,
    unpack,
)

log = structlog.get_logger('kstore.connection')

WRITE_BUFFER_BYTES = 1024 * 1024
"""Unsent bytes at which a connection counts as slow: no more events, no more requests read, until it drains."""
HELLO_TIMEOUT_S = 10.0
"""A connection that has not said hello by then is closed."""


class Outbox:
    """The connections of a member that have something to send. All of it leaves in the next turn of the event loop, or
    at once where someone knows that there is nothing better to do first (`flush`).
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: list[Connection] = []

    def add(self, connection: Connection) -> None:
        if not self._waiting:
            self._loop.call_soon(self.flush)
        self._waiting.append(connection)

    def flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for connection in waiting:
            connection.flush()

    def flush_answers(self) -> list[Connection]:
        """Let answers go before events are made. Returns the connections that watch as well, to be flushed after that:
        both leave in one write.
        """
        waiting, self._waiting = self._waiting, []
        watching = [connection for connection in waiting if connection.watches]
        for connection in waiting:
            if not connection.watches:
                connection.flush()
        return watching


class Handler(Protocol):
    """The member, as connections see it."""

    hub: Hub
    store: Store
    outbox: Outbox

    def hello(self, theirs: Hello) -> Hello:
        """Ours in answer. Raises ProtocolError when we should not talk to each other."""

    def request(self, connection: Connection, request: list[Any]) -> None:
        """A client's request `[id, op, ...]`. Raises StoreError, which becomes its reply."""

    def peer_frame(self, peer: int, frame: list[Any]) -> None:
        """A peer's frame `[kind, body]`. Raises ProtocolError."""

    def peer_read(self) -> None:
        """Everything that had come from a peer was handed over."""

    def opened(self, connection: Connection) -> None: ...

    def closed(self, connection: Connection) -> None: ...


class Connection(asyncio.Protocol):
    """See the module's text."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._reader = FrameReader(HELLO_BYTES_MAX)
        self._loop = asyncio.get_running_loop()
        self._out: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._receive: Callable[[bytes], None] = self._on_hello
        self._timer: asyncio.TimerHandle | None = None
        self._stuck = self._paused = False
        self.peer = 0
        """Member id of the other side; 0 for a client."""
        self.name = ''
        self.watches = Watches(handler.hub, handler.store, self)

    # -- asyncio.Protocol ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=0)  # uvloop then writes at once, not after another poll
        self.name = str(transport.get_extra_info('peername'))
        self._timer = self._loop.call_later(HELLO_TIMEOUT_S, self._no_hello)
        self._handler.opened(self)

    def data_received(self, data: bytes) -> None:
        try:
            for payload in self._reader.feed(data):
                self._receive(payload)
            if self.peer:
                self._handler.peer_read()
        except ProtocolError as e:
            log.warning('connection refused', client=self.name, peer=self.peer, err=str(e))
            self.close()

    def pause_writing(self) -> None:
        """The kernel did not take everything: from here on the buffer is watched."""
        self._stuck = True

    def resume_writing(self) -> None:
        """The kernel has taken everything."""
        self._stuck = False
        paused, self._paused = self._paused, False
        if paused and self._transport is not None and not self._transport.is_closing():
            if not self.peer:
                self._transport.resume_reading()
            self.watches.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        if isinstance(exc, ssl.SSLError):
            log.warning('connection refused', client=self.name, err=str(exc))
        self._transport = None
        self._out.clear()
        if self._timer is not None:
            self._timer.cancel()
        self.watches.close()
        self._handler.closed(self)

    # -- sending -------------------------------------------------------------------------------------------------

    @property
    def writable(self) -> bool:
        """Whether events may be added; False while the client does not read."""
        return not self._paused and self._transport is not None

    def send(self, data: bytes) -> None:
        """Queue a whole frame; everything queued in one turn of the loop leaves in one write."""
        out = self._out
        if not out:
            self._handler.outbox.add(self)
        out.append(data)

    def answer(self, request: int, result: bytes) -> None:
        self.send(reply(request, result))

    def call_soon_pump(self) -> None:
        self._loop.call_soon(self._pump)

    def close(self) -> None:
        if self._transport is not None:
            self.flush()
            self._transport.close()

    def _pump(self) -> None:
        if self._transport is not None:
            self.watches.pump()

    def flush(self) -> None:
        """Write what is queued."""
        out, self._out = self._out, []
        if self._transport is not None and out:
            self._transport.write(out[0] if len(out) == 1 else b''.join(out))
            if self._stuck and not self._paused and self._transport.get_write_buffer_size() > WRITE_BUFFER_BYTES:
                self._paused = True
                if not self.peer:
                    self._transport.pause_reading()

    # -- receiving -----------------------------------------------------------------------------------------------

    def _no_hello(self) -> None:
        log.warning('connection refused', client=self.name, err='no hello in time')
        self.close()

    def _on_hello(self, payload: bytes) -> None:
        theirs = Hello.decode(payload)
        ours = self._handler.hello(theirs)
        if self._timer is not None:
            self._timer.cancel()
        self._reader.allow(FRAME_BYTES_MAX if theirs.role is Role.PEER else REQUEST_BYTES_MAX)
        self.peer = theirs.member if theirs.role is Role.PEER else 0
        self._receive = self._on_peer_frame if theirs.role is Role.PEER else self._on_request
        self.send(ours.encode())

    def _on_peer_frame(self, payload: bytes) -> None:
        frame = unpack(payload)
        if not isinstance(frame, list) or len(frame) != 2:
            raise ProtocolError('malformed peer frame')
        self._handler.peer_frame(self.peer, frame)

    def _on_request(self, payload: bytes) -> None:
        request = unpack(payload)
        if not isinstance(request, list) or len(request) < 2 or type(request[0]) is not int or request[0] <= 0:
            raise ProtocolError('malformed request')
        try:
            self._handler.request(self, request)
        except StoreError as e:
            self.answer(request[0], failure(e))

    def watch(self, watch_id: int, scope: Scope, start: int) -> int:
        return self.watches.add(watch_id, scope, start)
