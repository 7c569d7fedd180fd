"""The client's end of one connection: hello, frames, one write a turn of the event loop, or a lone one at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from kcore.tls import lost
from kstore.errors import ProtocolError
from kstore.wire import FrameReader, Hello, Role, unpack


class ClientLink(asyncio.Protocol):
    """Bytes to messages; whoever made it decides what they mean."""

    def __init__(self, on_message: Callable[[list[Any]], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_message = on_message
        self._reader = FrameReader()
        self._out: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self.heard = self._loop.time()
        """Loop time of the last bytes from the server."""
        self.ready: asyncio.Future[Hello] = self._loop.create_future()
        self.lost: asyncio.Future[None] = self._loop.create_future()
        self.error = ''
        """Why the connection was given up, if we did it."""

    @property
    def up(self) -> bool:
        return self._transport is not None and not self._transport.is_closing() and self.ready.done()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=0)  # uvloop then writes at once, not after another poll
        self._transport.write(Hello(Role.CLIENT, 0, 0).encode())

    def data_received(self, data: bytes) -> None:
        self.heard = self._loop.time()
        try:
            for payload in self._reader.feed(data):
                if self.ready.done():
                    self._on_message(unpack(payload))
                else:
                    self.ready.set_result(Hello.decode(payload))
        except ProtocolError as e:
            self.error = str(e)
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        transport, self._transport = self._transport, None
        if not self.ready.done():
            failure = ConnectionError(self.error or str(exc or 'connection closed before the hello'))
            failure.__cause__ = lost(transport, exc)
            self.ready.set_exception(failure)
        if not self.lost.done():
            self.lost.set_result(None)

    def send(self, data: bytes, *, alone: bool = False) -> None:
        """Send a frame. alone: there is nothing else under way that others would come with in the same turn."""
        out = self._out
        if alone and not out and self._transport is not None:
            self._transport.write(data)
            return
        if not out:
            self._loop.call_soon(self._flush)
        out.append(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None:
            self._transport.write(out[0] if len(out) == 1 else b''.join(out))
