"""Questions about the rest of the world, handed on to the machine's own name servers, bytes as they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

PORT = 53
FORWARDS_MAX = 256
"""Questions on their way at once; one more fails."""
TRY_S = 2.0
"""What each server may take, before the next one is asked."""
ROUNDS = 2
"""How often each is asked."""
HEAD_BYTES = 12


class Unanswered(Exception):
    """No server had an answer."""


class Forwarder:
    def __init__(self, servers: Callable[[], list[str]]) -> None:
        """servers: addresses, or address#port; asked for anew with each question, since a machine moves."""
        self._servers = servers
        self._running = 0

    async def ask(self, query: bytes, *, stream: bool) -> bytes:
        """The answer's bytes. stream: over TCP, as the question came. Raises Unanswered."""
        if self._running >= FORWARDS_MAX:
            raise Unanswered('too many questions on their way')
        self._running += 1
        try:
            how = _over_tcp if stream else _over_udp
            for server in self._servers() * ROUNDS:
                host, _, port = server.partition('#')
                try:
                    async with asyncio.timeout(TRY_S):
                        return await how(host, int(port or PORT), query)
                except (OSError, TimeoutError, asyncio.IncompleteReadError):
                    continue
        finally:
            self._running -= 1
        raise Unanswered('no name server of the machine answers')


class _Asking(asyncio.DatagramProtocol):
    def __init__(self, query: bytes) -> None:
        self._query = query
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        transport.sendto(self._query)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """The socket is connected: nobody else can answer; the number tells an answer to an earlier question."""
        if len(data) >= HEAD_BYTES and data[:2] == self._query[:2] and not self.answer.done():
            self.answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)


async def _over_udp(host: str, port: int, query: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    transport, asking = await loop.create_datagram_endpoint(lambda: _Asking(query), remote_addr=(host, port))
    try:
        return await asking.answer
    finally:
        transport.close()


async def _over_tcp(host: str, port: int, query: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(len(query).to_bytes(2) + query)
        length = int.from_bytes(await reader.readexactly(2))
        return await reader.readexactly(length)
    finally:
        writer.close()
