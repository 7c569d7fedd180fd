"""Pods on real node agents in a real cluster: from create to Running, starts per second, logs, what an agent costs.

The cluster has one store member; pods are bound at creation, so that the scheduler is no part of the figures.
`create → Running` is seen by a watch in this process. All but the last idle figure are of one agent; 500 pods need
three, whose CPU is summed and of whose memory the largest is shown. CPU per start is what counts on a busy machine: its
sum over all processes divides the machine's cores into the starts a second that it can reach.
Agents of a local cluster are forks of one process: `rss` counts what all of them share, `pss` each one's part of it.
A start makes some fifteen files. On ext4 without a journal they cost the more, the more files anybody deleted in the
last minutes, since the kernel passes over each freed inode: so what many pods cost is measured last, and TMPDIR names
another file system.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from bench.common import Figures, Settings, emit, latencies, now
from kclient.api import Client
from kclient.kubeconfig import load
from kcore.env import Env
from kcore.meta.gvk import PODS
from kcore.tasks import start
from knode.runtime.shim import host

Obj = dict[str, Any]


class BenchError(Exception):
    """What was measured did not work."""


RATE_PER_S = 10
WARM, BURST = 10, 100
IDLE_AT = (0, 110, 500)
FIRST_NODE_MOST = 110
SETTLE_S = 5.0
"""From the last start or end until events and statuses have been sent and an agent is idle."""
LOG_LINE, LOG_LINES = 'x' * 99, 200_000
PORT_BASE = 11900
NODES = ('node-1', 'node-2', 'node-3')
"""A node has 253 pod addresses: its part of the cluster's range is a /24."""
ROOT = Path(__file__).resolve().parent.parent


class Costs:
    """CPU time of the cluster's processes, by part: what the kernel has on its clock, no ticks."""

    def __init__(self, data: Path) -> None:
        self._components = {
            path.stem: int(json.loads(path.read_text())['pid']) for path in (data / 'run').glob('*-*.pid')
        }

    def agents(self) -> list[psutil.Process]:
        return [psutil.Process(self._components[node]) for node in NODES]

    def now(self) -> dict[str, dict[int, float]]:
        """Part → process → milliseconds so far."""
        parts: dict[str, dict[int, float]] = {'bench': _used_ms([os.getpid()])}
        for name, pid in self._components.items():
            parts.setdefault(name.partition('-')[0], {}).update(_used_ms([pid]))
        pids = [self._components[node] for node in NODES]
        for part in ('zygote', 'shims', 'containers'):
            pids = [child for pid in pids for child in host.children(pid)]
            parts[part] = _used_ms(pids)
        return parts

    def since(self, before: Mapping[str, Mapping[int, float]]) -> dict[str, float]:
        """Part → milliseconds used since then by the processes that are there now."""
        return {
            part: sum(ms - before[part].get(pid, 0.0) for pid, ms in used.items()) for part, used in self.now().items()
        }


def _used_ms(pids: Iterable[int]) -> dict[int, float]:
    """Of all threads; a process that is gone is left out. The first field of schedstat is nanoseconds on a CPU."""
    found = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            threads = [Path(f'/proc/{pid}/task/{t}/schedstat').read_text() for t in os.listdir(f'/proc/{pid}/task')]
            found[pid] = sum(int(t.split()[0]) for t in threads) / 1e6
    return found


@contextlib.contextmanager
def cluster() -> Iterator[Path]:
    """Its data directory."""
    with tempfile.TemporaryDirectory(prefix='bench-pods-') as directory:
        data = Path(directory) / 'cluster'
        kctl = [sys.executable, '-m', 'kctl', 'cluster']
        where = ['--data-dir', str(data)]
        try:
            subprocess.run(
                [*kctl, 'up', *where, '--port-base', str(PORT_BASE), '--stores', '1', '--nodes', str(len(NODES))],
                check=True, cwd=ROOT, stdout=subprocess.DEVNULL, env={**os.environ, 'KNODE_PODS': '1000'},
            )  # fmt: skip
            yield data
        finally:
            subprocess.run([*kctl, 'down', *where], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def make_pod(name: str, node: str, command: Sequence[str] = ('sleep', '100000')) -> Obj:
    return {
        'metadata': {'name': name, 'namespace': 'default', 'labels': {'bench': 'pods'}},
        'spec': {
            'nodeName': node,
            'terminationGracePeriodSeconds': 1,
            'containers': [{'name': 'c', 'image': 'busybox', 'command': list(command)}],
            'restartPolicy': 'Never',
        },
    }


class Watcher:
    """Knows which pods run, and when that was first seen."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.running: dict[str, float] = {}
        self.ended: dict[str, float] = {}
        self.known: set[str] = set()
        self._changed = asyncio.Event()

    async def run(self) -> None:
        version = (await self._client.list(PODS, 'default')).resource_version
        while True:
            async for event in self._client.watch(PODS, 'default', resource_version=version):
                meta = event.object['metadata']
                version = meta['resourceVersion']
                if event.type == 'DELETED':
                    self.known.discard(meta['name'])
                elif event.type in {'ADDED', 'MODIFIED'}:
                    self.known.add(meta['name'])
                    if event.object['status'].get('phase') == 'Running':
                        self.running.setdefault(meta['name'], now())
                    if event.object['status'].get('phase') in {'Succeeded', 'Failed'}:
                        self.ended.setdefault(meta['name'], now())
                self._changed.set()

    async def until_running(self, names: set[str]) -> None:
        while not names <= self.running.keys():
            self._changed.clear()
            await self._changed.wait()

    async def until_ended(self, name: str) -> None:
        while name not in self.ended:
            self._changed.clear()
            await self._changed.wait()

    async def until_gone(self) -> None:
        while self.known:
            self._changed.clear()
            await self._changed.wait()


class Bench:
    def __init__(self, client: Client, watcher: Watcher, costs: Costs) -> None:
        self._client, self._watcher, self._costs = client, watcher, costs
        self._agents = costs.agents()
        self._serial = 0

    async def _create(self, born: dict[str, float]) -> None:
        self._serial += 1
        name = f'bench-{self._serial}'
        others = NODES[1:]
        node = NODES[0] if len(self._watcher.running) < FIRST_NODE_MOST else others[self._serial % len(others)]
        born[name] = now()
        await self._client.create(PODS, make_pod(name, node))

    async def paced(self, seconds: float, figures: Figures) -> None:
        """RATE_PER_S creations, whatever becomes of them; the time until each is seen Running."""
        born: dict[str, float] = {}
        began = now()
        async with asyncio.TaskGroup() as group:
            for n in range(int(seconds * RATE_PER_S)):
                await asyncio.sleep(max(0.0, began + n / RATE_PER_S - now()))
                start(group, 'create', self._create(born))
        await self._watcher.until_running(set(born))
        times = [self._watcher.running[n] - t for n, t in born.items()]
        one = latencies(now() - began, times, 'pods_per_s')
        figures.add(**{name: one.median(name) for name in one.values})

    async def burst(self, count: int, figures: Figures) -> None:
        """All at once: how many a second come to run, and what one costs each part of the cluster."""
        born: dict[str, float] = {}
        before, began = self._costs.now(), now()
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                start(group, 'create', self._create(born))
        await self._watcher.until_running(set(born))
        took = now() - began
        await asyncio.sleep(SETTLE_S)
        spent = {part: ms / count for part, ms in self._costs.since(before).items()}
        figures.add(starts_per_s=count / took, cpu_ms_per_start=sum(spent.values()))
        figures.add(**{f'{part}_cpu_ms': ms for part, ms in spent.items()})

    async def logs(self, lines: int, figures: Figures) -> None:
        """One container writes as fast as it can; then the last file of its log is read through the API server."""
        command = ('sh', '-c', f'yes {LOG_LINE} | head -n {lines}')
        self._serial += 1
        name = f'bench-{self._serial}'
        began = now()
        await self._client.create(PODS, make_pod(name, NODES[0], command))
        await self._watcher.until_ended(name)
        line = len(LOG_LINE) + 1
        figures.add(write_mb_per_s=lines * line / 2**20 / (now() - began))
        began = now()
        response = await self._client.request('GET', PODS.path('default', name, 'log'))
        read = len(await response.read())
        if not read or read % line:
            raise BenchError(f'{read} bytes of log were read')
        figures.add(read_mb_per_s=read / 2**20 / (now() - began))

    async def fill(self, count: int) -> None:
        born: dict[str, float] = {}
        while len(self._watcher.running) < count:
            missing = min(BURST, count - len(self._watcher.running))
            async with asyncio.TaskGroup() as group:
                for _ in range(missing):
                    start(group, 'create', self._create(born))
            await self._watcher.until_running(set(born))

    async def idle(self, seconds: float, figures: Figures) -> None:
        await asyncio.sleep(SETTLE_S)
        agents = self._agents if len(self._watcher.running) > FIRST_NODE_MOST else self._agents[:1]
        before, began = [sum(a.cpu_times()[:2]) for a in agents], now()
        await asyncio.sleep(seconds)
        used = sum(sum(a.cpu_times()[:2]) - b for a, b in zip(agents, before, strict=True))
        memory = max((a.memory_full_info() for a in agents), key=lambda m: m.uss)
        figures.add(
            cpu_percent=100 * used / (now() - began), rss_mb=memory.rss / 2**20, pss_mb=memory.pss / 2**20,
            uss_mb=memory.uss / 2**20,
        )  # fmt: skip

    async def clear(self) -> None:
        async with asyncio.TaskGroup() as group:
            for name in list(self._watcher.known):
                start(group, 'delete', self._client.delete(PODS, name, 'default', grace_period_s=0))
        await self._watcher.until_gone()
        await asyncio.sleep(SETTLE_S)
        self._watcher.running.clear()


async def _measure(data: Path, settings: Settings) -> None:
    env = Env.real()
    paced, burst, logs = Figures(), Figures(), Figures()
    idle = {n: Figures() for n in ((0, 2) if settings.smoke else IDLE_AT)}
    async with Client(load(data / 'kubeconfig', env), env, user_agent='bench') as client:
        watcher = Watcher(client)
        bench = Bench(client, watcher, Costs(data))
        async with asyncio.TaskGroup() as group:
            watching = start(group, 'watch', watcher.run())
            for _ in range(settings.runs):
                await bench.idle(settings.seconds * 2, idle[0])
                await bench.fill(WARM)
                await bench.burst(2 if settings.smoke else BURST, burst)
                await bench.clear()
                await bench.paced(settings.seconds * 2, paced)
                await bench.clear()
                await bench.logs(1000 if settings.smoke else LOG_LINES, logs)
                await bench.clear()
                for count in list(idle)[1:]:
                    await bench.fill(count)
                    await bench.idle(settings.seconds * 2, idle[count])
                await bench.clear()
            watching.cancel()
    for count, figures in idle.items():
        emit('pods', f'idle, {count} pods', figures)
    emit('pods', f'create to Running, {RATE_PER_S}/s', paced)
    emit('pods', 'burst', burst)
    emit('pods', 'logs of one container', logs)


def run(settings: Settings) -> None:
    with cluster() as data:
        asyncio.run(_measure(data, settings))
