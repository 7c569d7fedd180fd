"""Controllers in a real cluster: so many ReplicaSets of ten pods until all converge, then what the idle manager costs.

Pods name a scheduler that does not exist and stay pending: neither scheduler nor node agents are part of the figures.
`requests_per_pod` counts everything that the API server answered meanwhile, this process's few reads included.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from bench.common import Figures, Settings, emit, now
from kclient.api import Client
from kclient.informer import Informer
from kclient.kubeconfig import load
from kcore.env import Env
from kcore.meta.gvk import REPLICASETS
from kcore.tasks import start

Obj = dict[str, Any]

PODS_EACH = 10
SETS = 1_000
PARALLEL = 32
PORT_BASE = 11200
ROOT = Path(__file__).resolve().parent.parent


@contextlib.contextmanager
def cluster() -> Iterator[Path]:
    """Its data directory."""
    with tempfile.TemporaryDirectory(prefix='bench-controllers-') as directory:
        data = Path(directory) / 'cluster'
        kctl = [sys.executable, '-m', 'kctl', 'cluster']
        where = ['--data-dir', str(data)]
        try:
            up = [*kctl, 'up', *where, '--port-base', str(PORT_BASE), '--stores', '1', '--nodes', '1']
            subprocess.run(up, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
            yield data
        finally:
            subprocess.run([*kctl, 'down', *where], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def make_set(number: int) -> Obj:
    labels = {'set': f's{number}'}
    spec = {'schedulerName': 'nobody', 'containers': [{'name': 'c', 'image': 'x'}]}
    return {
        'metadata': {'name': f's{number}', 'namespace': 'default'},
        'spec': {
            'replicas': PODS_EACH,
            'selector': {'matchLabels': labels},
            'template': {'metadata': {'labels': labels}, 'spec': spec},
        },
    }


def managers(data: Path) -> list[psutil.Process]:
    pids = [int(json.loads(p.read_text())['pid']) for p in (data / 'run').glob('manager-*.pid')]
    return [psutil.Process(pid) for pid in pids]


def cpu_s(processes: list[psutil.Process]) -> float:
    return sum(p.cpu_times().user + p.cpu_times().system for p in processes)


async def requests(client: Client) -> float:
    """Answered by the API server so far."""
    response = await client.request('GET', '/metrics')
    text = (await response.read()).decode()
    return sum(float(n) for n in re.findall(r'^apiserver_request_total\{[^}]*\} (\S+)$', text, re.MULTILINE))


async def measure(data: Path, sets: int, idle_s: float) -> Figures:
    env, figures = Env.real(), Figures()
    async with Client(load(data / 'kubeconfig', env), env, user_agent='bench') as client, asyncio.TaskGroup() as group:
        informer, changed = Informer(client, REPLICASETS), asyncio.Event()
        informer.on_change(lambda _old, _new: changed.set())
        watching = start(group, 'informer', informer.run())
        await informer.synced()
        processes = managers(data)
        cpu, calls, began = cpu_s(processes), await requests(client), now()
        slots = asyncio.Semaphore(PARALLEL)

        async def create(number: int) -> None:
            async with slots:
                await client.create(REPLICASETS, make_set(number))

        await asyncio.gather(*(create(i) for i in range(sets)))
        while not _converged(informer, sets):
            changed.clear()
            await changed.wait()
        pods = sets * PODS_EACH
        figures.add(
            seconds=now() - began,
            pods_per_s=pods / (now() - began),
            requests_per_pod=(await requests(client) - calls) / pods,
            cpu_ms_per_pod=(cpu_s(processes) - cpu) * 1000 / pods,
            rss_mb=max(p.memory_info().rss for p in processes) / 2**20,
        )
        await asyncio.sleep(min(idle_s, 5.0))  # events and garbage of the burst
        cpu, began = cpu_s(processes), now()
        await asyncio.sleep(idle_s)
        figures.add(idle_cpu_percent=(cpu_s(processes) - cpu) * 100 / (now() - began))
        watching.cancel()
    return figures


def _converged(informer: Informer, sets: int) -> bool:
    done = sum((rs.get('status') or {}).get('replicas') == PODS_EACH for rs in informer.store.list())
    return done >= sets


def run(settings: Settings) -> None:
    sets, idle_s = (10, 1.0) if settings.smoke else (SETS, 10 * settings.seconds)
    with cluster() as data:
        figures = asyncio.run(measure(data, sets, idle_s))
    emit('controllers', f'{sets} ReplicaSets × {PODS_EACH}', figures)
