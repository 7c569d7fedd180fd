"""What eviction decides: pure functions of thresholds, levels and what pods use.

Theory: `step` is the kubelet's synchronize loop without its edges. A threshold is met below its value and left only
when the signal is above it by the minimum reclaim; a condition lasts as long as one of its thresholds was met within
the transition period; a soft threshold counts once it has been met for its grace. Pods that use more than they asked
for go first, then the less important ones, then those furthest over. Source: pkg/kubelet/eviction/
eviction_manager.go, helpers.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kcore.meta import quantity
from kcore.meta.tolerations import tolerated
from knode.eviction.thresholds import CONDITIONS, RESOURCES, Level, Threshold
from knode.pods.resources import is_critical, limit, qos_class, requests

Obj = Mapping[str, Any]

TRANSITION_S = 300.0
MEMORY_PRESSURE_TAINT = {'key': 'node.kubernetes.io/memory-pressure', 'effect': 'NoSchedule'}


@dataclass(frozen=True, slots=True)
class State:
    """What one look has to tell the next."""

    met: frozenset[Threshold] = frozenset()
    """Met and past their grace."""
    since: Mapping[Threshold, float] = field(default_factory=dict)
    """When each threshold that is met now was first seen so. Seconds, monotonic."""
    seen: Mapping[str, float] = field(default_factory=dict)
    """When each condition was last observed."""


@dataclass(frozen=True, slots=True)
class Step:
    state: State
    conditions: frozenset[str]
    due: Threshold | None
    """Pods have to go for this one."""


def step(
    state: State,
    thresholds: Iterable[Threshold],
    levels: Mapping[str, Level],
    now: float,
    transition_s: float = TRANSITION_S,
) -> Step:
    met = {t for t in thresholds if _is_met(t, levels, with_reclaim=t in state.met)}
    since = {t: state.since.get(t, now) for t in met}
    seen = {**state.seen, **{CONDITIONS[t.signal]: now for t in met}}
    conditions = frozenset(c for c, at in seen.items() if now == at or now - at < transition_s)
    past = frozenset(t for t in met if now - since[t] >= t.grace_s)
    # Memory first: without it nothing else can be done.
    order = sorted(past, key=lambda t: (not t.signal.startswith('memory'), t.signal, t.grace_s))
    return Step(State(past, since, seen), conditions, order[0] if order else None)


def _is_met(t: Threshold, levels: Mapping[str, Level], *, with_reclaim: bool) -> bool:
    level = levels.get(t.signal)
    if level is None or not level.capacity:
        return False
    least = t.least.of(level.capacity) + (t.reclaim.of(level.capacity) if with_reclaim else 0)
    return level.available < least


@dataclass(frozen=True, slots=True)
class Used:
    """What one pod uses, in all and by container name."""

    pod: Obj
    memory: Mapping[str, int] = field(default_factory=dict)
    disk: Mapping[str, int] = field(default_factory=dict)
    """Logs and own files of each container."""
    volumes: Mapping[str, int] = field(default_factory=dict)
    """Bytes in each emptyDir that is on disk."""
    inodes: int = 0
    processes: int = 0

    def total(self, resource: str) -> int:
        match resource:
            case 'memory':
                return sum(self.memory.values())
            case 'ephemeral-storage':
                return sum(self.disk.values()) + sum(self.volumes.values())
            case 'inodes':
                return self.inodes
        return self.processes


def ranked(pods: Iterable[Used], signal: str) -> list[Used]:
    """Whom to evict, first one first. Critical pods are never evicted."""
    resource = RESOURCES[signal]

    def key(used: Used) -> tuple[bool, int, int]:
        asked = requests(used.pod).get(resource, 0)
        over = used.total(resource) - asked
        exceeds = over > 0 if resource in {'memory', 'ephemeral-storage'} else True
        return not exceeds, int(used.pod['spec'].get('priority') or 0), -over

    return sorted((u for u in pods if not is_critical(u.pod)), key=key)


def message(used: Used, threshold: Threshold, levels: Mapping[str, Level]) -> str:
    resource, level = RESOURCES[threshold.signal], levels[threshold.signal]
    least, available = (_shown(n, resource) for n in (threshold.least.of(level.capacity), level.available))
    text = f'The node was low on resource: {resource}. Threshold quantity: {least}, available: {available}. '
    by_container = {'memory': used.memory, 'ephemeral-storage': used.disk}.get(resource, {})
    for c in used.pod['spec'].get('containers') or ():
        asked = ((c.get('resources') or {}).get('requests') or {}).get(resource, '0')
        amount = by_container.get(c['name'], 0)
        if amount > quantity.value(asked):
            text += (
                f'Container {c["name"]} was using {_shown(amount, resource)}, request is {asked}, '
                f'has larger consumption of {resource}. '
            )
    return text


def _shown(amount: int, resource: str) -> str:
    return quantity.format(amount, 'BinarySI') if resource in {'memory', 'ephemeral-storage'} else str(amount)


def over_own_limit(used: Used) -> tuple[str, str]:
    """(signal, why) of a pod that has to go for what it wrote itself; both empty: it has not."""
    spec = used.pod['spec']
    for v in spec.get('volumes') or ():
        source = v.get('emptyDir') or {}
        size = source.get('sizeLimit')
        if size and source.get('medium') != 'Memory' and used.volumes.get(v['name'], 0) > quantity.value(size) > 0:
            return 'emptydirfs.limit', f'Usage of EmptyDir volume "{v["name"]}" exceeds the limit "{size}". '
    containers = [*(spec.get('containers') or ()), *(spec.get('initContainers') or ())]
    limits = {c['name']: limit(c, 'ephemeral-storage') for c in containers}
    whole = sum(limits[c['name']] for c in spec.get('containers') or ())
    if whole and used.total('ephemeral-storage') > whole:
        most = quantity.format(whole, 'BinarySI')
        text = f'Pod ephemeral local storage usage exceeds the total limit of containers {most}. '
        return 'ephemeralpodfs.limit', text
    for name, most_bytes in limits.items():
        if most_bytes and used.disk.get(name, 0) > most_bytes:
            shown = quantity.format(most_bytes, 'BinarySI')
            text = f'Container {name} exceeded its local ephemeral storage limit "{shown}". '
            return 'ephemeralcontainerfs.limit', text
    return '', ''


def refusal(pod: Obj, conditions: Sequence[str]) -> str:
    """Why a node in this condition takes no such pod; empty: it does."""
    if not conditions or is_critical(pod):
        return ''
    if list(conditions) == ['MemoryPressure'] and (
        qos_class(pod['spec']) != 'BestEffort' or tolerated(pod, MEMORY_PRESSURE_TAINT)
    ):
        return ''
    return f'The node had condition: [{" ".join(conditions)}]. '
