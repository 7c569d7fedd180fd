"""Answers over a WebSocket: browsers ask for logs and watches this way, since they cannot follow a chunked answer.

`Messages` has what a handler uses of a `StreamResponse`, so that one handler serves both. Whoever sends gets no
answer: what the client says is read only to notice that it left.
Source: apiserver pkg/endpoints/handlers/watch.go HandleWS, apimachinery pkg/util/httpstream/wsstream/stream.go Reader.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Callable

from aiohttp import web

from kapi.authn.bearer import WEBSOCKET_PREFIX
from kapi.errors import BadRequest
from kcore import tasks

BASE64 = 'base64.binary.k8s.io'
STREAM_PROTOCOLS = ('', 'binary.k8s.io', BASE64)
CLIENT_MESSAGE_BYTES_MAX = 4096
"""Nobody has anything to say here; a longer message ends the connection."""


def wanted(raw: web.BaseRequest) -> bool:
    return raw.headers.get('Upgrade', '').lower() == 'websocket'


def offered(raw: web.BaseRequest) -> list[str]:
    """The subprotocols the client names, without the one that carries its token."""
    names = (p.strip() for p in raw.headers.get('Sec-WebSocket-Protocol', '').split(','))
    return [n for n in names if n and not n.startswith(WEBSOCKET_PREFIX)]


class Messages:
    """The sending side of a WebSocket; `prepare`, `write` and `write_eof` as a StreamResponse has them."""

    def __init__(self, raw: web.BaseRequest, protocol: str = '', on_left: Callable[[], None] | None = None) -> None:
        self.socket = web.WebSocketResponse(
            protocols=(protocol,) if protocol else (), compress=False, max_msg_size=CLIENT_MESSAGE_BYTES_MAX
        )
        self.headers, self.status = self.socket.headers, self.socket.status
        self._raw = raw
        self._on_left = on_left
        self._reader: asyncio.Task[None] | None = None

    async def prepare(self, raw: web.BaseRequest) -> None:
        """Raises BadRequest: no handshake that can be answered."""
        try:
            await self.socket.prepare(raw)
        except web.HTTPException as e:
            raise BadRequest(f'no WebSocket can be opened: {e.text or e.reason}') from None
        self._reader = tasks.start_detached('socket reader', self._read())

    async def _read(self) -> None:
        async for _ in self.socket:
            pass
        if self._raw.transport is not None:
            self._raw.transport.close()
        if self._on_left is not None:
            self._on_left()

    async def write(self, data: bytes) -> None:
        """One message. Raises ConnectionResetError when the client has left."""
        await self.socket.send_bytes(data)

    async def write_eof(self) -> None:
        """Say goodbye; the client's answer to it ends the connection."""
        await tasks.stop(self._reader)
        await self.socket.close()


class Chunks(Messages):
    """Bytes as they come, binary or in base64 by the client's choice of subprotocol. Raises BadRequest."""

    def __init__(self, raw: web.BaseRequest) -> None:
        names = offered(raw) or ['']
        self.protocol = next((n for n in names if n in STREAM_PROTOCOLS), None)
        if self.protocol is None:
            raise BadRequest(
                f'unsupported WebSocket subprotocol {", ".join(names)}: want {", ".join(STREAM_PROTOCOLS[1:])}'
            )
        super().__init__(raw, self.protocol)

    async def write(self, data: bytes) -> None:
        if self.protocol == BASE64:
            await self.socket.send_str(b64encode(data).decode())
        else:
            await super().write(data)


class Lines(Messages):
    """One text message a line: events of a watch. Whatever single subprotocol the client names is agreed to."""

    def __init__(self, raw: web.BaseRequest, on_left: Callable[[], None] | None) -> None:
        super().__init__(raw, (offered(raw) or [''])[0], on_left)

    async def write(self, data: bytes) -> None:
        for line in data.splitlines(keepends=True):
            await self.socket.send_str(line.decode())


Sink = web.StreamResponse | Messages
