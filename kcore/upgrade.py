"""Connections beyond HTTP: what remains of one after `101 Switching Protocols` is bytes in both directions.

`take_over` wins such a connection from the HTTP server that accepted it, `dial` asks another server for one. Both
give a `Duplex`: reading stops while nobody takes what has arrived, writing waits while the other side does not read.
Source: RFC 9110 §7.8; apimachinery pkg/util/proxy/upgradeaware.go.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from aiohttp import web
from multidict import CIMultiDict

from kcore import tasks
from kcore.env import Network

READ_BUFFER_BYTES = 256 * 1024
"""What may wait to be taken; more is left to the kernel, and so to the sender."""
HEAD_BYTES_MAX = 64 * 1024
"""Longest answer head taken from a dialled server."""
Headers = Iterable[tuple[str, str]]


class UpgradeError(Exception):
    """The other side closed the connection or answered nonsense."""


class Duplex(asyncio.Protocol):
    """Bytes in both directions."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._before: asyncio.BaseProtocol | None = None
        self._buffer = bytearray()
        self._arrived, self._writable = asyncio.Event(), asyncio.Event()
        self._writable.set()
        self._ended = False
        self.lost = asyncio.Event()
        """The connection is gone. While nobody takes what arrives, only writing finds that out."""

    # — the loop's side —

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) >= READ_BUFFER_BYTES and self._transport is not None:
            self._transport.pause_reading()
        self._arrived.set()

    def eof_received(self) -> None:
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        self._transport = None
        self._writable.set()
        self.lost.set()
        if self._before is not None:
            self._before.connection_lost(exc)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _end(self) -> None:
        self._ended = True
        self._arrived.set()

    # — the user's side —

    def adopt(self, transport: asyncio.Transport, before: asyncio.BaseProtocol) -> None:
        """Go on in the place of another protocol, which hears of the connection's end."""
        self._before, self._transport = before, transport
        transport.set_protocol(self)
        transport.resume_reading()

    async def receive(self) -> bytes:
        """Everything that has arrived, at least a byte; empty at the end."""
        while not self._buffer and not self._ended:
            self._arrived.clear()
            await self._arrived.wait()
        data = bytes(self._buffer)
        self._buffer.clear()
        if self._transport is not None and not self._ended:
            self._transport.resume_reading()
        return data

    def unreceive(self, data: bytes) -> None:
        """Put back what came too early."""
        self._buffer[:0] = data

    async def send(self, data: bytes) -> None:
        """Waits while too much is under way. Raises ConnectionResetError when the other side is gone."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError('the connection is closed')
        self._transport.write(data)
        await self._writable.wait()

    def close(self) -> None:
        """What was sent is still delivered, as far as the other side takes it."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class Upgraded(web.StreamResponse):
    """What a handler returns whose connection has been taken over: HTTP has nothing more to say on it."""

    def __init__(self) -> None:
        super().__init__(status=101)
        self.force_close()

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b'') -> None:
        return None


def head(first_line: str, headers: Headers) -> bytes:
    lines = [first_line, *(f'{name}: {value}' for name, value in headers)]
    return ('\r\n'.join(lines) + '\r\n\r\n').encode('latin-1')


async def take_over(request: web.BaseRequest, headers: Headers) -> Duplex:
    """Answer 101 with these headers. Raises ConnectionResetError when the client has left.

    The handler then returns `Upgraded()`, after it has closed the connection.
    """
    transport = request.transport
    if transport is None:
        raise ConnectionResetError('the client has left')
    duplex = Duplex()
    duplex.adopt(transport, request.protocol)
    await duplex.send(head('HTTP/1.1 101 Switching Protocols', headers))
    return duplex


def unchunked(raw: bytes) -> tuple[bytes, bool]:
    """(what the chunks so far say, whether that is all); nonsense ends it."""
    found, rest = b'', raw
    while b'\r\n' in rest:
        size, _, rest = rest.partition(b'\r\n')
        try:
            length = int(size.partition(b';')[0], 16)
        except ValueError:
            return found, True
        if length <= 0:
            return found, True
        found, rest = found + rest[:length], rest[length:].removeprefix(b'\r\n')
    return found, False


@dataclass(frozen=True, slots=True)
class Answer:
    """What a dialled server said to the request for an upgrade; only after status 101 the connection is ours."""

    status: int
    headers: CIMultiDict[str]
    connection: Duplex

    async def body(self, bytes_max: int) -> bytes:
        """Of a refusal: as much as arrives until its end or the limit."""
        if 'chunked' in self.headers.get('Transfer-Encoding', '').lower():
            return await self._chunked(bytes_max)
        length = self.headers.get('Content-Length', '')
        want = min(int(length), bytes_max) if length.isdecimal() else bytes_max
        found = b''
        while len(found) < want and (data := await self.connection.receive()):
            found += data
        return found[:want]

    async def _chunked(self, bytes_max: int) -> bytes:
        raw = b''
        while True:
            found, ended = unchunked(raw)
            if ended or len(found) >= bytes_max or not (data := await self.connection.receive()):
                return found[:bytes_max]
            raw += data


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int
    tls: ssl.SSLContext | None = None


async def dial(network: Network, address: Address, request: tuple[str, str], headers: Headers) -> Answer:
    """Ask for an upgrade.

    request:  method and target.
    Raises:   OSError (also for TLS), UpgradeError.
    """
    _, duplex = await network.connect(Duplex, address.host, address.port, tls=address.tls)
    assert isinstance(duplex, Duplex)
    try:
        await duplex.send(head(f'{request[0]} {request[1]} HTTP/1.1', headers))
        return await _answer(duplex)
    except BaseException:
        duplex.abort()
        raise


async def _answer(duplex: Duplex) -> Answer:
    found = b''
    while b'\r\n\r\n' not in found:
        data = await duplex.receive()
        if not data or len(found) > HEAD_BYTES_MAX:
            raise UpgradeError('the connection was closed before an answer' if not data else 'the answer is too long')
        found += data
    raw, _, rest = found.partition(b'\r\n\r\n')
    first, *lines = raw.decode('latin-1').split('\r\n')
    version, _, status = first.partition(' ')
    if not version.startswith('HTTP/1.') or not status[:3].isdecimal():
        raise UpgradeError(f'the answer is not HTTP: {first[:80]!r}')
    headers = CIMultiDict((name.strip(), value.strip()) for name, _, value in (line.partition(':') for line in lines))
    duplex.unreceive(rest)
    return Answer(int(status[:3]), headers, duplex)


async def join(a: Duplex, b: Duplex) -> None:
    """Pass bytes between two connections until either ends, then close both."""

    async def pump(source: Duplex, sink: Duplex) -> None:
        try:
            while data := await source.receive():
                await sink.send(data)
        except ConnectionError:
            return

    forth, back = tasks.start_detached('tunnel forth', pump(a, b)), tasks.start_detached('tunnel back', pump(b, a))
    try:
        await asyncio.wait({forth, back}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        a.close()
        b.close()
        await tasks.stop(forth, back)
