"""A network in memory: connections between hosts that are slow, stall, break, and are cut in one or both directions.

It models what TCP shows to a program: bytes arrive in order or not at all. While a direction is cut its bytes wait (TCP
would send them again); if the cut outlasts the patience of whoever waits, that is for their timeouts to notice. A
connection attempt across a cut times out; to a host without a listener it is refused at once.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
import ssl
from collections import deque
from contextvars import Context, copy_context
from typing import Any

from kcore.env import ProtocolFactory

WRITE_HIGH_BYTES = 64 << 10
"""Bytes under way at which a sender is asked to pause."""
CONNECT_TIMEOUT_S = 5.0
FIRST_PORT = 20_000


class Switch:
    """All connections and listeners of a world, and the faults on the way."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.delay_s = (0.0001, 0.001)
        """Bounds of one segment's delay."""
        self._listeners: dict[tuple[str, int], tuple[ProtocolFactory, Context]] = {}
        self._cut: set[tuple[str, str]] = set()
        self._transports: dict[SimTransport, None] = {}
        self._next_port = FIRST_PORT

    # --- faults -------------------------------------------------------------------------------------------------------

    def cut(self, source: str, target: str, *, both: bool = True) -> None:
        """Nothing passes from `source` to `target` (nor back) until `heal`."""
        self._cut.add((source, target))
        if both:
            self._cut.add((target, source))

    def heal(self) -> None:
        """Everything passes again, first of all what waited."""
        self._cut.clear()
        for t in list(self._transports):
            t.flush()

    def is_cut(self, source: str, target: str) -> bool:
        return (source, target) in self._cut

    def break_connections(self, host: str, other: str | None = None) -> None:
        """Reset the connections of `host` (with `other` only)."""
        for t in list(self._transports):
            if t.local == host and other in (None, t.remote):
                t.abort()

    def kill(self, host: str) -> None:
        """The host's processes die: listeners are gone, connections are reset."""
        self._listeners = {a: f for a, f in self._listeners.items() if a[0] != host}
        self.break_connections(host)

    # --- for SimNetwork -----------------------------------------------------------------------------------------------

    def delay(self) -> float:
        return self.rng.uniform(*self.delay_s)

    def listen(self, host: str, port: int, factory: ProtocolFactory) -> tuple[str, int]:
        if not port:
            port, self._next_port = self._next_port, self._next_port + 1
        if (host, port) in self._listeners:
            raise OSError(errno.EADDRINUSE, f'{os.strerror(errno.EADDRINUSE)}: {host}:{port}')
        self._listeners[host, port] = factory, copy_context()
        return host, port

    def unlisten(self, address: tuple[str, int]) -> None:
        self._listeners.pop(address, None)

    async def connect(self, source: str, address: tuple[str, int], factory: ProtocolFactory) -> SimTransport:
        target = address[0]
        await asyncio.sleep(self.delay())
        if self.is_cut(source, target) or self.is_cut(target, source):
            await asyncio.sleep(CONNECT_TIMEOUT_S)
            raise TimeoutError(errno.ETIMEDOUT, f'{os.strerror(errno.ETIMEDOUT)}: {target}:{address[1]}')
        listener = self._listeners.get(address)
        if listener is None:
            text = f'{os.strerror(errno.ECONNREFUSED)}: {target}:{address[1]}'
            raise ConnectionRefusedError(errno.ECONNREFUSED, text)
        accept, context = listener
        near = SimTransport(self, source, target, factory(), copy_context())
        far = SimTransport(self, target, source, context.run(accept), context)
        near.peer, far.peer = far, near
        self._transports.update({near: None, far: None})
        asyncio.get_running_loop().call_soon(far.protocol.connection_made, far, context=context)
        near.protocol.connection_made(near)
        return near

    def forget(self, transport: SimTransport) -> None:
        self._transports.pop(transport, None)


class SimTransport(asyncio.Transport):
    """One end of a connection. What happens at an end happens in the context of its host, so that a pause holds it."""

    peer: SimTransport

    def __init__(
        self, switch: Switch, local: str, remote: str, protocol: asyncio.BaseProtocol, context: Context
    ) -> None:
        super().__init__({'peername': (remote, 0), 'sockname': (local, 0)})
        self._context = context
        self._switch = switch
        self.local, self.remote = local, remote
        self.protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._out: deque[bytes | None] = deque()
        """Segments under way; None is the end of the stream."""
        self._out_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closing = self._lost = self._paused_writing = False
        self._reading_paused = False

    # --- asyncio.Transport --------------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if self._closing or not data:
            return
        self._out.append(bytes(data))
        self._out_bytes += len(data)
        if self._out_bytes > WRITE_HIGH_BYTES and not self._paused_writing:
            self._paused_writing = True
            self.protocol.pause_writing()
        self.flush()

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._out.append(None)
            self.flush()

    def abort(self) -> None:
        """Reset: what was under way is lost, both ends hear of it (the far one unless it is cut off)."""
        if self._lost:
            return
        self._closing = True
        self._out.clear()
        self._lose(ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)))
        if not self._switch.is_cut(self.local, self.remote):
            self._loop.call_later(self._switch.delay(), self.peer.abort, context=self.peer._context)

    def is_closing(self) -> bool:
        return self._closing

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def pause_reading(self) -> None:
        self._reading_paused = True

    def resume_reading(self) -> None:
        self._reading_paused = False
        self.peer.flush()

    def is_reading(self) -> bool:
        return not self._reading_paused

    def get_write_buffer_size(self) -> int:
        return self._out_bytes

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def can_write_eof(self) -> bool:
        return False

    # --- delivery -----------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Arm the delivery of the oldest segment, if it can pass."""
        blocked = self._switch.is_cut(self.local, self.remote) or self.peer._reading_paused
        if self._out and self._timer is None and not blocked and not self._lost:
            self._timer = self._loop.call_later(self._switch.delay(), self._deliver, context=self.peer._context)

    def _deliver(self) -> None:
        """Everything under way arrives in one go, as from a socket's buffer."""
        self._timer = None
        if self._lost or self._switch.is_cut(self.local, self.remote) or self.peer._reading_paused:
            return
        if self.peer._lost:  # nobody knows this connection any more: a reset comes back
            self._loop.call_soon(self.abort, context=self._context)
            return
        segments, ended = [], False
        while self._out and not ended:
            segment = self._out.popleft()
            ended = segment is None
            if segment is not None:
                segments.append(segment)
                self._out_bytes -= len(segment)
        if segments and isinstance(self.peer.protocol, asyncio.Protocol):
            self.peer.protocol.data_received(b''.join(segments))
        if self._paused_writing and not self._lost:
            self._paused_writing = False
            self._loop.call_soon(self.protocol.resume_writing, context=self._context)
        if ended:
            self._lose(None)
            self.peer._closing = True
            self.peer._lose(None)

    def _lose(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            self._switch.forget(self)
            if self._timer is not None:
                self._timer.cancel()
            self._loop.call_soon(self.protocol.connection_lost, error, context=self._context)


class SimServer:
    """A listener."""

    def __init__(self, switch: Switch, address: tuple[str, int]) -> None:
        self._switch = switch
        self._address = address

    @property
    def address(self) -> tuple[str, int]:
        return self._address

    def close(self) -> None:
        self._switch.unlisten(self._address)


class SimNetwork:
    """`kcore.env.Network` of one host. TLS is taken as given: the bytes are not encrypted."""

    def __init__(self, switch: Switch, host: str) -> None:
        self._switch = switch
        self._host = host

    async def listen(
        self, factory: ProtocolFactory, host: str, port: int, *, tls: ssl.SSLContext | None = None
    ) -> SimServer:
        return SimServer(self._switch, self._switch.listen(host, port, factory))

    async def connect(
        self, factory: ProtocolFactory, host: str, port: int, *, tls: ssl.SSLContext | None = None
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        transport = await self._switch.connect(self._host, (host, port), factory)
        protocol = transport.protocol
        assert isinstance(protocol, asyncio.Protocol)
        return transport, protocol
