"""The client's side of a port-forward: an upgraded connection to the API server that carries SPDY streams."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import struct
from collections.abc import AsyncIterator, Mapping
from urllib.parse import urlsplit

from kclient.kubeconfig import ClientConfig
from kcore.env import Env
from kcore.upgrade import Address, Duplex, UpgradeError, dial
from kctl.verbs.lib.errors import CliError, Unreachable
from knode.streams.spdy import DATA, RST_STREAM, SYN_STREAM, Spdy, SpdyError, control, data_frame

PROTOCOL = 'portforward.k8s.io'
WAITING_FRAMES_MAX = 4
"""Frames that a local program has not taken yet, per connection; then the tunnel is read no further."""
REFUSAL_BYTES_MAX = 4096
CANCEL = 5


class Connection:
    """A pair of streams: data both ways, and what went wrong at the pod."""

    def __init__(self, tunnel: Tunnel, data: int, error: int) -> None:
        self._tunnel, self.data, self.error = tunnel, data, error
        self.arrived: asyncio.Queue[bytes] = asyncio.Queue(WAITING_FRAMES_MAX)
        self.over = False
        """Nobody takes what arrives any more."""
        self.problem = ''

    async def receive(self) -> bytes:
        """Empty at the end."""
        return await self.arrived.get()

    async def send(self, data: bytes) -> None:
        """Raises ConnectionResetError."""
        await self._tunnel.send(data_frame(self.data, data))

    async def end(self) -> None:
        await self._tunnel.send(data_frame(self.data, b'', fin=True))


class Tunnel:
    def __init__(self, duplex: Duplex) -> None:
        self._duplex, self._spdy = duplex, Spdy()
        self._ids, self._requests = itertools.count(1, 2), itertools.count()
        self._streams: dict[int, Connection] = {}

    @classmethod
    async def open(cls, config: ClientConfig, headers: Mapping[str, str], path: str) -> Tunnel:
        """Raises CliError: refused; Unreachable."""
        server = urlsplit(config.servers[0])
        assert server.hostname is not None, 'a kubeconfig names a host'
        port = server.port or (443 if server.scheme == 'https' else 80)
        sent = [*headers.items(), ('Host', server.netloc), ('Connection', 'Upgrade'), ('Upgrade', 'SPDY/3.1')]
        sent += [('X-Stream-Protocol-Version', PROTOCOL), ('Content-Length', '0')]
        try:
            address = Address(server.hostname, port, config.ssl_context())
            answer = await dial(Env.real().net, address, ('POST', server.path.rstrip('/') + path), sent)
            if answer.status != 101:
                text = (await answer.body(REFUSAL_BYTES_MAX)).decode(errors='replace').strip()
                answer.connection.close()
                raise CliError(f'error upgrading connection: {text or answer.status}')
        except (OSError, UpgradeError) as e:
            raise Unreachable(f'port-forward: {e}') from None
        return cls(answer.connection)

    @contextlib.asynccontextmanager
    async def connection(self, port: int) -> AsyncIterator[Connection]:
        """Raises ConnectionResetError."""
        error, data, request = next(self._ids), next(self._ids), str(next(self._requests))
        made = Connection(self, data, error)
        self._streams[error] = self._streams[data] = made
        about = {'port': str(port), 'requestid': request}
        try:
            await self.send(
                self._spdy.syn(SYN_STREAM, error, {'streamtype': 'error', **about})
                + data_frame(error, b'', fin=True)
                + self._spdy.syn(SYN_STREAM, data, {'streamtype': 'data', **about})
            )
            yield made
        finally:
            made.over = True
            if self._streams.pop(data, None) is not None:  # the local program left first
                with contextlib.suppress(ConnectionError):
                    await self.send(control(RST_STREAM, 0, struct.pack('>II', data, CANCEL)))
            while not made.arrived.empty():
                made.arrived.get_nowait()  # lets go of `run` if it waits for room

    async def send(self, data: bytes) -> None:
        await self._duplex.send(data)

    async def run(self) -> None:
        """Until the other side ends. Raises Unreachable: it talks nonsense."""
        try:
            while data := await self._duplex.receive():
                for frame in self._spdy.receive(data):
                    found = self._streams.get(frame.stream)
                    if found is not None and frame.kind in {DATA, RST_STREAM}:
                        await self._take(found, frame.stream, frame.data, last=frame.fin or frame.kind == RST_STREAM)
        except SpdyError as e:
            raise Unreachable(f'port-forward: {e}') from None
        finally:
            for connection in set(self._streams.values()):
                if not connection.arrived.full():
                    connection.arrived.put_nowait(b'')

    async def _take(self, connection: Connection, stream: int, data: bytes, *, last: bool) -> None:
        if stream == connection.error:
            connection.problem += data.decode(errors='replace')
        elif not connection.over:
            if data:
                await connection.arrived.put(data)
            if last:
                await connection.arrived.put(b'')
        if last:
            self._streams.pop(stream, None)

    def close(self) -> None:
        self._duplex.close()
