"""The service proxy against a direct connection: bytes a second, connections a second, round trips, answers to names.

Backend, proxy and client are processes of their own; `cpu_us` is what the proxy's has used for each connection, round
trip or question, and `cpu_ms_per_gb` for each gigabyte. On a machine with fewer cores than processes the rates of both
sides are those of processes that wait for each other, CPU time is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import uvloop
from prometheus_client import CollectorRegistry

from bench.common import Figures, Settings, emit, latencies, now
from kcore.env import Env
from knode.dns import messages
from knode.dns.forward import Forwarder
from knode.dns.server import DnsServer
from knode.dns.zone import Sources, Zone
from knode.proxy.model import Backend, Frontend, Plan, Target
from knode.proxy.ports import Ports
from knode.proxy.work import Work

BACKEND, FRONT, NAMES = '127.20.0.1', '127.20.0.2', '127.20.0.3'
PORT = 18080
BLOCK = bytes(1 << 20)
CLIENTS = 8


@dataclass(frozen=True)
class Side:
    name: str
    host: str
    pid: int
    """Whose CPU time counts."""


async def backend(ready: Connection) -> None:
    """Answers `d` with bytes without end, and everything else with itself; datagrams too."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                while data == b'd':
                    writer.write(BLOCK)
                    await writer.drain()
        writer.close()

    class Datagrams(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: Any) -> None:
            self.transport.sendto(data, addr)

    await asyncio.start_server(serve, BACKEND, PORT, backlog=1024)
    await asyncio.get_running_loop().create_datagram_endpoint(Datagrams, (BACKEND, PORT))
    ready.send(True)
    await asyncio.Event().wait()


async def proxy(ready: Connection) -> None:
    ports = Ports(Work(Env.real().clock, lambda: 24), lambda *_: None)
    target = Target('d/s', 'd/s:x', (Backend(BACKEND, PORT),))
    ports.set('d/s', Plan({Frontend(p, FRONT, PORT): target for p in ('TCP', 'UDP')}, {}))
    ready.send(True)
    await asyncio.Event().wait()


async def names(ready: Connection) -> None:
    service = {
        'metadata': {'name': 'web', 'namespace': 'ns'},
        'spec': {'clusterIP': '127.96.0.5', 'ports': [{'name': 'http', 'port': 80}]},
    }
    sources = Sources({'ns/web': service}.get, lambda ip: [], lambda key: [], lambda ip: [], lambda name: True)
    server = DnsServer(Env.real(), Zone(sources, 'cluster.local', NAMES), Forwarder(list), CollectorRegistry())
    ready.send(True)
    await server.run(NAMES, PORT)


@contextlib.contextmanager
def process(main: Callable[[Connection], Any]) -> Iterator[int]:
    """Its pid, once it serves."""
    mine, its = multiprocessing.Pipe()
    child = multiprocessing.Process(target=lambda: uvloop.run(main(its)), daemon=True)
    child.start()
    mine.recv()
    try:
        yield child.pid or 0
    finally:
        child.kill()
        child.join()


def used_us(pid: int) -> float:
    return int(Path(f'/proc/{pid}/schedstat').read_text().split()[0]) / 1e3


def download(side: Side, seconds: float) -> Figures:
    buffer, total = bytearray(1 << 20), 0
    with socket.create_connection((side.host, PORT)) as client:
        client.sendall(b'd')
        before, began = used_us(side.pid), now()
        while now() - began < seconds:
            total += client.recv_into(buffer)
        took, cpu = now() - began, used_us(side.pid) - before
    found = Figures()
    found.add(mb_per_s=total / took / 1e6, cpu_ms_per_gb=cpu / 1e3 / (total / 1e9))
    return found


def timed(side: Side, seconds: float, once: Callable[[], Any]) -> Figures:
    """One after the other, in this process."""
    times: list[float] = []
    before, end = used_us(side.pid), now() + seconds
    while (started := now()) < end:
        once()
        times.append(now() - started)
    found = latencies(seconds, times)
    found.add(cpu_us=(used_us(side.pid) - before) / len(times))
    return found


def connections(side: Side, seconds: float) -> Figures:
    """A connection, a question and an answer, by several clients at once."""

    async def measure() -> list[float]:
        times: list[float] = []
        end = now() + seconds

        async def one() -> None:
            while (started := now()) < end:
                reader, writer = await asyncio.open_connection(side.host, PORT)
                writer.write(b'x')
                await reader.readexactly(1)
                writer.close()
                times.append(now() - started)

        await asyncio.gather(*(one() for _ in range(CLIENTS)))
        return times

    before = used_us(side.pid)
    times = uvloop.run(measure())
    found = latencies(seconds, times)
    found.add(cpu_us=(used_us(side.pid) - before) / len(times))
    return found


def round_trips(side: Side, seconds: float) -> Figures:
    with socket.create_connection((side.host, PORT)) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return timed(side, seconds, lambda: (client.send(b'x'), client.recv(16)))


def datagrams(side: Side, seconds: float) -> Figures:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect((side.host, PORT))
        return timed(side, seconds, lambda: (client.send(b'x'), client.recv(16)))


def questions(side: Side, seconds: float) -> Figures:
    query = messages.question('web.ns.svc.cluster.local', 'A')
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5.0)
        client.connect((side.host, PORT))
        return timed(side, seconds, lambda: (client.send(query), client.recv(512)))


CASES: dict[str, Callable[[Side, float], Figures]] = {
    'bytes': download,
    f'connections, {CLIENTS} clients': connections,
    'TCP round trips': round_trips,
    'UDP round trips': datagrams,
}


def run(settings: Settings) -> None:
    with process(backend) as behind, process(proxy) as between, process(names) as name_server:
        direct, proxied = Side('direct', BACKEND, behind), Side('proxy', FRONT, between)
        for case, measure in CASES.items():
            mine, peer = Figures(), Figures()
            for _ in range(settings.runs):
                for side, figures in ((proxied, mine), (direct, peer)):
                    for metric, [value] in measure(side, settings.seconds).values.items():
                        figures.add(**{metric: value})
            peer.values.pop('cpu_us', None)  # the backend's, which has another job
            peer.values.pop('cpu_ms_per_gb', None)
            emit('proxy', case, mine, ('direct', peer))
        emit('dns', 'questions', questions(Side('dns', NAMES, name_server), settings.seconds))
