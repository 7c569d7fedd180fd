"""A gRPC client over plain HTTP/2 with nothing in it but speed: what loads etcd.

`grpcio` and `grpc.aio` cost several times as much a call as etcd itself needs to answer it, so that they would measure
themselves. Here a request is two frames with a header block that was encoded once, and a reply is found by its
stream's number. What a benchmark does not need is left out: compressed headers, padding, priorities, deadlines.
Source: RFC 9113; gRPC over HTTP/2 (grpc/doc/PROTOCOL-HTTP2.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import cast

DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
WINDOW = (1 << 31) - 1
REFILL_BYTES = 1 << 30
"""Received bytes after which the window is opened again."""
PREFACE = b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'


class GrpcError(Exception):
    """A call that ended without a message: the raw trailers, which hold status and text."""


class Call:
    """One stream: a unary call or a long one."""

    __slots__ = ('number', 'on_end', 'on_message', 'partial', 'received')

    def __init__(self, number: int, on_message: Callable[[bytes], None], on_end: Callable[[bytes], None]) -> None:
        self.number = number
        self.on_message = on_message
        self.on_end = on_end
        self.partial = b''
        self.received = 0


class Channel(asyncio.Protocol):
    """One connection."""

    def __init__(self, authority: str) -> None:
        self._authority = authority.encode()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._headers: dict[str, bytes] = {}
        self._calls: dict[int, Call] = {}
        self._next = 1
        self._buffer = b''
        self._out: list[bytes] = []
        self._received = 0

    @staticmethod
    async def open(host: str, port: int) -> Channel:
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(lambda: Channel(f'{host}:{port}'), host, port)
        return protocol

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # -- calls ---------------------------------------------------------------------------------------------------

    def unary(self, path: str, message: bytes) -> asyncio.Future[bytes]:
        """The reply, or GrpcError, or ConnectionError."""
        future: asyncio.Future[bytes] = self._loop.create_future()

        def done(reply: bytes) -> None:
            if not future.done():
                future.set_result(reply)

        def ended(trailers: bytes) -> None:
            if not future.done():
                error = GrpcError(repr(trailers)) if trailers else ConnectionError('the connection broke')
                future.set_exception(error)

        call = self._begin(path, done, ended)
        self._post(_data(call.number, message, END_STREAM))
        return future

    def stream(self, path: str, on_message: Callable[[bytes], None]) -> Callable[[bytes], None]:
        """Open a bidirectional stream; returns what sends on it."""
        call = self._begin(path, on_message, lambda _: None)
        return lambda message: self._post(_data(call.number, message, 0))

    def _begin(self, path: str, on_message: Callable[[bytes], None], on_end: Callable[[bytes], None]) -> Call:
        if self._transport is None:
            raise ConnectionError('the connection broke')
        call = self._calls[self._next] = Call(self._next, on_message, on_end)
        self._next += 2
        block = self._headers.get(path)
        if block is None:
            block = self._headers[path] = _header_block(path, self._authority)
        self._post(_frame(HEADERS, END_HEADERS, call.number, block))
        return call

    def _post(self, data: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None:
            self._transport.write(b''.join(out))

    # -- asyncio.Protocol ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        settings = (4).to_bytes(2, 'big') + WINDOW.to_bytes(4, 'big')  # SETTINGS_INITIAL_WINDOW_SIZE
        window = (WINDOW - 65_535).to_bytes(4, 'big')
        self._transport.write(PREFACE + _frame(SETTINGS, 0, 0, settings) + _frame(WINDOW_UPDATE, 0, 0, window))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.on_end(b'')

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        at, end = 0, len(buffer)
        while end - at >= 9:
            stop = at + 9 + int.from_bytes(buffer[at : at + 3], 'big')
            if stop > end:
                break
            number = int.from_bytes(buffer[at + 5 : at + 9], 'big')
            self._take(buffer[at + 3], buffer[at + 4], number, buffer[at + 9 : stop])
            at = stop
        self._buffer = buffer[at:]

    def _take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == DATA:
            call = self._calls.get(number)
            self._account(call, len(payload))
            if call is not None:
                self._message(call, payload)
        elif kind in (HEADERS, RESET):
            if flags & END_STREAM or kind == RESET:
                call = self._calls.pop(number, None)
                if call is not None:
                    call.on_end(payload)
        elif kind == SETTINGS and not flags & ACK:
            self._post(_frame(SETTINGS, ACK, 0, b''))
        elif kind == PING and not flags & ACK:
            self._post(_frame(PING, ACK, 0, payload))
        elif kind == GOAWAY:
            self.close()

    def _message(self, call: Call, data: bytes) -> None:
        """A message is a flag, a length and its bytes, cut into frames as the server likes."""
        data = call.partial + data if call.partial else data
        while len(data) >= 5 and len(data) >= (stop := 5 + int.from_bytes(data[1:5], 'big')):
            call.on_message(data[5:stop])
            data = data[stop:]
        call.partial = data

    def _account(self, call: Call | None, size: int) -> None:
        self._received += size
        if self._received >= REFILL_BYTES:
            self._post(_frame(WINDOW_UPDATE, 0, 0, self._received.to_bytes(4, 'big')))
            self._received = 0
        if call is not None:
            call.received += size
            if call.received >= REFILL_BYTES:
                self._post(_frame(WINDOW_UPDATE, 0, call.number, call.received.to_bytes(4, 'big')))
                call.received = 0


def _frame(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    return b''.join((len(payload).to_bytes(3, 'big'), bytes((kind, flags)), number.to_bytes(4, 'big'), payload))


def _data(number: int, message: bytes, flags: int) -> bytes:
    return _frame(DATA, flags, number, b'\0' + len(message).to_bytes(4, 'big') + message)


def _header_block(path: str, authority: bytes) -> bytes:
    """HPACK without its table: indexed names of the static table, literal values."""
    raw = path.encode()
    return b''.join((
        b'\x83\x86',  # :method POST, :scheme http
        b'\x04', bytes((len(raw),)), raw,  # :path
        b'\x01', bytes((len(authority),)), authority,  # :authority
        b'\x0f\x10\x10application/grpc',  # content-type
        b'\x00\x02te\x08trailers',
    ))  # fmt: skip


# -- protobuf --------------------------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def message(*fields: tuple[int, int | bytes]) -> bytes:
    """A protobuf message of (number, integer or bytes) fields; zeros and empty bytes are left out."""
    out = []
    for number, value in fields:
        if isinstance(value, int):
            if value:
                out.append(varint(number << 3) + varint(value))
        elif value:
            out.append(varint(number << 3 | 2) + varint(len(value)) + value)
    return b''.join(out)


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, integer or bytes) of a message, in order. Raises IndexError, ValueError for what is none."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _read_varint(data, at)
        if tag & 7 == 0:
            value, at = _read_varint(data, at)
            yield tag >> 3, value
        elif tag & 7 == 2:
            size, at = _read_varint(data, at)
            yield tag >> 3, data[at : at + size]
            at += size
        else:
            raise ValueError(f'wire type {tag & 7}')


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def integer(data: bytes, number: int) -> int:
    """The integer field `number`; 0 without it."""
    return next((v for n, v in fields(data) if n == number and isinstance(v, int)), 0)


def part(data: bytes, number: int) -> bytes:
    """The embedded message or bytes field `number`; empty without it."""
    return next((v for n, v in fields(data) if n == number and isinstance(v, bytes)), b'')
