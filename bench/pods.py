"""Pods on a real node agent in a real cluster: from create to Running, starts per second, what the agent costs.

The cluster has one store member and one node; pods are bound at creation, so that the scheduler is no part of the
figures. `create → Running` is seen by a watch in this process. Idle figures are of an agent whose pods do nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from bench.common import Figures, Settings, emit, latencies, now
from kclient.api import Client
from kclient.kubeconfig import load
from kcore.env import Env
from kcore.meta.gvk import PODS
from kcore.tasks import start

Obj = dict[str, Any]

RATE_PER_S = 10
BURST = 100
IDLE_AT = (0, 110, 250)
"""A node has 253 pod addresses: its part of the cluster's range is a /24."""
PORT_BASE = 11900
NODE = 'node-1'
ROOT = Path(__file__).resolve().parent.parent


@contextlib.contextmanager
def cluster() -> Iterator[Path]:
    """Its data directory."""
    with tempfile.TemporaryDirectory(prefix='bench-pods-') as directory:
        data = Path(directory) / 'cluster'
        kctl = [sys.executable, '-m', 'kctl', 'cluster']
        where = ['--data-dir', str(data)]
        try:
            subprocess.run(
                [*kctl, 'up', *where, '--port-base', str(PORT_BASE), '--stores', '1', '--nodes', '1'],
                check=True, cwd=ROOT, stdout=subprocess.DEVNULL, env={**os.environ, 'KNODE_PODS': '1000'},
            )  # fmt: skip
            yield data
        finally:
            subprocess.run([*kctl, 'down', *where], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def make_pod(name: str) -> Obj:
    return {
        'metadata': {'name': name, 'namespace': 'default', 'labels': {'bench': 'pods'}},
        'spec': {
            'nodeName': NODE,
            'terminationGracePeriodSeconds': 1,
            'containers': [{'name': 'c', 'image': 'busybox', 'command': ['sleep', '100000']}],
        },
    }


class Watcher:
    """Knows which pods run, and when that was first seen."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.running: dict[str, float] = {}
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
                self._changed.set()

    async def until_running(self, names: set[str]) -> None:
        while not names <= self.running.keys():
            self._changed.clear()
            await self._changed.wait()

    async def until_gone(self) -> None:
        while self.known:
            self._changed.clear()
            await self._changed.wait()


class Bench:
    def __init__(self, client: Client, watcher: Watcher, agent: psutil.Process) -> None:
        self._client, self._watcher, self._agent = client, watcher, agent
        self._serial = 0

    async def _create(self, born: dict[str, float]) -> None:
        self._serial += 1
        name = f'bench-{self._serial}'
        born[name] = now()
        await self._client.create(PODS, make_pod(name))

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
        """All at once: how many a second come to run."""
        born: dict[str, float] = {}
        began = now()
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                start(group, 'create', self._create(born))
        await self._watcher.until_running(set(born))
        figures.add(starts_per_s=count / (now() - began))

    async def fill(self, count: int) -> None:
        born: dict[str, float] = {}
        while len(self._watcher.running) < count:
            missing = min(BURST, count - len(self._watcher.running))
            async with asyncio.TaskGroup() as group:
                for _ in range(missing):
                    start(group, 'create', self._create(born))
            await self._watcher.until_running(set(born))

    async def idle(self, seconds: float, figures: Figures) -> None:
        before, began = sum(self._agent.cpu_times()[:2]), now()
        await asyncio.sleep(seconds)
        used = sum(self._agent.cpu_times()[:2]) - before
        memory = self._agent.memory_full_info()
        figures.add(cpu_percent=100 * used / (now() - began), rss_mb=memory.rss / 2**20, uss_mb=memory.uss / 2**20)

    async def clear(self) -> None:
        async with asyncio.TaskGroup() as group:
            for name in list(self._watcher.known):
                start(group, 'delete', self._client.delete(PODS, name, 'default', grace_period_s=0))
        await self._watcher.until_gone()
        self._watcher.running.clear()


async def _measure(data: Path, settings: Settings) -> None:
    env = Env.real()
    paced, burst = Figures(), Figures()
    idle = {n: Figures() for n in ((0, 2) if settings.smoke else IDLE_AT)}
    pid = int(json.loads((data / 'run' / f'{NODE}.pid').read_text())['pid'])
    async with Client(load(data / 'kubeconfig', env), env, user_agent='bench') as client:
        watcher = Watcher(client)
        bench = Bench(client, watcher, psutil.Process(pid))
        async with asyncio.TaskGroup() as group:
            watching = start(group, 'watch', watcher.run())
            for _ in range(settings.runs):
                for count, figures in idle.items():
                    await bench.fill(count)
                    await bench.idle(settings.seconds * 2, figures)
                await bench.clear()
                await bench.paced(settings.seconds * 2, paced)
                await bench.clear()
                await bench.burst(2 if settings.smoke else BURST, burst)
                await bench.clear()
            watching.cancel()
    for count, figures in idle.items():
        emit('pods', f'idle, {count} pods', figures)
    emit('pods', f'create to Running, {RATE_PER_S}/s', paced)
    emit('pods', 'burst', burst)


def run(settings: Settings) -> None:
    with cluster() as data:
        asyncio.run(_measure(data, settings))
