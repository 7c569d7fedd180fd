"""The API server over real TLS: requests per second by clients, a large list, watch fan-out, cold start.

The generator is a bare HTTP/1.1 client on ready-made bytes, in a process of its own, so that what is measured is the
server; `cpu_us` is the server process's own time for one request.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import orjson
import uvloop

from bench.common import Figures, Settings, cpu_s, emit, kstore, latencies, now, percentile, rss_mb
from kcore.env import Env
from kctl.local.pki import Authority, Leaf

CLIENTS = (1, 10, 100)
LIST_PODS = 10_000
WATCHERS = 1_000
COLD_STARTS = 5
FANOUT_WRITES = 300
FANOUT_WRITERS = (1, 32)
TIMED_WATCHERS = 20
PODS = '/api/v1/namespaces/default/pods'


@dataclass(frozen=True)
class Server:
    port: int
    pid: int
    tls: ssl.SSLContext

    def cpu_s(self) -> float:
        return cpu_s(self.pid)


def pod(name: str) -> bytes:
    container = {
        'name': 'c', 'image': 'busybox', 'command': ['sleep', '1'], 'ports': [{'containerPort': 80}],
        'resources': {'requests': {'cpu': '10m', 'memory': '16Mi'}}, 'env': [{'name': 'A', 'value': 'b'}],
    }  # fmt: skip
    return orjson.dumps({
        'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {'name': name, 'labels': {'app': 'bench'}},
        'spec': {'containers': [container]},
    })  # fmt: skip


def request(method: str, path: str, body: bytes = b'', media: str = 'application/json') -> bytes:
    return (
        f'{method} {path} HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\nUser-Agent: bench/1\r\n'
        f'Content-Type: {media}\r\nContent-Length: {len(body)}\r\n\r\n'
    ).encode() + body


class Connection:
    """One keep-alive connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def call(self, data: bytes) -> tuple[int, bytes]:
        """(status, body)."""
        self._writer.write(data)
        head = await self._reader.readuntil(b'\r\n\r\n')
        at = head.index(b'Content-Length: ') + 16
        return int(head[9:12]), await self._reader.readexactly(int(head[at : head.index(b'\r', at)]))

    async def stream(self, data: bytes) -> asyncio.StreamReader:
        self._writer.write(data)
        head = await self._reader.readuntil(b'\r\n\r\n')
        assert b' 200 ' in head, head
        return self._reader

    def close(self) -> None:
        self._writer.close()


@contextlib.asynccontextmanager
async def connected(server: Server, count: int) -> AsyncIterator[list[Connection]]:
    opened = [
        Connection(*await asyncio.open_connection('127.0.0.1', server.port, ssl=server.tls, limit=1 << 26))
        for _ in range(count)
    ]
    try:
        yield opened
    finally:
        for connection in opened:
            connection.close()


MANY_IN_FLIGHT = ('--max-requests-inflight', '4000', '--max-mutating-requests-inflight', '4000')


@contextlib.contextmanager
def serving(storage: str, directory: Path, flags: Sequence[str] = MANY_IN_FLIGHT) -> Iterator[tuple[Server, float]]:
    """A server process, and the seconds from its start to its readiness."""
    authority = Authority(directory / 'pki', Env.real())
    admin_cert, admin_key = authority.ensure(Leaf('admin', 'kubernetes-admin', groups=('system:masters',)))
    cert, key = authority.ensure(Leaf('apiserver', 'kube-apiserver', serves=('127.0.0.1', 'localhost')))
    tls = ssl.create_default_context(cafile=str(authority.file))
    tls.load_cert_chain(admin_cert, admin_key)
    argv = [sys.executable, '-m', 'kapi', '--listen', '127.0.0.1:0', '--storage', storage, '--tls-cert', str(cert)]
    argv += ['--tls-key', str(key), '--client-ca', str(authority.file), *flags]
    began = now()
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = next((line for line in process.stderr if '"serving"' in line), '')
        took = now() - began
        address = orjson.loads(line)['address']
        threading.Thread(target=process.stderr.read, daemon=True).start()  # a full pipe would hold the server
        try:
            yield Server(int(address.rpartition(':')[2]), process.pid, tls), took
        finally:
            process.terminate()


async def _load(
    server: Server, clients: int, seconds: float, make: Callable[[int, int], tuple[bytes, int]]
) -> tuple[list[float], float, float]:
    """(latencies, seconds, server CPU seconds) of `make(client, turn)` called in a loop by each client."""
    times: list[float] = []
    async with connected(server, clients) as connections:
        cpu, began = server.cpu_s(), now()
        end = began + seconds

        async def client(number: int, connection: Connection) -> None:
            turn = 0
            while (start := now()) < end:
                data, wanted = make(number, turn)
                status, body = await connection.call(data)
                if status != wanted:
                    raise RuntimeError(f'{status}: {body[:300]!r}')
                times.append(now() - start)
                turn += 1

        async with asyncio.TaskGroup() as group:
            for number, connection in enumerate(connections):
                group.create_task(client(number, connection))
        return times, now() - began, server.cpu_s() - cpu


def _requests(clients: int) -> dict[str, Callable[[int, int], tuple[bytes, int]]]:
    def name(client: int, turn: int) -> str:
        return f'b{clients}-{client}-{turn}'

    change = b'{"metadata":{"annotations":{"turn":"%d"}}}'
    merge = 'application/merge-patch+json'
    return {
        'create': lambda c, t: (request('POST', PODS, pod(name(c, t))), 201),
        'get': lambda c, t: (request('GET', f'{PODS}/{name(c, 0)}'), 200),
        'list': lambda c, t: (
            request('GET', f'{PODS}?resourceVersion=0&fieldSelector=metadata.name%3D{name(c, 0)}'),
            200,
        ),
        'patch': lambda c, t: (request('PATCH', f'{PODS}/{name(c, 0)}', change % t, merge), 200),
    }


async def _rates(server: Server, settings: Settings, storage: str) -> None:
    for clients in CLIENTS[:2] if settings.smoke else CLIENTS:
        created = 0
        for verb, make in _requests(clients).items():
            times, seconds, cpu = await _load(server, clients, settings.seconds, make)
            figures = latencies(seconds, times)
            figures.add(cpu_us=cpu / max(len(times), 1) * 1e6)
            emit('api', f'{storage}/{verb}/{clients}', figures)
            created = len(times) if verb == 'create' else created
        await _delete_all(server, clients, created, storage)


async def _delete_all(server: Server, clients: int, created: int, storage: str) -> None:
    async with connected(server, clients) as connections:
        _, body = await connections[0].call(request('GET', f'{PODS}?resourceVersion=0'))
        names = [i['metadata']['name'] for i in orjson.loads(body)['items']]
        times: list[float] = []
        cpu, began = server.cpu_s(), now()

        async def client(connection: Connection) -> None:
            while names:
                start = now()
                status, _ = await connection.call(request('DELETE', f'{PODS}/{names.pop()}?gracePeriodSeconds=0'))
                assert status == 200, status
                times.append(now() - start)

        async with asyncio.TaskGroup() as group:
            for connection in connections:
                group.create_task(client(connection))
        figures = latencies(now() - began, times)
        figures.add(cpu_us=(server.cpu_s() - cpu) / max(len(times), 1) * 1e6)
    emit('api', f'{storage}/delete/{clients}', figures)


async def _large_list(server: Server, settings: Settings, storage: str) -> None:
    count = 200 if settings.smoke else LIST_PODS
    names = iter(range(count))
    async with connected(server, 32) as connections:

        async def fill(connection: Connection) -> None:
            for i in names:
                await connection.call(request('POST', PODS, pod(f'list-{i}')))

        async with asyncio.TaskGroup() as group:
            for connection in connections:
                group.create_task(fill(connection))
        figures = Figures()
        before = rss_mb(server.pid)
        for path in (f'{PODS}?resourceVersion=0', PODS):
            took = []
            for _ in range(3):
                start = now()
                status, body = await connections[0].call(request('GET', path))
                took.append(now() - start)
                assert status == 200
            kind = 'cached' if 'resourceVersion' in path else 'fresh'
            figures.add(**{f'{kind}_first_ms': took[0] * 1000, f'{kind}_best_ms': min(took) * 1000})
        figures.add(bytes=len(body), rss_before_mb=before, rss_after_mb=rss_mb(server.pid))
    emit('api', f'{storage}/list-{count}', figures)


class Watching(asyncio.Protocol):
    """One watch that counts its events; those of `timed` ones are also looked into, for the time since their write."""

    def __init__(self, opening: bytes, sent: dict[int, float], delays: list[float] | None) -> None:
        self._opening, self._sent, self._delays = opening, sent, delays
        self._rest = b''
        self.seen = -1  # the line end of the last header

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(self._opening)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        lines = data.count(b'}\n') + (self.seen < 0)
        whole, self._rest = data[: (end := data.rfind(b'\n') + 1)], data[end:]
        if self._delays is not None:
            arrived = now()
            self._delays += [arrived - self._sent[int(n)] for n in re.findall(rb'"n":"(\d+)"', whole)]
        self.seen += lines


async def _fanout(server: Server, settings: Settings, storage: str, writers: int) -> None:
    """Events to many watchers of one resource: written one by one for the delay, many at once for the rate."""
    watchers, writes = (20, 20) if settings.smoke else (WATCHERS, FANOUT_WRITES)
    path, label = '/api/v1/namespaces/default/configmaps', f'{storage}-{writers}'
    sent: dict[int, float] = {}
    delays: list[float] = []
    loop = asyncio.get_running_loop()
    async with connected(server, writers) as connections:
        opening = request('GET', f'{path}?watch=true&resourceVersion={await _rv(connections[0])}')
        opened = [
            await loop.create_connection(
                partial(Watching, opening, sent, delays if i < TIMED_WATCHERS else None), '127.0.0.1', server.port,
                ssl=server.tls,
            )
            for i in range(watchers)
        ]  # fmt: skip
        watches = [protocol for _, protocol in opened]

        async def write(connection: Connection, numbers: Iterator[int]) -> None:
            for i in numbers:
                body = orjson.dumps({'metadata': {'name': f'f-{label}-{i}'}, 'data': {'n': str(i)}})
                sent[i] = now()
                status, _ = await connection.call(request('POST', path, body))
                assert status == 201

        while not all(w.seen == 0 for w in watches):
            await asyncio.sleep(0.01)
        began, cpu = now(), server.cpu_s()
        numbers = iter(range(writes))
        await asyncio.gather(*(write(c, numbers) for c in connections))
        while not all(w.seen >= writes for w in watches):
            await asyncio.sleep(0.002)
        seconds = now() - began
        for transport, _ in opened:
            transport.close()
    figures, delivered = Figures(), watchers * writes
    delays.sort()
    figures.add(
        events_per_s=delivered / seconds, p50_ms=percentile(delays, 0.5) * 1000, p99_ms=percentile(delays, 0.99) * 1000,
        server_us_per_event=(server.cpu_s() - cpu) / delivered * 1e6,
    )  # fmt: skip
    emit('api', f'{storage}/watch-{watchers}/{writers}-writers', figures)


async def _rv(connection: Connection) -> str:
    _, body = await connection.call(request('GET', '/api/v1/namespaces/default/configmaps'))
    return str(orjson.loads(body)['metadata']['resourceVersion'])


async def _measure(server: Server, settings: Settings, storage: str) -> None:
    async with connected(server, 1) as (connection,):
        # Every namespace of a cluster has it; a create that does not find it asks the store once more.
        account = request('POST', '/api/v1/namespaces/default/serviceaccounts', b'{"metadata":{"name":"default"}}')
        status, answer = await connection.call(account)
        assert status == 201, answer
    await _rates(server, settings, storage)
    await _large_list(server, settings, storage)
    for writers in FANOUT_WRITERS:
        await _fanout(server, settings, storage, writers)


def _storages(smoke: bool, stack: contextlib.ExitStack) -> Iterator[tuple[str, str]]:
    """(name, URL); the store is started when its turn comes."""
    yield 'memory', 'memory://'
    if not smoke:
        target = stack.enter_context(kstore())
        yield 'kstore', 'kstore://' + ','.join(f'{h}:{p}' for h, p in target.endpoints)


@contextlib.contextmanager
def _bytecode_kept() -> Iterator[None]:
    """As where the package is installed: Python finds its modules compiled, whatever the environment says here."""
    with tempfile.TemporaryDirectory(prefix='bench-api-') as directory:
        os.environ['PYTHONPYCACHEPREFIX'] = directory
        os.environ['PYTHONDONTWRITEBYTECODE'] = ''
        with serving('memory://', Path(directory)):
            yield


def _cold_start(settings: Settings) -> None:
    figures = Figures()
    with contextlib.nullcontext() if settings.smoke else _bytecode_kept():
        for _ in range(1 if settings.smoke else COLD_STARTS):
            with contextlib.ExitStack() as stack:
                directory = stack.enter_context(tempfile.TemporaryDirectory(prefix='bench-api-'))
                server, took = stack.enter_context(serving('memory://', Path(directory)))
                figures.add(ready_ms=took * 1000, cpu_ms=server.cpu_s() * 1000, rss_mb=rss_mb(server.pid))
    emit('api', 'cold-start', figures)


def run(settings: Settings) -> None:
    _cold_start(settings)
    with contextlib.ExitStack() as stack:
        for name, url in _storages(settings.smoke, stack):
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix='bench-api-'))
            server, _ = stack.enter_context(serving(url, Path(directory)))
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_measure(server, settings, name))
