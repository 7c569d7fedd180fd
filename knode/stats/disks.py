"""What is on the node's disk: of the node, and of each pod by container, log and volume.

Pods' parts are found by walking directories, which costs: whoever asks within a minute gets what the last one got.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kcore.env import Env
from knode.eviction.disk import usage
from knode.pods.model import containers_of
from knode.runtime.shim import host
from knode.volumes import claims

if TYPE_CHECKING:
    from knode.pods.worker import PodWorker

Obj = Mapping[str, Any]
KEPT_S = 60.0


@dataclass(frozen=True, slots=True)
class Space:
    """Of one file system, or of a part of it: then what is free is the file system's."""

    available: int
    capacity: int
    used: int
    inodes_free: int
    inodes: int
    inodes_used: int

    def part(self, used: int, inodes_used: int) -> Space:
        return Space(self.available, self.capacity, used, self.inodes_free, self.inodes, inodes_used)


@dataclass(frozen=True, slots=True)
class PodSpace:
    rootfs: Mapping[str, Space] = field(default_factory=dict)
    """By container: what it wrote outside of volumes."""
    logs: Mapping[str, Space] = field(default_factory=dict)
    volumes: Mapping[str, Space] = field(default_factory=dict)
    on_disk: frozenset[str] = frozenset()
    """Volumes that count as the pod's ephemeral storage."""
    claims: Mapping[str, tuple[str, Space]] = field(default_factory=dict)
    """By volume: its claim's name, and the file system that it is on."""


@dataclass(frozen=True, slots=True)
class Found:
    at: datetime
    node: Space
    device: str
    pods: Mapping[str, PodSpace]
    """By uid."""


@dataclass(frozen=True, slots=True)
class _Target:
    uid: str
    root: Path
    spec: Obj
    shim: int
    """Pid of the process that sees the pod's volumes in memory; 0: there are none."""
    memory: frozenset[str]
    claims: Mapping[str, str]
    """By volume: its claim's name."""


def space(path: Path | str) -> Space:
    found = os.statvfs(path)
    return Space(
        found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize,
        (found.f_blocks - found.f_bfree) * found.f_frsize,
        found.f_ffree, found.f_files, found.f_files - found.f_ffree,
    )  # fmt: skip


class Disks:
    def __init__(self, env: Env, data_dir: Path, workers: Callable[[], Iterable[PodWorker]]) -> None:
        self._env, self._data_dir, self._workers = env, data_dir, workers
        self.latest: Found | None = None
        self._until = float('-inf')

    async def look(self) -> Found:
        """At most a minute old."""
        if self.latest is None or self._env.clock.monotonic() >= self._until:
            targets = [_target(w) for w in self._workers() if w.checkpoint.handle is not None]
            self.latest = await self._env.disk.offload(_look, self._env.clock.wall(), self._data_dir, targets)
            self._until = self._env.clock.monotonic() + KEPT_S
        return self.latest


def _target(worker: PodWorker) -> _Target:
    memory = frozenset(Path(p).name for p in worker.volumes.memory(worker.pod))
    handle = worker.checkpoint.handle
    shim = handle.pid if handle is not None and memory and worker.driver.alive(handle) else 0
    pod, spec = worker.pod, worker.pod['spec']
    wanted = {v['name']: claims.name_of(pod, v) for v in spec.get('volumes') or ()}
    return _Target(worker.uid, worker.paths.root, spec, shim, memory, {v: c for v, c in wanted.items() if c})


def _look(at: datetime, data_dir: Path, targets: Iterable[_Target]) -> Found:
    """Blocking."""
    node, number = space(data_dir), os.stat(data_dir).st_dev
    return Found(at, node, _device(f'{os.major(number)}:{os.minor(number)}'), {t.uid: _pod(node, t) for t in targets})


def _device(number: str) -> str:
    """Of the mount table, by its major and minor number; empty: not there."""
    lines = (line.split() for line in host.read_file('/proc/self/mountinfo').decode().splitlines())
    return next((row[row.index('-') + 2] for row in lines if row[2] == number), '')


def _pod(node: Space, t: _Target) -> PodSpace:
    names = [c['name'] for c, _ in containers_of(t.spec)]
    volumes, claimed, on_disk = {}, {}, set()
    for volume in t.spec.get('volumes') or ():
        name, path = volume['name'], t.root / 'volumes' / volume['name']
        if name in t.claims:
            with contextlib.suppress(OSError):  # it is not mounted, or gone from the host
                claimed[name] = t.claims[name], space(path)
        elif 'hostPath' in volume:
            continue
        elif name in t.memory:
            with contextlib.suppress(OSError):  # it has just ended, or this agent may not look into it
                volumes[name] = space(f'/proc/{t.shim}/root{path}')
        else:
            volumes[name] = node.part(*usage(path))
            on_disk.add(name)
    return PodSpace(
        {n: node.part(*usage(t.root / 'containers' / n)) for n in names},
        {n: node.part(*usage(t.root / 'logs' / n)) for n in names},
        volumes, frozenset(on_disk), claimed,
    )  # fmt: skip
