"""Samples the node, its pods and itself at a fixed period and keeps the latest snapshot.

Every reader gets the same snapshot, so several API servers and scrapers agree, and asking costs no sampling. The
process table is read off the loop; which pods there are is decided on it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

import psutil

from kcore.env import Clock, Env
from kcore.meta import quantity
from kcore.meta.times import format_time
from knode.config import NodeConfig
from knode.runtime import usage
from knode.runtime.driver import Handle, Record, RuntimeDriver, Stats
from knode.stats.model import NS, ContainerUse, Meter, PodUse, Reading, Snapshot, Use, together

if TYPE_CHECKING:
    from knode.pods.worker import PodWorker


@dataclass(frozen=True, slots=True)
class _Target:
    """One pod to be read, taken from its worker on the loop."""

    namespace: str
    name: str
    uid: str
    start_time: str
    driver: RuntimeDriver
    handle: Handle
    records: Mapping[str, Record]


@dataclass(frozen=True, slots=True)
class _Found:
    """What one pass saw."""

    machine: Reading
    agent: Reading
    pods: list[tuple[_Target, dict[str, Reading]]]


class _Meters:
    """One pod's meters, and the CPU time of its containers that are gone."""

    def __init__(self) -> None:
        self.containers: dict[str, Meter] = {}
        self.last: dict[str, Use] = {}
        self.retired_ns = 0


class Collector:
    def __init__(self, config: NodeConfig, env: Env, workers: Callable[[], Iterable[PodWorker]]) -> None:
        self._env, self._workers, self._period_s = env, workers, config.stats_period_s
        self._budget = bool(config.cpu or config.memory)
        self.capacity_bytes = quantity.value(config.memory) if config.memory else psutil.virtual_memory().total
        self._machine, self._agent = Meter(), Meter()
        self._pods: dict[str, _Meters] = {}
        self.snapshot: Snapshot | None = None
        self.sampled = asyncio.Event()
        """There is a snapshot."""

    @property
    def available_bytes(self) -> int:
        """Memory that the node could still give: of its budget, or of the machine."""
        used = self.snapshot.node.memory_bytes if self.snapshot else 0
        return self.capacity_bytes - used

    async def run(self) -> NoReturn:
        while True:
            await self.sample()
            await asyncio.sleep(self._period_s)

    async def sample(self) -> Snapshot:
        found = await self._env.disk.offload(_read, self._env.clock, self._targets())
        self.snapshot = self._account(found)
        self.sampled.set()
        return self.snapshot

    def _targets(self) -> list[_Target]:
        found = []
        for worker in self._workers():
            meta, handle = worker.pod['metadata'], worker.checkpoint.handle
            if handle is not None:
                records = {r.id: r for r in worker.driver.observe(handle) if r.running}
                start_time = worker.checkpoint.start_time or format_time(self._env.clock.wall())
                found.append(
                    _Target(
                        meta['namespace'], meta['name'], worker.uid, start_time, worker.driver, handle, records
                    )
                )  # fmt: skip
        return found

    def _account(self, found: _Found) -> Snapshot:
        pods = tuple(self._pod(target, readings, found.machine) for target, readings in found.pods)
        known = {p.uid for p in pods}
        for uid in self._pods.keys() - known:
            del self._pods[uid]
        machine, agent = self._machine.add(found.machine), self._agent.add(found.agent)
        return Snapshot(self._node(machine, agent, pods), agent, pods)

    def _node(self, machine: Use, agent: Use, pods: Iterable[PodUse]) -> Use:
        """A node that is told its capacity is a part of the machine: what it uses is what runs on its behalf."""
        return together([agent, *(p.use for p in pods)], machine.at) if self._budget else machine

    def _pod(self, target: _Target, readings: Mapping[str, Reading], now: Reading) -> PodUse:
        meters = self._pods.setdefault(target.uid, _Meters())
        for container_id in meters.containers.keys() - readings.keys():
            del meters.containers[container_id]
            meters.retired_ns += meters.last.pop(container_id).cpu_ns
        containers = []
        for container_id, reading in readings.items():
            record = target.records[container_id]
            if container_id not in meters.containers:
                age = now.at.timestamp() - record.started_ns / NS
                # A container that ran before the agent did has used what nobody saw: only a young one began at zero.
                fresh = self.snapshot is not None and age <= 2 * self._period_s
                meters.containers[container_id] = Meter(now.monotonic_s - age if fresh else None)
            use = meters.last[container_id] = meters.containers[container_id].add(reading)
            image = str(record.meta.get('image') or '')
            containers.append(ContainerUse(container_id, record.name, image, record.started_ns, use))
        total = together([c.use for c in containers], now.at, meters.retired_ns)
        return PodUse(
            target.namespace, target.name, target.uid, target.start_time,
            sorted(containers, key=lambda c: c.name), total,
        )  # fmt: skip


def _read(clock: Clock, targets: Iterable[_Target]) -> _Found:
    """Blocking."""
    own = usage.of_process(os.getpid()) or Stats(0, 0, 0)
    agent = _reading(clock, own)
    pods = []
    for target in targets:
        found = target.driver.stats(target.handle)
        pods.append((target, {i: _reading(clock, s) for i, s in found.items() if i in target.records}))
    return _Found(_machine(clock), agent, pods)


def _reading(clock: Clock, stats: Stats) -> Reading:
    return Reading(clock.wall(), clock.monotonic(), stats.cpu_ns, stats.rss_bytes, stats.processes)


def _machine(clock: Clock) -> Reading:
    times, memory = psutil.cpu_times(), psutil.virtual_memory()
    busy = sum(getattr(times, k, 0.0) for k in ('user', 'nice', 'system', 'irq', 'softirq', 'steal'))
    reading = Reading(clock.wall(), clock.monotonic(), int(busy * NS), memory.total - memory.available)
    return replace(reading, processes=len(psutil.pids()))
