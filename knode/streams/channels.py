"""The channel protocols (`v5.channel.k8s.io` and older): one byte says which stream a message belongs to.

0 stdin, 1 stdout, 2 stderr, 3 the outcome as a Status, 4 terminal size; 255 (v5) half-closes the channel that
follows it. The base64 protocols, for clients that can only send text, use an ASCII digit for the number.
Source: apimachinery/pkg/util/remotecommand/constants.go, pkg/util/httpstream/wsstream/conn.go.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from knode.streams.remote import ERROR, RESIZE, STDIN, RemoteStreams

CLOSE = 255
PROTOCOLS = (
    'v5.channel.k8s.io', 'v4.channel.k8s.io', 'v4.base64.channel.k8s.io', 'v3.channel.k8s.io', 'v2.channel.k8s.io',
    'channel.k8s.io', 'base64.channel.k8s.io',
)  # fmt: skip
MESSAGE_BYTES_MAX = 32 * 1024 * 1024
"""As upstream. Some clients send all of a command's input in one message."""
HEARTBEAT_S = 30.0


class Socket:
    """A WebSocket whose messages begin with a channel's number; base64 when the client asked for that."""

    def __init__(self) -> None:
        self.response = web.WebSocketResponse(
            protocols=PROTOCOLS, max_msg_size=MESSAGE_BYTES_MAX, heartbeat=HEARTBEAT_S, compress=False
        )

    @property
    def protocol(self) -> str:
        return self.response.ws_protocol or 'channel.k8s.io'

    async def send(self, channel: int, data: bytes) -> None:
        """Raises ConnectionError."""
        if self.response.closed:
            raise ConnectionResetError('the WebSocket is closed')
        if 'base64' in self.protocol:
            await self.response.send_str(f'{channel}{base64.b64encode(data).decode()}')
        else:
            await self.response.send_bytes(bytes([channel]) + data)

    async def receive(self) -> tuple[int, bytes] | None:
        """(channel, data); None at the end. What is no message of the protocol is skipped, as upstream does."""
        async for message in self.response:
            if message.type not in {aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT} or not message.data:
                continue
            # Some clients send text even where the protocol is binary.
            data: bytes = message.data.encode() if isinstance(message.data, str) else message.data
            if 'base64' not in self.protocol:
                return data[0], data[1:]
            try:
                return int(data[:1]), base64.b64decode(data[1:], validate=True)
            except (ValueError, binascii.Error):
                continue
        return None


class Channels(RemoteStreams):
    """A command's streams as the channels of one WebSocket."""

    def __init__(self) -> None:
        super().__init__()
        self._socket = Socket()

    @property
    def response(self) -> web.StreamResponse:
        return self._socket.response

    async def open(self, request: web.Request) -> None:
        await self._socket.response.prepare(request)

    async def _write(self, stream: int, data: bytes) -> None:
        await self._socket.send(stream, data)

    async def _end(self, stream: int) -> None:
        return  # the end of all is the socket's

    async def _take_all(self) -> None:
        while (message := await self._socket.receive()) is not None:
            channel, data = message
            if channel == STDIN:
                await self._feed(data)
            elif channel == RESIZE:
                self._resize(data)
            elif channel == CLOSE and data[:1] == bytes([STDIN]):
                await self._end_input()

    async def _lost(self) -> None:
        # It pings on its own, but tells only those who receive: there is no event to wait for.
        while not self._socket.response.closed:  # noqa: ASYNC110
            await asyncio.sleep(HEARTBEAT_S)

    async def _finish(self, outcome: dict[str, Any]) -> None:
        if self._socket.protocol.startswith(('v5', 'v4')):
            await self._socket.send(ERROR, orjson.dumps(outcome))
        elif outcome['status'] != 'Success':
            await self._socket.send(ERROR, str(outcome['message']).encode())

    async def _close(self) -> None:
        await self._socket.response.close(code=aiohttp.WSCloseCode.OK)
