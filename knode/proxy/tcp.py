"""TCP through the proxy: sockets on the event loop without transports, so that an idle connection holds no buffer.

Each way of a connection reads into one scratch buffer that all share and writes it on at once. What the other side
does not take is kept (one buffer at most) and reading stops until it has taken it: a slow reader slows its own writer.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from functools import partial

from knode.proxy.choice import Choice
from knode.proxy.model import Address, Backend, Target
from knode.proxy.plan import near
from knode.proxy.sockets import BACKLOG, IN_PROGRESS, abort, gather, listen_tcp, toward
from knode.proxy.work import CHUNK_BYTES, Work

ROUNDS_MAX = 4
"""Reads of one way before others have their turn."""
ACCEPTS_MAX = 64
"""Connections taken at one frontend before others have their turn."""
ACCEPT_RETRY_S = 0.2
"""Without descriptors none is taken for that long."""
CONNECT_S = 5.0
"""After this a backend that does not answer is given up for the next one."""


class TcpPort:
    """A frontend that listens. Established connections outlive it."""

    def __init__(self, address: Address, target: Target, choice: Choice, work: Work) -> None:
        """Raises OSError."""
        self._target, self._choice, self._work = target, choice, work
        self._sock = listen_tcp(address)
        self._pause: asyncio.TimerHandle | None = None
        gather(self._sock, on=bool(target.affinity_s))
        self._listen()

    def lead(self, target: Target, choice: Choice) -> None:
        """New connections go there from now on."""
        if bool(target.affinity_s) != bool(self._target.affinity_s):
            gather(self._sock, on=bool(target.affinity_s))
        self._target, self._choice = target, choice

    def close(self) -> None:
        """Connections that wait to be taken are taken first: their clients have been told that somebody listens."""
        self._accept(BACKLOG)
        if self._pause is not None:
            self._pause.cancel()
        self._work.loop.remove_reader(self._sock.fileno())
        self._sock.close()

    def _listen(self) -> None:
        self._pause = None
        self._work.loop.add_reader(self._sock.fileno(), self._accept, ACCEPTS_MAX)

    def _accept(self, most: int) -> None:
        for _ in range(most):
            try:
                sock, (client, _port) = self._sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:  # no descriptors: the listening socket stays readable, and nobody could be served
                if self._pause is None:
                    self._work.loop.remove_reader(self._sock.fileno())
                    self._pause = self._work.loop.call_later(ACCEPT_RETRY_S, self._listen)
                return
            self._take(sock, client)

    def _take(self, sock: socket.socket, client: str) -> None:
        target, work = self._target, self._work
        backends: Sequence[Backend] = near(target.backends, client, work.prefix()) if target.near else target.backends
        if not backends or work.connections >= work.connections_max or not target.allows(client):
            work.refused += 1
            abort(sock)
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        order = self._choice.order(backends, client, target.affinity_s, work.now())
        kept = partial(self._choice.keep, client, now=work.now()) if target.affinity_s else None
        Connection(sock, client, work, kept).try_next(order)


class Connection:
    """A client's connection on its way to a backend, and then through."""

    __slots__ = ('_client', '_kept', '_source', '_work')

    def __init__(self, source: socket.socket, client: str, work: Work, kept: Callable[[Backend], None] | None) -> None:
        self._source, self._client, self._work, self._kept = source, client, work, kept
        work.connections += 1

    def try_next(self, order: list[Backend]) -> None:
        """Connect to the first that answers, else reset the client's connection."""
        while order:
            backend = order.pop(0)
            try:
                sink = toward(socket.SOCK_STREAM, self._client, backend.ip)
            except OSError:  # no descriptors
                break
            code = sink.connect_ex(backend.address)
            if code == 0:
                self._through(sink, backend)
                return
            if code in IN_PROGRESS:
                self._wait(sink, backend, order)
                return
            sink.close()
            self._work.failed += 1
        self._work.connections -= 1
        self._work.refused += 1
        abort(self._source)

    def _wait(self, sink: socket.socket, backend: Backend, order: list[Backend]) -> None:
        loop, fd = self._work.loop, sink.fileno()

        def done(*, late: bool = False) -> None:
            timer.cancel()
            loop.remove_writer(fd)
            if not late and sink.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                self._through(sink, backend)
                return
            sink.close()
            self._work.failed += 1
            self.try_next(order)

        timer = loop.call_later(CONNECT_S, lambda: done(late=True))
        loop.add_writer(fd, done)

    def _through(self, sink: socket.socket, backend: Backend) -> None:
        if self._kept is not None:
            self._kept(backend)
        Relay(self._source, sink, self._work)


class Relay:
    """Two connected sockets, joined."""

    __slots__ = ('_open', '_ways', '_work')

    def __init__(self, a: socket.socket, b: socket.socket, work: Work) -> None:
        self._work = work
        self._ways = Way(a, b, self), Way(b, a, self)
        self._open = 2
        work.relays.add(self)
        for way in self._ways:
            way.start()

    @property
    def work(self) -> Work:
        return self._work

    def ended(self) -> None:
        """One way has come to its orderly end."""
        self._open -= 1
        if not self._open:
            self._close(socket.socket.close)

    def abort(self) -> None:
        """One side is gone; the other hears of it in the same way."""
        if self._open:
            self._open = 0
            self._close(abort)

    def _close(self, how: Callable[[socket.socket], None]) -> None:
        for way in self._ways:
            way.stop()
        for way in self._ways:
            how(way.source)
        self._work.connections -= 1
        self._work.relays.discard(self)


class Way:
    """Bytes in one direction."""

    __slots__ = ('_relay', '_rest', '_sink', 'source')

    def __init__(self, source: socket.socket, sink: socket.socket, relay: Relay) -> None:
        self.source, self._sink, self._relay = source, sink, relay
        self._rest = b''

    def start(self) -> None:
        self._relay.work.loop.add_reader(self.source.fileno(), self._readable)

    def stop(self) -> None:
        loop = self._relay.work.loop
        loop.remove_reader(self.source.fileno())
        loop.remove_writer(self._sink.fileno())

    def _readable(self) -> None:
        work = self._relay.work
        view = work.scratch
        try:
            for _ in range(ROUNDS_MAX):
                read = self.source.recv_into(view)
                if not read:
                    self._end()
                    return
                work.bytes += read
                sent = self._send(view[:read])
                if sent < read:
                    self._hold(bytes(view[sent:read]))
                    return
                if read < CHUNK_BYTES:
                    return
        except BlockingIOError:
            return
        except OSError:
            self._relay.abort()

    def _send(self, data: memoryview | bytes) -> int:
        try:
            return self._sink.send(data)
        except BlockingIOError:
            return 0

    def _hold(self, rest: bytes) -> None:
        loop = self._relay.work.loop
        self._rest = rest
        loop.remove_reader(self.source.fileno())
        loop.add_writer(self._sink.fileno(), self._writable)

    def _writable(self) -> None:
        try:
            self._rest = self._rest[self._send(self._rest) :]
        except OSError:
            self._relay.abort()
            return
        if not self._rest:
            self._relay.work.loop.remove_writer(self._sink.fileno())
            self.start()

    def _end(self) -> None:
        self._relay.work.loop.remove_reader(self.source.fileno())
        with contextlib.suppress(OSError):  # the other side is gone already, as its own way will find
            self._sink.shutdown(socket.SHUT_WR)
        self._relay.ended()
