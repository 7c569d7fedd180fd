"""UDP through the proxy: a flow for each client of a frontend, with a socket of its own toward its backend.

A flow ends with its backend, and after half a minute of silence; its client's next datagram begins another. A backend
that refuses a flow's first datagram is given up for the next one, which gets that datagram.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence

from knode.proxy.choice import Choice
from knode.proxy.model import Address, Backend, Target
from knode.proxy.plan import near
from knode.proxy.sockets import listen_udp, toward
from knode.proxy.work import Work

IDLE_S = 30.0
"""A flow ends when neither side has said anything for that long."""
SWEEP_S = 10.0
DATAGRAMS_MAX = 64
"""Datagrams taken from one socket before others have their turn."""
RETRY_BYTES_MAX = 4096
"""A first datagram up to this length is kept until it is answered."""


class UdpPort:
    def __init__(self, address: Address, target: Target, choice: Choice, work: Work) -> None:
        """Raises OSError."""
        self._target, self._choice, self._work = target, choice, work
        self._sock = listen_udp(address)
        self._flows: dict[Address, Flow] = {}
        work.loop.add_reader(self._sock.fileno(), self._readable)
        self._sweep = work.loop.call_later(SWEEP_S, self._end_silent)
        self._sweep.cancel()

    def lead(self, target: Target, choice: Choice) -> None:
        """Flows whose backend is not among the target's end."""
        self._target, self._choice = target, choice
        for flow in [f for f in self._flows.values() if f.backend not in target.backends]:
            self.drop(flow)

    def close(self) -> None:
        self._sweep.cancel()
        for flow in [*self._flows.values()]:
            self.drop(flow)
        self._work.loop.remove_reader(self._sock.fileno())
        self._sock.close()

    def drop(self, flow: Flow) -> None:
        if self._flows.pop(flow.client, None) is not None:
            self._work.flows -= 1
            flow.close()

    def reply(self, data: memoryview, client: Address) -> None:
        with contextlib.suppress(OSError):  # full, or the client is gone: datagrams may be lost
            self._sock.sendto(data, client)

    def _readable(self) -> None:
        view = self._work.scratch
        for _ in range(DATAGRAMS_MAX):
            try:
                read, client = self._sock.recvfrom_into(view)
            except BlockingIOError:
                return
            except OSError:  # what became of an earlier reply
                continue
            flow = self._flows.pop(client, None)
            if flow is None:
                flow = self._begin(client)
            if flow is not None:
                self._flows[client] = flow  # who spoke last is last
                self._work.bytes += read
                flow.send(view[:read])

    def _begin(self, client: Address) -> Flow | None:
        target, work = self._target, self._work
        backends: Sequence[Backend] = (
            near(target.backends, client[0], work.prefix()) if target.near else target.backends
        )
        if not backends or not target.allows(client[0]) or not self._room():
            work.refused += 1
            return None
        order = self._choice.order(backends, client[0], target.affinity_s, work.now())
        try:
            flow = Flow(self, client, order, work)
        except OSError:  # no descriptors
            work.refused += 1
            return None
        if target.affinity_s:
            self._choice.keep(client[0], flow.backend, work.now())
        if not self._flows:
            self._sweep = work.loop.call_later(SWEEP_S, self._end_silent)
        work.flows += 1
        return flow

    def _room(self) -> bool:
        """At the limit the flow whose client has been silent longest ends: most are of one question and its answer."""
        if self._work.flows >= self._work.flows_max and self._flows:
            self.drop(next(iter(self._flows.values())))
        return self._work.flows < self._work.flows_max

    def _end_silent(self) -> None:
        before = self._work.now() - IDLE_S
        for flow in [f for f in self._flows.values() if f.seen < before]:
            self.drop(flow)
        if self._flows:
            self._sweep = self._work.loop.call_later(SWEEP_S, self._end_silent)


class Flow:
    """One client's datagrams to one backend, and its answers."""

    __slots__ = ('_first', '_order', '_port', '_sock', '_work', 'backend', 'client', 'seen')

    def __init__(self, port: UdpPort, client: Address, order: list[Backend], work: Work) -> None:
        """Raises OSError."""
        self._port, self.client, self._order, self._work = port, client, order, work
        self._first = b''
        """Not answered yet; it can be sent to another backend."""
        self._connect()

    def _connect(self) -> None:
        self.backend = self._order.pop(0)
        self._sock = toward(socket.SOCK_DGRAM, self.client[0], self.backend.ip)
        try:
            self._sock.connect(self.backend.address)
        except OSError:
            self._sock.close()
            raise
        self.seen = self._work.now()
        self._work.loop.add_reader(self._sock.fileno(), self._readable)

    def send(self, data: memoryview) -> None:
        if self._order and not self._first and len(data) <= RETRY_BYTES_MAX:
            self._first = bytes(data)
        self.seen = self._work.now()
        try:
            self._sock.send(data)
        except BlockingIOError:
            return
        except OSError:
            self._next()

    def close(self) -> None:
        self._work.loop.remove_reader(self._sock.fileno())
        self._sock.close()

    def _readable(self) -> None:
        view = self._work.scratch
        for _ in range(DATAGRAMS_MAX):
            try:
                read = self._sock.recv_into(view)
            except BlockingIOError:
                return
            except OSError:
                self._next()
                return
            self._first, self._order = b'', []  # answered: it stays here
            self.seen = self._work.now()
            self._work.bytes += read
            self._port.reply(view[:read], self.client)

    def _next(self) -> None:
        """The backend refuses: the next one gets what nobody has answered."""
        self._work.failed += 1
        first, self._first = self._first, b''
        if not self._order:
            self._port.drop(self)
            return
        self.close()
        try:
            self._connect()
        except OSError:
            self._port.drop(self)
            return
        if first:
            self.send(memoryview(first))
