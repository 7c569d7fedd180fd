"""The HTTP server's door: so many connections, and each must come to the point in time.

A client that sends a request's head a byte a minute (slow loris), its first one or a later one, costs a socket for a
while and then nothing. Bodies are bounded by the request's deadline, heads by their size, silence by keep-alive.
A handshake costs as much as several requests, and reading a request a third of serving it: new connections, and bytes
of those who ask for much, stand in line for their turn (`kapi/flow/turns.py`).
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from kapi.flow.turns import Reads, Turns
from kcore import tasks

log = structlog.get_logger('kapi.listener')

CONNECTIONS_MAX = 10_000
"""One more is closed at once."""
REQUEST_S = 30.0
"""A request whose head is not whole by then ends its connection, and so does a first one that does not come."""
HEAD_BYTES_MAX = 1 << 20
"""Request line and headers together (Go's figure); more ends the connection."""
HANDSHAKES, HANDSHAKE_S = 16, 0.1
"""So many are made at once, each a millisecond of work or two; one that takes longer waits for its client."""
HELD_BYTES_MAX = 64 * 1024
"""Bytes of a request that wait to be read; beyond it the client must wait with the rest."""
ACCEPT_RETRY_S = 0.2
BACKLOG = 1_024
_LEFT = frozenset({errno.ECONNABORTED, errno.EPROTO, errno.ECONNRESET})
"""The client left before it was let in. Anything else is our trouble: descriptors, memory."""
CLIENT_LEFT = 499
"""nginx's status for what nobody reads any more; raised on, it would be a traceback for each client that leaves."""
SWEEPS = 6
"""How often in `REQUEST_S` connections are looked at."""


class Connection(RequestHandler):
    """aiohttp's protocol, which remembers since when a head has been under way.

    And it lets a new request wait unread when its flow has had its share of the turn.
    """

    __slots__ = ('_held', '_reads', 'busy', 'flow', 'head_bytes', 'head_since')

    def __init__(
        self, manager: web.Server, *, loop: asyncio.AbstractEventLoop, reads: Reads | None = None, **options: Any
    ) -> None:
        super().__init__(manager, loop=loop, **options)
        self._reads = reads
        self._held = b''
        self.flow = ''
        """The flow of the last request; empty while nobody knows, and for those who need not wait."""
        self.busy = False
        self.head_since: float | None = loop.time()
        self.head_bytes = 0

    def data_received(self, data: bytes) -> None:
        if not self.busy:
            if self.head_since is None:
                self.head_since, self.head_bytes = self._loop.time(), 0
            self.head_bytes += len(data)
            if self.head_bytes > HEAD_BYTES_MAX:
                self.abort('head of a request is too large')
                return
        if self._held:
            self._held += data
            if len(self._held) >= HELD_BYTES_MAX:
                self._pause_transport_reading()
        elif self.busy or not self.flow or self._reads is None or self._upgraded or self._reads.may(self.flow):
            self._parse(data)
        else:
            self._held = data
            self._reads.hold(self.flow, self)

    def read(self) -> None:
        """Go on with what was held."""
        held, self._held = self._held, b''
        if self.transport is None:
            return  # the client left
        self._parse(held)
        if len(held) >= HELD_BYTES_MAX and not (self._reading_paused or self._buffer_paused):
            self._resume_transport_reading()

    def _parse(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages:
            self.spoke()  # bytes that follow a whole head belong to a body, or to the next request

    def spoke(self) -> None:
        self.head_since, self.head_bytes = None, 0

    def abort(self, why: str) -> None:
        if self.transport is not None:
            log.info('connection was closed', why=why, peer=str(self.peername))
            self.transport.abort()


class Listener(web.Server):
    """aiohttp's low-level server, with these bounds and, given turns, with reading by turns."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        *,
        turns: Turns | None = None,
        connections_max: int = CONNECTIONS_MAX,
        request_s: float = REQUEST_S,
        **options: Any,
    ) -> None:
        # Upstream takes no compressed bodies either; unpacking one would cost the loop what its sender likes.
        super().__init__(self._heard, auto_decompress=False, **options)
        self._serve = handler
        self._reads = turns.reads if turns is not None else None
        self._connections_max, self._request_s = connections_max, request_s
        self._sweeping: asyncio.TimerHandle | None = None

    def __call__(self) -> RequestHandler:
        return Connection(self, loop=self._loop, reads=self._reads, **self._kwargs)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        if self.full(-1):
            transport.abort()
            return
        if self._sweeping is None:
            self._sweep()

    def full(self, coming: int) -> bool:
        """Whether there is no room for one more connection beside these and so many that are to be made."""
        full = len(self._connections) + coming >= self._connections_max
        if full:
            log.warning('too many connections', limit=self._connections_max)
        return full

    def _sweep(self) -> None:
        """Close what has been under way for too long; look again while there are connections."""
        latest = self._loop.time() - self._request_s
        for connection in list(self._connections):
            assert isinstance(connection, Connection)
            if connection.head_since is not None and connection.head_since < latest:
                connection.abort('a request did not come in time')
        self._sweeping = None
        if self._connections:
            self._sweeping = self._loop.call_later(self._request_s / SWEEPS, self._sweep)

    async def shutdown(self, timeout: float | None = None) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
        await super().shutdown(timeout)

    async def _heard(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, Connection)
        connection.busy = True
        connection.spoke()
        try:
            return await self._serve(request)
        except ConnectionResetError:
            connection.abort('its client left')
            return web.Response(status=CLIENT_LEFT)
        finally:
            connection.busy = False


class Door:
    """Listening sockets whose connections come in by turns."""

    def __init__(self, listener: Listener, tls: ssl.SSLContext, turns: Turns) -> None:
        self._listener, self._tls, self._turns = listener, tls, turns
        self._sockets: list[socket.socket] = []
        self._shaking = 0
        self._arrived: set[socket.socket] = set()
        """Accepted, and nobody else's to close yet."""
        self._room = asyncio.Semaphore(HANDSHAKES)

    async def open(self, host: str, port: int) -> int:
        """Bind to all addresses of `host`; the port. Raises OSError."""
        found = await asyncio.get_running_loop().getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, address in dict.fromkeys(found):
            opened = socket.socket(family, kind, protocol)
            self._sockets.append(opened)
            opened.setblocking(False)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            opened.bind(address)
            opened.listen(BACKLOG)
        return int(self._sockets[0].getsockname()[1])

    async def run(self) -> None:
        """Let connections in, for ever."""
        try:
            async with asyncio.TaskGroup() as group:
                for opened in self._sockets:
                    tasks.start(group, 'accept', self._accept(group, opened))
        finally:
            for opened in (*self._sockets, *self._arrived):
                opened.close()

    async def _accept(self, group: asyncio.TaskGroup, opened: socket.socket) -> NoReturn:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(opened)
            except OSError as e:
                if e.errno not in _LEFT:
                    log.warning('no connection can be accepted', err=str(e))
                    await asyncio.sleep(ACCEPT_RETRY_S)
                continue
            if self._listener.full(self._shaking):
                connection.close()
                continue
            self._arrived.add(connection)
            await self._room.acquire()
            await self._turns.arrivals.turn()
            self._shaking += 1
            tasks.start(group, 'handshake', self._shake_hands(connection))

    async def _shake_hands(self, connection: socket.socket) -> None:
        """The transport that is made here closes the socket, also when the handshake fails."""
        loop = asyncio.get_running_loop()
        counts = True

        def count_no_more() -> None:
            nonlocal counts
            if counts:
                counts = False
                self._room.release()

        slow = loop.call_later(HANDSHAKE_S, count_no_more)
        self._arrived.discard(connection)
        try:
            await loop.connect_accepted_socket(
                self._listener, connection, ssl=self._tls, ssl_handshake_timeout=REQUEST_S
            )
        except OSError as e:  # also TLS and time-outs: the client's affair
            log.debug('a connection was not made', err=str(e))
        except Exception as e:  # one connection must not end all others
            log.error('a handshake crashed', exc_info=e)
        finally:
            self._shaking -= 1
            slow.cancel()
            count_no_more()
