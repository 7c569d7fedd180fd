"""SPDY/3.1 on a connection of its own: the upgrade, the choice of a protocol, frames in and out.

Clients say in `X-Stream-Protocol-Version` what they can speak, best first; the answer names the first of those that
we can too. Source: apimachinery pkg/util/httpstream/httpstream.go, spdy/upgrade.go.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from aiohttp import web
from multidict import CIMultiDictProxy

from kcore.upgrade import Duplex, take_over
from knode.errors import ProtocolRefused
from knode.streams.spdy import PING, RST_STREAM, SYN_REPLY, Frame, Spdy, control, data_frame

UPGRADE = 'SPDY/3.1'
OFFER, ACCEPTED = 'X-Stream-Protocol-Version', 'X-Accepted-Stream-Protocol-Versions'
DATA_BYTES = 32 * 1024
REFUSED_STREAM = 3


def asks_for_spdy(request: web.BaseRequest) -> bool:
    return request.headers.get('Upgrade', '').lower() == UPGRADE.lower()


def negotiate(headers: CIMultiDictProxy[str], spoken: Sequence[str]) -> str:
    """Empty when the client offers nothing: the oldest clients did not. Raises ProtocolRefused."""
    offered = [p.strip() for value in headers.getall(OFFER, []) for p in value.split(',') if p.strip()]
    if not offered:
        return ''
    found = next((p for p in offered if p in spoken), None)
    if found is None:
        client, server = ' '.join(offered), ' '.join(spoken)
        raise ProtocolRefused(
            f'unable to upgrade: unable to negotiate protocol: client supports [{client}], server accepts [{server}]',
            [(ACCEPTED, p) for p in spoken],
        )
    return found


async def accept(request: web.BaseRequest, protocol: str) -> Duplex:
    """Raises ConnectionResetError."""
    headers = [('Connection', 'Upgrade'), ('Upgrade', UPGRADE)]
    return await take_over(request, [*headers, (OFFER, protocol)] if protocol else headers)


class Carrier(Protocol):
    """What SPDY's bytes travel on."""

    async def receive(self) -> bytes:
        """Empty at the end."""

    async def send(self, data: bytes) -> None:
        """Waits while too much is under way. Raises ConnectionError."""


class SpdyConnection:
    """Frames over a carrier. Pings are answered here."""

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._spdy = Spdy()
        self._pings = 0

    async def frames(self) -> AsyncIterator[Frame]:
        """Until the client closes. Raises SpdyError."""
        while data := await self._carrier.receive():
            for frame in self._spdy.receive(data):
                if frame.kind == PING:
                    if frame.stream % 2:  # the client's; even numbers would be answers to ours
                        await self._carrier.send(control(PING, 0, struct.pack('>I', frame.stream)))
                else:
                    yield frame

    async def ping(self) -> None:
        """Raises ConnectionError, sooner or later, when the client is gone."""
        self._pings += 2
        await self._carrier.send(control(PING, 0, struct.pack('>I', self._pings)))

    async def reply(self, stream: int, headers: Mapping[str, str] | None = None) -> None:
        await self._carrier.send(self._spdy.syn(SYN_REPLY, stream, headers or {}))

    async def refuse(self, stream: int) -> None:
        await self._carrier.send(control(RST_STREAM, 0, struct.pack('>II', stream, REFUSED_STREAM)))

    async def send(self, stream: int, data: bytes, *, fin: bool = False) -> None:
        """Raises ConnectionResetError."""
        for at in range(0, len(data), DATA_BYTES) or (0,):
            part = data[at : at + DATA_BYTES]
            await self._carrier.send(data_frame(stream, part, fin=fin and at + DATA_BYTES >= len(data)))
