"""A Service's health check port: tells load balancers whether this node has endpoints of it.

Source: pkg/proxy/healthcheck/service_health.go. One short answer to whatever is asked, then the connection ends.
"""

from __future__ import annotations

import asyncio

import orjson

from knode.proxy.model import Address, Health
from knode.proxy.sockets import listen_tcp

HEAD_BYTES_MAX = 8 * 1024
"""A request longer than this is not answered."""
PATIENCE_S = 5.0
"""Nor is one that is not whole by then."""


class HealthPort:
    def __init__(self, address: Address, health: Health) -> None:
        """Raises OSError."""
        self.health = health
        self._sock = listen_tcp(address)
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Answer(self), sock=self._sock)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self._sock.close()

    def answer(self) -> bytes:
        namespace, _, name = self.health.service.partition('/')
        body = orjson.dumps({
            'service': {'namespace': namespace, 'name': name},
            'localEndpoints': self.health.local, 'serviceProxyHealthy': True,
        })  # fmt: skip
        status = '200 OK' if self.health.local else '503 Service Unavailable'
        head = (
            f'HTTP/1.1 {status}\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n'
            f'X-Load-Balancing-Endpoint-Weight: {self.health.local}\r\nContent-Length: {len(body)}\r\n'
            'Connection: close\r\n\r\n'
        )
        return head.encode() + body


class _Answer(asyncio.Protocol):
    def __init__(self, port: HealthPort) -> None:
        self._port, self._head = port, b''

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._timer = asyncio.get_running_loop().call_later(PATIENCE_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        self._head += data
        if b'\r\n\r\n' in self._head:
            self._transport.write(self._port.answer())
            self._transport.close()
        elif len(self._head) > HEAD_BYTES_MAX:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
