"""Memory limits where no kernel holds containers to them: look once a second, kill what is over its limit.

The victim's record says OOMKilled and its exit code is 137, as if the kernel had done it. Between two looks a container
can use more than it may: `RLIMIT_DATA` bounds how much. Memory that processes of a container share is counted once
before anything is killed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NoReturn

import structlog

from kcore.env import Env
from knode.errors import ShimError
from knode.pods.model import Obj, containers_of
from knode.pods.resources import limit
from knode.pods.worker import PodWorker
from knode.runtime.driver import Handle, Record, RuntimeDriver, Stats

log = structlog.get_logger('knode.watchdog')

PERIOD_S = 1.0
OOM_KILLED = 'OOMKilled'


def suspects(pod: Obj, running: Mapping[str, Record], used: Mapping[str, int]) -> list[tuple[Record, int]]:
    """Containers that seem to be over a limit, and that limit in bytes; of a pod over its own, the largest one.

    running:  by container name.
    used:     bytes by container id.
    """
    found = []
    for c, _ in containers_of(pod['spec']):
        most, record = limit(c, 'memory'), running.get(c['name'])
        if most and record is not None and used.get(record.id, 0) > most:
            found.append((record, most))
    whole = limit(pod['spec'], 'memory')
    total = sum(used.get(r.id, 0) for r in running.values())
    if not found and whole and total > whole:
        largest = max(running.values(), key=lambda r: used.get(r.id, 0))
        found.append((largest, whole - total + used.get(largest.id, 0)))
    return found


def is_limited(pod: Obj) -> bool:
    return bool(limit(pod['spec'], 'memory')) or any(limit(c, 'memory') for c, _ in containers_of(pod['spec']))


@dataclass(frozen=True, slots=True)
class _Watched:
    worker: PodWorker
    pod: Obj
    driver: RuntimeDriver
    handle: Handle
    running: Mapping[str, Record]


class Watchdog:
    def __init__(self, env: Env, workers: Callable[[], Iterable[PodWorker]]) -> None:
        self._env, self._workers = env, workers

    async def run(self) -> NoReturn:
        while True:
            await self.look()
            await asyncio.sleep(PERIOD_S)

    async def look(self) -> None:
        watched = [w for worker in self._workers() if (w := _watched(worker)) is not None]
        if not watched:
            return
        for target, record, used, most in await self._env.disk.offload(_over, watched):
            log.warning('container is over its memory limit', object=target.worker.key, container=record.name,
                        used_bytes=used, limit_bytes=most)  # fmt: skip
            try:
                await target.worker.kill(record, OOM_KILLED)
            except ShimError as e:
                log.info('container was gone before it could be killed', container=record.name, err=str(e))


def _watched(worker: PodWorker) -> _Watched | None:
    handle = worker.checkpoint.handle
    if handle is None or worker.driver.capabilities.limits_memory or not is_limited(worker.pod):
        return None
    running = {r.name: r for r in worker.driver.observe(handle) if r.running}
    return _Watched(worker, worker.pod, worker.driver, handle, running) if running else None


def _over(watched: Iterable[_Watched]) -> list[tuple[_Watched, Record, int, int]]:
    """Blocking: reads the process table. What stays over its limit when shared memory is counted once."""
    found = []
    for w in watched:
        stats: Mapping[str, Stats] = w.driver.stats(w.handle)
        for record, most in suspects(w.pod, w.running, {i: s.rss_bytes for i, s in stats.items()}):
            used = w.driver.memory_bytes(w.handle, record.id)
            if used > most:
                found.append((w, record, used, most))
    return found
