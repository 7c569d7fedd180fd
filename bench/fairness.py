"""A noisy neighbour: how long a quiet client and a controller's lease wait while another client floods the server.

Three clients with certificates of their own: `quiet` reads a pod at a steady pace, the controller manager renews its
lease, and `flood` (from a process of its own) keeps a hundred times as many requests under way. `ratio` is the 99th
percentile under the flood over the one without it, measured in turn on one server.
"""

from __future__ import annotations

import asyncio
import dataclasses
import multiprocessing
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import uvloop

from bench.api import PODS, Server, connected, pod, request, serving
from bench.common import Figures, Settings, emit, now, percentile
from kcore.env import Env
from kctl.local.pki import Authority, Leaf

FLOOD_CONNECTIONS = 100
PACE_S = 0.02
LEASES = '/apis/coordination.k8s.io/v1/namespaces/kube-system/leases'
MANAGER = 'system:kube-controller-manager'


def known_as(server: Server, directory: Path, name: str) -> Server:
    """The server as one user sees it."""
    authority = Authority(directory / 'pki', Env.real())
    tls = ssl.create_default_context(cafile=str(authority.file))
    tls.load_cert_chain(*authority.ensure(Leaf(name.replace(':', '-'), name)))
    return dataclasses.replace(server, tls=tls)


async def allow(admin: Server) -> None:
    """The objects of the measurement, and the right for everybody to read and write pods."""
    group = 'rbac.authorization.k8s.io'
    binding = {
        'metadata': {'name': 'everybody'}, 'roleRef': {'kind': 'ClusterRole', 'name': 'edit', 'apiGroup': group},
        'subjects': [{'kind': 'Group', 'name': 'system:authenticated', 'apiGroup': group}],
    }  # fmt: skip
    lease = {'metadata': {'name': 'bench'}, 'spec': {'holderIdentity': 'bench', 'leaseDurationSeconds': 15}}
    async with connected(admin, 1) as (connection,):
        for path, body in (
            (f'/apis/{group}/v1/clusterrolebindings', orjson.dumps(binding)),
            (LEASES, orjson.dumps(lease)), (PODS, pod('quiet')), (PODS, pod('flood')),
        ):  # fmt: skip
            status, answer = await connection.call(request('POST', path, body))
            assert status == 201, answer


async def paced(server: Server, seconds: float, data: bytes) -> list[float]:
    """Latencies of one request at a time, every PACE_S; whatever is not answered with 200 is an error."""
    times: list[float] = []
    async with connected(server, 1) as (connection,):
        end = now() + seconds
        while (begun := now()) < end:
            status, answer = await connection.call(data)
            if status != 200:
                raise RuntimeError(f'{status}: {answer[:200]!r}')
            times.append(now() - begun)
            await asyncio.sleep(max(0.0, begun + PACE_S - now()))
    return sorted(times)


async def _flood(server: Server, connections: int) -> None:
    data = request('GET', f'{PODS}/flood')
    async with connected(server, connections) as opened:

        async def forever(number: int) -> None:
            while True:
                await opened[number].call(data)

        await asyncio.gather(*(forever(i) for i in range(connections)))


def _flooder(port: int, pid: int, directory: Path, connections: int) -> None:
    server = known_as(Server(port, pid, ssl.create_default_context()), directory, 'flood')
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_flood(server, connections))


@contextmanager
def flooding(server: Server, directory: Path, connections: int) -> Iterator[None]:
    context = multiprocessing.get_context('spawn')
    child = context.Process(target=_flooder, args=(server.port, server.pid, directory, connections))
    child.start()
    try:
        yield
    finally:
        child.kill()
        child.join()


async def flooded(server: Server) -> float:
    """Wait until the flood is there; the server's share of a core by then."""
    busy = 0.0
    while busy < 0.5:
        cpu, begun = server.cpu_s(), now()
        await asyncio.sleep(0.2)
        busy = (server.cpu_s() - cpu) / (now() - begun)
    return busy


async def both(quiet: Server, manager: Server, seconds: float) -> tuple[list[float], list[float]]:
    renewal = request('PATCH', f'{LEASES}/bench', b'{"spec":{"leaseTransitions":1}}', 'application/merge-patch+json')
    read = request('GET', f'{PODS}/quiet')
    quiet_times, lease_times = await asyncio.gather(paced(quiet, seconds, read), paced(manager, seconds, renewal))
    return quiet_times, lease_times


def run(settings: Settings) -> None:
    connections = 5 if settings.smoke else FLOOD_CONNECTIONS
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix='bench-fairness-') as name:
        directory = Path(name)
        with serving('memory://', directory, ()) as (admin, _):
            quiet, manager = known_as(admin, directory, 'quiet'), known_as(admin, directory, MANAGER)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(allow(admin))
                for _ in range(settings.runs):
                    alone = runner.run(both(quiet, manager, settings.seconds))
                    with flooding(admin, directory, connections):
                        if not settings.smoke:
                            runner.run(flooded(admin))
                        crowded = runner.run(both(quiet, manager, settings.seconds))
                    for who, before, under in zip(('quiet', 'lease'), alone, crowded, strict=True):
                        for rank, p in (('p50', 0.5), ('p99', 0.99)):
                            first, second = percentile(before, p), percentile(under, p)
                            figures.add(**{f'{who}_{rank}_ms': first * 1000, f'{who}_{rank}_flooded_ms': second * 1000,
                                           f'{who}_{rank}_ratio': second / first})  # fmt: skip
    emit('fairness', f'{connections} connections flood', figures)
