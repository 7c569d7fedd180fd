"""The HTTP server's door: so many connections, and each must come to the point in time.

A client that opens a connection and sends its first request a byte a minute (slow loris) costs a socket for a while and
then nothing. Bodies are bounded by the request's deadline, heads by their size.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from aiohttp import web

log = structlog.get_logger('kapi.listener')

CONNECTIONS_MAX = 10_000
"""One more is closed at once."""
FIRST_REQUEST_S = 30.0
"""A connection whose first request is not whole by then is closed."""


class Listener(web.Server):
    """aiohttp's low-level server, with these two bounds."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        *,
        connections_max: int = CONNECTIONS_MAX,
        first_request_s: float = FIRST_REQUEST_S,
        **options: Any,
    ) -> None:
        super().__init__(self._heard, **options)
        self._serve = handler
        self._connections_max, self._first_request_s = connections_max, first_request_s
        self._silent: dict[Any, asyncio.TimerHandle] = {}

    def connection_made(self, handler: Any, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        if len(self.connections) > self._connections_max:
            log.warning('too many connections', limit=self._connections_max)
            transport.abort()
            return
        loop = asyncio.get_running_loop()
        self._silent[handler] = loop.call_later(self._first_request_s, transport.abort)

    def connection_lost(self, handler: Any, exc: BaseException | None = None) -> None:
        self._spoke(handler)
        super().connection_lost(handler, exc)

    def _spoke(self, handler: Any) -> None:
        timer = self._silent.pop(handler, None)
        if timer is not None:
            timer.cancel()

    async def _heard(self, request: web.BaseRequest) -> web.StreamResponse:
        self._spoke(request.protocol)
        return await self._serve(request)
