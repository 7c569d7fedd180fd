"""Conditions, taints and zones of nodes. Pure.

A node's heart beats in its Lease and in its Ready condition; after a silence longer than the grace its conditions are
Unknown. Conditions become NoSchedule taints at once. NoExecute taints, which evict, go through a limiter per zone: a
zone that lost most of its nodes rather has a network problem than dead nodes.
Source: pkg/controller/nodelifecycle/node_lifecycle_controller.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from kclient.model import Obj
from kcore.meta.objects import get_condition, labels_of
from kcore.meta.times import format_time

NOT_READY = 'node.kubernetes.io/not-ready'
UNREACHABLE = 'node.kubernetes.io/unreachable'
UNSCHEDULABLE = 'node.kubernetes.io/unschedulable'
_PRESSURE = {
    'MemoryPressure': 'node.kubernetes.io/memory-pressure',
    'DiskPressure': 'node.kubernetes.io/disk-pressure',
    'PIDPressure': 'node.kubernetes.io/pid-pressure',
    'NetworkUnavailable': 'node.kubernetes.io/network-unavailable',
}
_OURS = frozenset({NOT_READY, UNREACHABLE, UNSCHEDULABLE, *_PRESSURE.values()})
_WATCHED = ('Ready', 'MemoryPressure', 'DiskPressure', 'PIDPressure')

EVICTIONS_PER_S = 0.1
"""Nodes a second and zone that get their NoExecute taint in normal times."""
SLOW_EVICTIONS_PER_S = 0.01
"""The same in a large zone that is partially disrupted; 0 in a small one."""
UNHEALTHY_SHARE = 0.55
LARGE_ZONE_NODES = 50

Zone = Literal['Normal', 'PartialDisruption', 'FullDisruption']


@dataclass(slots=True)
class Heart:
    """When a node was last heard of, by this process's monotonic clock."""

    beat: tuple[str, str] = ('', '')
    """(Lease renewTime, Ready heartbeat) as last seen."""
    since: float = 0.0

    def observe(self, node: Obj, lease: Obj | None, now: float) -> None:
        renewed = str(((lease or {}).get('spec') or {}).get('renewTime') or '')
        beat = (renewed, str((get_condition(node, 'Ready') or {}).get('lastHeartbeatTime') or ''))
        if beat != self.beat:
            self.beat, self.since = beat, now


def silent(node: Obj, heart: Heart, now: float, grace_s: float, startup_grace_s: float) -> bool:
    """Whether the node has said nothing for too long. A node that never posted a status gets longer."""
    posted = get_condition(node, 'Ready') is not None
    return now - heart.since > (grace_s if posted else startup_grace_s)


def unknown_conditions(node: Obj, now: datetime) -> list[Obj]:
    """The node's conditions with the watched ones set to Unknown."""
    held = [dict(c) for c in (node.get('status') or {}).get('conditions') or ()]
    by_type = {c.get('type'): c for c in held}
    for kind in _WATCHED:
        condition = by_type.get(kind)
        if condition is None:
            held.append({
                'type': kind, 'status': 'Unknown', 'reason': 'NodeStatusNeverUpdated',
                'message': 'Kubelet never posted node status.', 'lastTransitionTime': format_time(now),
                'lastHeartbeatTime': node['metadata'].get('creationTimestamp') or format_time(now),
            })  # fmt: skip
        elif condition.get('status') != 'Unknown':
            condition |= {
                'status': 'Unknown', 'reason': 'NodeStatusUnknown',
                'message': 'Kubelet stopped posting node status.', 'lastTransitionTime': format_time(now),
            }  # fmt: skip
    return held


def readiness(node: Obj) -> str:
    """True, False or Unknown; a node without the condition is Unknown."""
    return str((get_condition(node, 'Ready') or {}).get('status') or 'Unknown')


Eviction = Literal['now', 'later', 'never']
"""What a node that is not ready gets: the NoExecute taint, no new one yet, or not even the one that it has."""


def wanted_taints(node: Obj, eviction: Eviction, now: datetime) -> list[Obj] | None:
    """`spec.taints` as they should be; None when they are right.

    A NoExecute taint that is there already stays while its cause lasts; its `timeAdded` starts the pods' tolerations.
    A node that evicts and turns from not ready to unreachable, or back, evicts on: it has had its turn.
    """
    held = (node.get('spec') or {}).get('taints') or []
    wanted = [t for t in held if t.get('key') not in _OURS]
    evicts = eviction == 'now' or _evicts(node)
    for key, effect in _causes(node):
        if effect == 'NoExecute' and eviction == 'never':
            continue
        old = next((t for t in held if t.get('key') == key and t.get('effect') == effect), None)
        if old is not None:
            wanted.append(old)
        elif effect == 'NoSchedule' or evicts:
            fresh = {'key': key, 'effect': effect}
            wanted.append(fresh | {'timeAdded': format_time(now)} if key != UNSCHEDULABLE else fresh)
    return None if _as_set(wanted) == _as_set(held) else wanted


def _causes(node: Obj) -> list[tuple[str, str]]:
    """(taint key, effect) that the node's state asks for."""
    ready = readiness(node)
    causes: list[tuple[str, str]] = []
    if ready != 'True':
        key = NOT_READY if ready == 'False' else UNREACHABLE
        causes += [(key, 'NoSchedule'), (key, 'NoExecute')]
    causes += [
        (key, 'NoSchedule')
        for kind, key in _PRESSURE.items()
        if (get_condition(node, kind) or {}).get('status') == 'True'
    ]
    if (node.get('spec') or {}).get('unschedulable'):
        causes.append((UNSCHEDULABLE, 'NoSchedule'))
    return causes


def _as_set(taints: Iterable[Obj]) -> set[tuple[str, str, str]]:
    return {(str(t.get('key')), str(t.get('effect')), str(t.get('value') or '')) for t in taints}


def lacks_eviction(node: Obj) -> bool:
    """Not ready, and not yet tainted NoExecute for that."""
    return readiness(node) != 'True' and not _evicts(node)


def _evicts(node: Obj) -> bool:
    taints = (node.get('spec') or {}).get('taints') or ()
    return any(t.get('key') in {NOT_READY, UNREACHABLE} and t.get('effect') == 'NoExecute' for t in taints)


def zone_of(node: Obj) -> str:
    labels = labels_of(node)
    region, zone = labels.get('topology.kubernetes.io/region', ''), labels.get('topology.kubernetes.io/zone', '')
    return f'{region}:{zone}' if region or zone else ''


def zone_state(nodes: Iterable[Obj]) -> Zone:
    """A zone's disruption by the share of its nodes that are not ready."""
    ready = bad = 0
    for node in nodes:
        if readiness(node) == 'True':
            ready += 1
        else:
            bad += 1
    if bad and not ready:
        return 'FullDisruption'
    if bad > 2 and bad / (ready + bad) >= UNHEALTHY_SHARE:
        return 'PartialDisruption'
    return 'Normal'


def all_down(nodes: Iterable[Obj]) -> bool:
    """No node of any zone is ready: more likely this manager is cut off than that everything died at once."""
    states = [readiness(node) for node in nodes]
    return bool(states) and 'True' not in states


def eviction_rates(nodes: Sequence[Obj]) -> dict[str, float]:
    """Zone → NoExecute taints a second. When all nodes are down nothing is evicted anywhere."""
    zones: dict[str, list[Obj]] = {}
    for node in nodes:
        zones.setdefault(zone_of(node), []).append(node)
    if all_down(nodes):
        return dict.fromkeys(zones, 0.0)
    return {name: _rate(zone_state(members), len(members)) for name, members in zones.items()}


def _rate(state: Zone, size: int) -> float:
    if state == 'PartialDisruption':
        return SLOW_EVICTIONS_PER_S if size > LARGE_ZONE_NODES else 0.0
    return EVICTIONS_PER_S


@dataclass(slots=True)
class Limiter:
    """Per zone: one token at most, refilled by the zone's rate."""

    _free_at: dict[str, float] = field(default_factory=dict)

    def take(self, zone: str, rates: Mapping[str, float], now: float) -> bool:
        rate = rates.get(zone, 0.0)
        if rate <= 0 or now < self._free_at.get(zone, float('-inf')):
            return False
        self._free_at[zone] = now + 1 / rate
        return True


def eviction_of(node: Obj, down: bool, limiter: Limiter, rates: Mapping[str, float], now: float) -> Eviction:
    """Whether it is this node's turn. down: no node of any zone is ready. rates: as `eviction_rates` gives them."""
    if lacks_eviction(node) and limiter.take(zone_of(node), rates, now):
        return 'now'
    return 'never' if down else 'later'


def not_ready_pod_status(pod: Obj, now: datetime) -> Obj | None:
    """The pod's status with Ready set to False, for pods of a node that fell silent; None when it is so already."""
    conditions = [dict(c) for c in (pod.get('status') or {}).get('conditions') or ()]
    ready = next((c for c in conditions if c.get('type') == 'Ready'), None)
    if ready is None or ready.get('status') != 'True':
        return None
    ready |= {'status': 'False', 'lastTransitionTime': format_time(now), 'reason': 'NodeNotReady'}
    return {**(pod.get('status') or {}), 'conditions': conditions}
