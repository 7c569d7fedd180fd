"""The name server of one agent: UDP and TCP at an address of the node, behind the Service `kube-system/kube-dns`.

What the cluster knows is answered in the very turn of the loop that brought the question; for the rest a task asks the
machine's name servers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram

from kcore.env import Env
from kcore.tasks import start
from knode.dns.forward import FORWARDS_MAX, Forwarder, Unanswered
from knode.dns.zone import Answer, Zone

if TYPE_CHECKING:
    from knode.dns.messages import Query

log = structlog.get_logger('knode.dns')

CONNECTIONS_MAX = 128
"""TCP connections at once; one more is closed."""
IDLE_S = 10.0
"""A TCP connection without a question is closed after this."""
WAITING_BYTES_MAX = 256 * 1024
"""Answers that a TCP client has not taken; its connection is closed."""
DURATION_S = tuple(0.00025 * 2**n for n in range(16))

Reply = Callable[[bytes], None]


class DnsServer:
    def __init__(self, env: Env, zone: Zone, forwarder: Forwarder, registry: CollectorRegistry) -> None:
        self._env, self._zone, self._forwarder = env, zone, forwarder
        self._group: asyncio.TaskGroup | None = None
        self._tasks = 0
        self._connections = 0
        labels = ('server', 'zone', 'view')
        self._requests = Counter(
            'coredns_dns_requests', 'Counter of DNS requests made per zone, protocol and family.',
            (*labels, 'proto', 'family', 'type'), registry=registry,
        )  # fmt: skip
        self._responses = Counter(
            'coredns_dns_responses', 'Counter of response status codes.', (*labels, 'rcode', 'plugin'),
            registry=registry,
        )  # fmt: skip
        self._duration = Histogram(
            'coredns_dns_request_duration_seconds', 'Histogram of the time (in seconds) each request took per zone.',
            labels, buckets=DURATION_S, registry=registry,
        )  # fmt: skip

    @cached_property
    def _messages(self) -> ModuleType:
        """Taken in with the first question: an agent that nobody asks does without."""
        from knode.dns import messages  # noqa: PLC0415

        return messages

    async def run(self, host: str, port: int) -> NoReturn:
        """Serve until cancelled. Raises OSError when the address is taken."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), (host, port))
        try:
            server = await loop.create_server(lambda: _Stream(self), host, port)
            try:
                log.info('name server serves', address=f'{host}:{port}')
                async with asyncio.TaskGroup() as group:
                    self._group = group
                    await asyncio.Event().wait()
            finally:
                self._group = None
                server.close()
        finally:
            transport.close()
        raise AssertionError('nothing ends the wait')

    def hear(self, data: bytes, reply: Reply, *, stream: bool) -> None:
        began = self._env.clock.monotonic()
        query = self._messages.parse(data)
        if query is None:
            return
        if isinstance(query, bytes):
            reply(query)
            return
        answer = self._zone.answer(query.name, query.type)
        where = ('dns://:53', f'{self._zone.domain}.' if answer is not None else '.', '')
        self._requests.labels(*where, 'tcp' if stream else 'udp', '1', query.type).inc()

        def done(answer: bytes, plugin: str) -> None:
            self._responses.labels(*where, self._code(answer), plugin).inc()
            self._duration.labels(*where).observe(self._env.clock.monotonic() - began)
            reply(answer)

        if answer is not None and not answer.alias:
            done(self._built(query, answer, stream=stream), 'kubernetes')
        elif self._group is None or self._tasks >= FORWARDS_MAX:
            done(self._messages.failure(query.message), 'forward')
        else:
            self._tasks += 1
            start(self._group, 'dns question', self._ask(data, query, answer, done, stream=stream))

    def _code(self, answer: bytes) -> str:
        return str(self._messages.code(answer))

    def _built(self, query: Query, answer: Answer, *, stream: bool) -> bytes:
        room = self._messages.TCP_BYTES_MAX if stream else query.room
        built: bytes = self._messages.build(query, answer, self._zone.authority(), room)
        return built

    async def _ask(
        self, data: bytes, query: Query, answer: Answer | None, done: Callable[[bytes, str], None], *, stream: bool
    ) -> None:
        """Of others: all of the question, or only where an alias of the cluster leads."""
        asked = data if answer is None else self._messages.question(answer.alias, query.type)
        try:
            found = await self._forwarder.ask(asked, stream=stream)
        except Unanswered as e:
            log.info('question was not answered', name=query.name, type=query.type, err=str(e))
            found = None
        finally:
            self._tasks -= 1
        if answer is not None:
            records = answer.records + (self._messages.records(found) if found else ())
            done(self._built(query, Answer(records=records), stream=stream), 'kubernetes')
        else:
            done(found or self._messages.failure(query.message), 'forward')

    def admit(self, by: int) -> bool:
        """Count a TCP connection in (1) or out (-1). False: there is no room."""
        self._connections += by
        return self._connections <= CONNECTIONS_MAX


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server

    def connection_made(self, transport: Any) -> None:
        self._transport: asyncio.DatagramTransport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        def reply(answer: bytes) -> None:
            if not self._transport.is_closing():
                self._transport.sendto(answer, addr)

        self._server.hear(data, reply, stream=False)


class _Stream(asyncio.Protocol):
    """Questions with their length before them, answered as answers come."""

    def __init__(self, server: DnsServer) -> None:
        self._server, self._held = server, b''

    def connection_made(self, transport: Any) -> None:
        self._transport: asyncio.Transport = transport
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(IDLE_S, transport.abort)
        if not self._server.admit(1):
            transport.abort()

    def data_received(self, data: bytes) -> None:
        self._timer.cancel()
        self._timer = self._loop.call_later(IDLE_S, self._transport.abort)
        self._held += data
        while len(self._held) >= 2:
            end = 2 + int.from_bytes(self._held[:2])
            if len(self._held) < end:
                return
            query, self._held = self._held[2:end], self._held[end:]
            self._server.hear(query, self._reply, stream=True)

    def _reply(self, answer: bytes) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(len(answer).to_bytes(2) + answer)
        if self._transport.get_write_buffer_size() > WAITING_BYTES_MAX:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._server.admit(-1)
