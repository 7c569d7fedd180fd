"""A noisy neighbour: how long a quiet client and a controller's lease wait while another client floods the server.

Three clients with certificates of their own: `quiet` reads a pod at a steady pace, the controller manager renews its
lease, and `flood` keeps a hundred times as many requests under way as either, as fast as they are answered. `ratio` is
the 99th percentile under the flood over the one without it, measured in turn on one server, over all rounds.

What is measured is the server, so the flood, which in life has a machine of its own, has a process of its own with the
lowest priority. `..._cpu` tells what share of a core each side took, `flood_times` how many requests of the flood
were answered for one of the quiet client's: with less than a hundred the server was too slow to be flooded more.

Cases: `read` floods with reads of a pod, `write` with patches of it, `list` with lists of five hundred pods, `refused`
with tokens that nobody knows, `probe` with health checks, which are exempt for everybody, `connect` with a new
connection for each request.
"""

from __future__ import annotations

import asyncio
import dataclasses
import multiprocessing
import os
import ssl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import orjson
import uvloop

from bench.api import PODS, Server, connected, pod, request, serving
from bench.common import Figures, Settings, cpu_s, emit, now, percentile
from kcore.env import Env
from kctl.local.pki import Authority, Leaf

FLOOD_CONNECTIONS = 100
PACE_S = 0.02
ROUNDS = 2
WARM_S = 0.3
LISTED = 500
FLOOD_ARRIVES_S = 60.0
LOWEST_PRIORITY = 19
LEASES = '/apis/coordination.k8s.io/v1/namespaces/kube-system/leases'
MANAGER = 'system:kube-controller-manager'


def known_as(server: Server, directory: Path, name: str) -> Server:
    """The server as one user sees it."""
    authority = Authority(directory / 'pki', Env.real())
    tls = ssl.create_default_context(cafile=str(authority.file))
    tls.load_cert_chain(*authority.ensure(Leaf(name.replace(':', '-'), name)))
    return dataclasses.replace(server, tls=tls)


async def allow(admin: Server, listed: int) -> None:
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
        for number in range(listed):
            await connection.call(request('POST', PODS, pod(f'listed-{number}')))


async def paced(server: Server, seconds: float, make: Callable[[int], bytes]) -> list[float]:
    """Latencies of one request at a time, every PACE_S; whatever is not answered with 200 is an error."""
    times: list[float] = []
    async with connected(server, 1) as (connection,):
        end = now() + seconds
        while (begun := now()) < end:
            status, answer = await connection.call(make(len(times)))
            if status != 200:
                raise RuntimeError(f'{status}: {answer[:200]!r}')
            times.append(now() - begun)
            await asyncio.sleep(max(0.0, begun + PACE_S - now()))
    return times


def _floods() -> dict[str, bytes]:
    """The request that each case floods with."""
    label = b'{"metadata":{"labels":{"a":"b"}}}'
    read = request('GET', f'{PODS}/flood')
    return {
        'read': read,
        'write': request('PATCH', f'{PODS}/flood', label, 'application/merge-patch+json'),
        'list': request('GET', f'{PODS}?limit={LISTED}'),
        'refused': read.replace(b'Host: x', b'Host: x\r\nAuthorization: Bearer unknown'),
        'probe': request('GET', '/livez'),
        'connect': read,
    }


class Flood(Protocol):
    """What the flooding process tells."""

    answered: Any
    arrived: Any
    """Set when every client has been answered once."""


async def _flood(server: Server, case: str, connections: int, flood: Flood) -> None:
    data = _floods()[case]
    first = asyncio.Barrier(connections + 1)

    async def client() -> None:
        begun = False
        while True:
            async with connected(server, 1) as (connection,):
                while True:
                    await connection.call(data)
                    flood.answered.value += 1
                    if not begun:
                        begun = True
                        await first.wait()
                    if case == 'connect':
                        break

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(client())
        await first.wait()
        flood.arrived.set()


def _flooder(port: int, directory: Path, case: str, connections: int, flood: Flood) -> None:
    os.nice(LOWEST_PRIORITY)
    anonymous = Server(port, 0, ssl.create_default_context(cafile=str(Authority(directory / 'pki', Env.real()).file)))
    server = anonymous if case in {'refused', 'probe'} else known_as(anonymous, directory, 'flood')
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_flood(server, case, connections, flood))


@dataclasses.dataclass
class Flooding:
    pid: int
    answered: Any
    arrived: Any


@contextmanager
def flooding(server: Server, directory: Path, case: str, connections: int) -> Iterator[Flooding]:
    """A flood at its height."""
    context = multiprocessing.get_context('spawn')
    flood = Flooding(0, context.Value('Q', 0, lock=False), context.Event())
    child = context.Process(target=_flooder, args=(server.port, directory, case, connections, flood))
    child.start()
    assert child.pid is not None
    flood.pid = child.pid
    try:
        if not flood.arrived.wait(FLOOD_ARRIVES_S):
            raise RuntimeError(f'the flood did not come up within {FLOOD_ARRIVES_S} s')
        yield flood
    finally:
        child.kill()
        child.join()


async def both(quiet: Server, manager: Server, seconds: float) -> tuple[list[float], list[float]]:
    read = request('GET', f'{PODS}/quiet')

    def renewal(number: int) -> bytes:
        body = b'{"spec":{"leaseTransitions":%d}}' % number
        return request('PATCH', f'{LEASES}/bench', body, 'application/merge-patch+json')

    quiet_times, lease_times = await asyncio.gather(
        paced(quiet, seconds, lambda _: read), paced(manager, seconds, renewal)
    )
    return quiet_times, lease_times


class Case:
    """All rounds of one kind of flood."""

    def __init__(self) -> None:
        self.figures = Figures()
        self.times: dict[str, tuple[list[float], list[float]]] = {'quiet': ([], []), 'lease': ([], [])}
        """Latencies without and with the flood."""

    def add(self, number: int, times: tuple[list[float], list[float]]) -> None:
        for (_, kept), taken in zip(self.times.items(), times, strict=True):
            kept[number].extend(taken)

    def sum_up(self) -> Figures:
        for who, (alone, crowded) in self.times.items():
            for rank, p in (('p50', 0.5), ('p99', 0.99)):
                first, second = percentile(sorted(alone), p), percentile(sorted(crowded), p)
                self.figures.add(**{f'{who}_{rank}_ms': first * 1000, f'{who}_{rank}_flooded_ms': second * 1000,
                                    f'{who}_{rank}_ratio': second / first})  # fmt: skip
        self.figures.add(quiet_samples=len(self.times['quiet'][1]))
        return self.figures


def measure(runner: asyncio.Runner, directory: Path, admin: Server, name: str, settings: Settings) -> Figures:
    quiet, manager = known_as(admin, directory, 'quiet'), known_as(admin, directory, MANAGER)
    case = Case()
    for _ in range(1 if settings.smoke else ROUNDS * settings.runs):
        case.add(0, runner.run(both(quiet, manager, settings.seconds)))
        connections = 5 if settings.smoke else FLOOD_CONNECTIONS
        with flooding(admin, directory, name, connections) as flood:
            pids = {'server': admin.pid, 'flood': flood.pid, 'clients': os.getpid()}
            begun, answered, before = now(), flood.answered.value, {who: cpu_s(pid) for who, pid in pids.items()}
            times = runner.run(both(quiet, manager, settings.seconds))
            took, answered = now() - begun, flood.answered.value - answered
            case.figures.add(**{f'{who}_cpu': (cpu_s(pid) - before[who]) / took for who, pid in pids.items()})
        case.add(1, times)
        case.figures.add(flood_per_s=answered / took, flood_times=answered / max(len(times[0]), 1))
    return case.sum_up()


def run(settings: Settings) -> None:
    with tempfile.TemporaryDirectory(prefix='bench-fairness-') as name:
        directory = Path(name)
        loop = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        with serving('memory://', directory, ()) as (admin, _), loop as runner:
            runner.run(allow(admin, 5 if settings.smoke else LISTED))
            runner.run(both(known_as(admin, directory, 'quiet'), known_as(admin, directory, MANAGER), WARM_S))
            for case in filter(partial(settings.wants, 'fairness'), _floods()):
                emit('fairness', case, measure(runner, directory, admin, case, settings))
