"""The HTTP server's door: so many connections, and each must come to the point in time.

A client that sends a request's head a byte a minute (slow loris), its first one or a later one, costs a socket for a
while and then nothing. Bodies are bounded by the request's deadline, heads by their size, silence by keep-alive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

log = structlog.get_logger('kapi.listener')

CONNECTIONS_MAX = 10_000
"""One more is closed at once."""
REQUEST_S = 30.0
"""A request whose head is not whole by then ends its connection, and so does a first one that does not come."""
HEAD_BYTES_MAX = 1 << 20
"""Request line and headers together (Go's figure); more ends the connection."""
SWEEPS = 6
"""How often in `REQUEST_S` connections are looked at."""


class Connection(RequestHandler):
    """aiohttp's protocol, which remembers since when a head has been under way."""

    __slots__ = ('busy', 'head_bytes', 'head_since')

    def __init__(self, manager: web.Server, *, loop: asyncio.AbstractEventLoop, **options: Any) -> None:
        super().__init__(manager, loop=loop, **options)
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
    """aiohttp's low-level server, with these bounds."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        *,
        connections_max: int = CONNECTIONS_MAX,
        request_s: float = REQUEST_S,
        **options: Any,
    ) -> None:
        super().__init__(self._heard, **options)
        self._serve = handler
        self._connections_max, self._request_s = connections_max, request_s
        self._sweeping: asyncio.TimerHandle | None = None

    def __call__(self) -> RequestHandler:
        return Connection(self, loop=self._loop, **self._kwargs)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        if len(self._connections) > self._connections_max:
            log.warning('too many connections', limit=self._connections_max)
            transport.abort()
            return
        if self._sweeping is None:
            self._sweep()

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
        finally:
            connection.busy = False
