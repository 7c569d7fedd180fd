"""Control groups of containers, version 1 or 2: limits, counters, and whether the kernel killed for memory.

Theory: a container's group is `<root>/pod<uid>/<container id>` in every hierarchy that can be written; what cannot is
done without, and `Cgroups.limits_memory` says whether memory is among it. The agent makes the groups and reads them,
the shim's child enters them before it becomes the container. Only containers are moved, and nothing outside of `root`
is touched.
Source: the kernel's admin-guide/cgroup-v2.rst and cgroup-v1/, pkg/kubelet/cm/helpers_linux.go.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from kcore.env import Env
from knode.runtime.driver import Limits, Stats

log = structlog.get_logger('knode.cgroups')

CONTROLLERS = ('cpu', 'cpuacct', 'memory', 'pids')
CPU_PERIOD_US = 100_000
CPU_QUOTA_US_MIN = 1_000
CPU_SHARES_MIN, CPU_SHARES_MAX = 2, 262_144
PROCS = 'cgroup.procs'


@dataclass(frozen=True, slots=True)
class Hierarchies:
    """Where the controllers are: directory of the root group by controller."""

    unified: bool
    roots: Mapping[str, Path] = field(default_factory=dict)


def mounted(mountinfo: str, root: str) -> Hierarchies:
    """From /proc/self/mountinfo: version 2 when it is all there is, else the hierarchies of version 1."""
    first: dict[str, Path] = {}
    second: Path | None = None
    for line in mountinfo.splitlines():
        before, _, after = line.partition(' - ')
        point = Path(before.split()[4]) / root.strip('/')
        kind, _, options = [*after.split(), '', '', ''][:3]
        if kind == 'cgroup2':
            second = point
        elif kind == 'cgroup':
            first |= {c: point for c in options.split(',') if c in CONTROLLERS}
    if not first and second is not None:
        return Hierarchies(True, dict.fromkeys(('cpu', 'memory', 'pids'), second))
    return Hierarchies(False, first)


def shares(milli_cpu: int) -> int:
    return min(max(milli_cpu * 1024 // 1000, CPU_SHARES_MIN), CPU_SHARES_MAX)


def quota_us(milli_cpu: int) -> int:
    """Per period; -1: as much as there is."""
    return max(milli_cpu * CPU_PERIOD_US // 1000, CPU_QUOTA_US_MIN) if milli_cpu else -1


def files(limits: Limits, *, unified: bool) -> dict[str, dict[str, str]]:
    """What to write, by controller and file."""
    cpu_shares, quota = shares(limits.cpu_request_milli), quota_us(limits.cpu_milli)
    if unified:
        weight = 1 + (cpu_shares - CPU_SHARES_MIN) * 9999 // (CPU_SHARES_MAX - CPU_SHARES_MIN)
        found = {
            'cpu': {'cpu.weight': str(weight), 'cpu.max': f'{"max" if quota < 0 else quota} {CPU_PERIOD_US}'},
            'memory': {'memory.max': str(limits.memory_bytes or 'max'), 'memory.oom.group': '1'},
        }
    else:
        found = {
            'cpu': {
                'cpu.shares': str(cpu_shares), 'cpu.cfs_period_us': str(CPU_PERIOD_US), 'cpu.cfs_quota_us': str(quota),
            },
            'memory': {'memory.limit_in_bytes': str(limits.memory_bytes or -1)},
        }  # fmt: skip
    return found | {'pids': {'pids.max': str(limits.pids or 'max')}}


class Cgroups:
    """Raises nothing: a group that cannot be made is logged, and the container runs without it."""

    def __init__(self, env: Env, hierarchies: Hierarchies) -> None:
        self._env, self._unified = env, hierarchies.unified
        self._roots = {c: p for c, p in hierarchies.roots.items() if self._usable(c, p)}
        log.info('control groups', unified=self._unified, controllers=sorted(self._roots))

    @staticmethod
    def of_machine(env: Env, root: str) -> Cgroups:
        return Cgroups(env, mounted(env.disk.read(Path('/proc/self/mountinfo')).decode(), root))

    @property
    def limits_memory(self) -> bool:
        return 'memory' in self._roots

    def _usable(self, controller: str, root: Path) -> bool:
        try:
            root.mkdir(mode=0o755, parents=True, exist_ok=True)
            if self._unified:
                self._delegate(root, (controller,))
            return os.access(root, os.W_OK)
        except OSError as e:
            log.warning('control group unavailable', controller=controller, path=str(root), err=e.strerror)
            return False

    @staticmethod
    def _delegate(group: Path, controllers: Iterable[str]) -> None:
        _write(group / 'cgroup.subtree_control', ' '.join(f'+{c}' for c in sorted(controllers)))

    def _pods(self, uid: str) -> set[Path]:
        return {root / f'pod{uid}' for root in self._roots.values()}

    def make(self, uid: str, container_id: str, limits: Limits) -> list[str]:
        """Make the container's groups; the files that a process enters them by."""
        entries = []
        wanted = files(limits, unified=self._unified)
        for pod in sorted(self._pods(uid)):
            group = pod / container_id
            here = [c for c, root in self._roots.items() if root == pod.parent]
            try:
                pod.mkdir(mode=0o755, exist_ok=True)
                if self._unified:
                    self._delegate(pod, here)
                if limits.pod_pids and 'pids' in here:
                    _write(pod / 'pids.max', str(limits.pod_pids))
                group.mkdir(mode=0o755, exist_ok=True)
                for controller in here:
                    for file, value in wanted.get(controller, {}).items():
                        _write(group / file, value)
            except OSError as e:
                log.warning('control group not made', path=str(group), err=e.strerror, file=e.filename)
                continue
            entries.append(str(group / PROCS))
        return entries

    def stats(self, uid: str, container_id: str) -> Stats | None:
        """None unless CPU time, memory and processes are all counted here."""
        roots = self._roots
        if not {'cpu' if self._unified else 'cpuacct', 'memory', 'pids'} <= roots.keys():
            return None
        part = Path(f'pod{uid}') / container_id
        try:
            if self._unified:
                group = roots['cpu'] / part
                cpu_ns = _table(_read(group / 'cpu.stat'))['usage_usec'] * 1000
                used, cold = int(_read(group / 'memory.current')), 'inactive_file'
            else:
                cpu_ns = int(_read(roots['cpuacct'] / part / 'cpuacct.usage'))
                used, cold = int(_read(roots['memory'] / part / 'memory.usage_in_bytes')), 'total_inactive_file'
            reclaimable = _table(_read(roots['memory'] / part / 'memory.stat')).get(cold, 0)
            return Stats(cpu_ns, max(0, used - reclaimable), int(_read(roots['pids'] / part / 'pids.current')))
        except (OSError, ValueError, KeyError):  # it has just ended
            return None

    def oom_killed(self, uid: str, container_id: str) -> bool:
        if 'memory' not in self._roots:
            return False
        group = self._roots['memory'] / f'pod{uid}' / container_id
        try:
            return _table(_read(group / ('memory.events' if self._unified else 'memory.oom_control')))['oom_kill'] > 0
        except (OSError, ValueError, KeyError):
            return False

    def remove(self, uid: str, container_id: str = '') -> None:
        """A container's groups, or all of a pod. Groups in which something still runs stay for `sweep`."""
        for pod in self._pods(uid):
            groups = [pod / container_id] if container_id else [*_groups(pod), pod]
            for group in groups:
                _remove(group)

    def sweep(self) -> None:
        """Remove the pods' groups in which nothing runs: what an agent left that was killed."""
        for root in set(self._roots.values()):
            for pod in _groups(root):
                for group in (*_groups(pod), pod):
                    _remove(group)


def _remove(group: Path) -> None:
    try:
        group.rmdir()
    except FileNotFoundError:
        return
    except OSError as e:
        if e.errno not in {errno.EBUSY, errno.ENOTEMPTY}:
            log.warning('control group not removed', path=str(group), err=e.strerror)


def _groups(group: Path) -> list[Path]:
    with contextlib.suppress(FileNotFoundError):
        return [p for p in group.iterdir() if p.is_dir()]
    return []


def _read(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 1 << 16)
    finally:
        os.close(fd)


def _write(path: Path, text: str) -> None:
    """One write: these are no ordinary files."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _table(data: bytes) -> dict[str, int]:
    return {k.decode(): int(v) for k, _, v in (line.partition(b' ') for line in data.splitlines()) if v.isdigit()}
