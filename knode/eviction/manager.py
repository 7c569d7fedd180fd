"""The eviction loop: levels of this node's signals in, conditions and the ends of pods out."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import structlog

from kcore.env import Env
from kcore.meta import quantity
from knode.config import NodeConfig
from knode.errors import ImageGcFailed
from knode.eviction import disk
from knode.eviction.plan import State, Used, message, over_own_limit, ranked, refusal, step
from knode.eviction.thresholds import CONDITIONS, RESOURCES, Level, Threshold, thresholds
from knode.pods.metrics import KubeletMetrics
from knode.pods.model import Obj, Verdict, containers_of
from knode.pods.resources import limit
from knode.pods.worker import PodWorker
from knode.runtime.shim import host
from knode.stats.collector import Collector
from knode.stats.model import Snapshot

log = structlog.get_logger('knode.eviction')

CLEANUP_S = 30.0
"""How long the next look waits for an evicted pod to be gone."""
EVICTED = 'Evicted'
DISRUPTION = 'TerminationByKubelet'


@dataclass(frozen=True, slots=True)
class _Seen:
    levels: Mapping[str, Level]
    used: Mapping[str, Used]
    """By uid."""


class EvictionManager:
    """
    tell:  called with the conditions when they have changed.
    said:  called with the reason and text of an event about the node.
    free_images:  removes images that nobody uses; returns how many bytes that freed.
    """

    def __init__(
        self,
        config: NodeConfig,
        env: Env,
        workers: Callable[[], Iterable[PodWorker]],
        collector: Collector,
        *,
        metrics: KubeletMetrics,
        tell: Callable[[frozenset[str]], None],
        said: Callable[[str, str], None],
        free_images: Callable[[], Awaitable[int]],
    ) -> None:
        self._config, self._env, self._workers, self._collector = config, env, workers, collector
        self._metrics, self._tell, self._said, self._free_images = metrics, tell, said, free_images
        self._thresholds = thresholds(
            config.eviction_hard, config.eviction_soft, config.eviction_soft_grace_period,
            config.eviction_minimum_reclaim,
        )  # fmt: skip
        self._state = State()
        self.conditions: frozenset[str] = frozenset()

    async def run(self) -> NoReturn:
        while True:
            if await self.look():
                await self._collector.sample()
            else:
                await asyncio.sleep(self._config.stats_period_s)

    async def look(self) -> bool:
        """One look at everything. True: a pod had to go, so look again soon."""
        await self._collector.sampled.wait()
        snapshot = self._collector.snapshot
        assert snapshot is not None
        living = {w.uid: w for w in self._workers() if w.holds_resources and w.checkpoint.verdict is None}
        seen = await self._env.disk.offload(self._see, snapshot, list(living.values()))
        found = step(
            self._state, self._thresholds, seen.levels, self._env.clock.monotonic(),
            self._config.eviction_pressure_transition_period_s,
        )  # fmt: skip
        self._state = found.state
        if found.conditions != self.conditions:
            log.warning('node pressure changed', before=sorted(self.conditions), after=sorted(found.conditions))
            self.conditions = found.conditions
            self._tell(self.conditions)
        greedy = [(living[uid], why) for uid, u in seen.used.items() if (why := over_own_limit(u))[0]]
        for worker, (signal, text) in greedy:
            self._evict(worker, text, 0.0, signal)
        if greedy or found.due is None:
            return bool(greedy)
        return await self._reclaim(found.due, seen, living)

    async def _reclaim(self, due: Threshold, seen: _Seen, living: Mapping[str, PodWorker]) -> bool:
        resource = RESOURCES[due.signal]
        self._said('EvictionThresholdMet', f'Attempting to reclaim {resource}')
        if CONDITIONS[due.signal] == 'DiskPressure' and await self._images_freed():
            return True
        order = ranked(seen.used.values(), due.signal)
        if not order:
            log.warning('no pod can be evicted', signal=due.signal)
            return False
        victim = living[order[0].pod['metadata']['uid']]
        grace = float(self._config.eviction_max_pod_grace_period) if due.grace_s else 0.0
        self._evict(victim, message(order[0], due, seen.levels), grace, due.signal)
        try:
            async with asyncio.timeout(CLEANUP_S + grace):
                await victim.until(lambda w: w.ended or w.removed)
        except TimeoutError:
            log.warning('evicted pod has not ended', object=victim.key)
        return True

    async def _images_freed(self) -> int:
        """How many bytes; 0 also when they could not be removed: then a pod has to go."""
        try:
            return await self._free_images()
        except ImageGcFailed as e:
            log.warning('images not removed', err=str(e))
            return 0

    def _evict(self, worker: PodWorker, text: str, grace_s: float, signal: str) -> None:
        snapshot = self._collector.snapshot
        age = self._env.clock.wall() - snapshot.agent.at if snapshot is not None else timedelta()
        self._metrics.evicted(signal, age.total_seconds())
        log.warning('pod evicted', object=worker.key, why=text.strip())
        worker.announce('Warning', EVICTED, text)
        worker.end(Verdict(EVICTED, text, grace_s, DISRUPTION))

    def verdict(self, pod: Obj) -> Verdict | None:
        """Of a pod that has just been bound here; None: welcome."""
        text = refusal(pod, sorted(self.conditions))
        return Verdict(EVICTED, f'Pod was rejected: {text}') if text else None

    # --- looking; blocking

    def _see(self, snapshot: Snapshot, workers: list[PodWorker]) -> _Seen:
        by_uid = {p.uid: p for p in snapshot.pods}
        budget = bool(self._config.ephemeral_storage)
        tight = budget or 'DiskPressure' in self.conditions
        used = {}
        for worker in workers:
            memory: dict[str, int] = {}
            processes = 0
            if (found := by_uid.get(worker.uid)) is not None:
                memory = {c.name: c.use.memory_bytes for c in found.containers}
                processes = found.use.processes
            # Walking directories costs: only where a limit or a shortage asks for it.
            walk = tight or _limits_disk(worker.pod)
            written, kept, inodes = _files(worker.pod, worker.paths.root) if walk else ({}, {}, 0)
            used[worker.uid] = Used(worker.pod, memory, written, kept, inodes, processes)
        return _Seen(self._levels(used.values()), used)

    def _levels(self, used: Iterable[Used]) -> dict[str, Level]:
        files = os.statvfs(self._config.data_dir)
        nodefs = Level(files.f_bavail * files.f_frsize, files.f_blocks * files.f_frsize)
        if self._config.ephemeral_storage:
            budget = quantity.value(self._config.ephemeral_storage)
            nodefs = Level(budget - sum(u.total('ephemeral-storage') for u in used), budget)
        inodes = Level(files.f_favail, files.f_files)
        memory = Level(self._collector.available_bytes, self._collector.capacity_bytes)
        levels = {'memory.available': memory}
        levels |= {f'{fs}.available': nodefs for fs in ('nodefs', 'imagefs')}
        levels |= {f'{fs}.inodesFree': inodes for fs in ('nodefs', 'imagefs')}
        return levels | _pids()


def _limits_disk(pod: Obj) -> bool:
    return any(limit(c, 'ephemeral-storage') for c, _ in containers_of(pod['spec'])) or any(
        (v.get('emptyDir') or {}).get('sizeLimit') for v in pod['spec'].get('volumes') or ()
    )


def _files(pod: Obj, root: Path) -> tuple[dict[str, int], dict[str, int], int]:
    names = [c['name'] for c, _ in containers_of(pod['spec'])]
    volumes = [v['name'] for v in pod['spec'].get('volumes') or () if 'emptyDir' in v]
    return disk.of_pod(root, names, volumes)


def _pids() -> dict[str, Level]:
    try:
        most = int(host.read_file('/proc/sys/kernel/pid_max'))
        now = int(host.read_file('/proc/loadavg').split()[3].partition(b'/')[2])
    except (OSError, ValueError, IndexError):
        return {}
    return {'pid.available': Level(most - now, most)}
