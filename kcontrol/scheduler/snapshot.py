"""Nodes and their pods: `Cache` follows the informers and the scheduler's assumptions, `Snapshot` is one moment.

A snapshot is frozen: plugins read it, nothing else. It shares every unchanged `NodeInfo` with its predecessor, so
taking one after a single pod has moved costs a copy of one pointer table. A pod whose binding is under way is
*assumed* on its node, so that the next pod sees the room as taken; the assumption ends when the informer shows the
binding, when the binding fails, or when it expires.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, zip_longest
from typing import Any

from kcontrol.scheduler.nodeinfo import NodeInfo, parse_node
from kcontrol.scheduler.podinfo import PodInfo
from kcontrol.scheduler.tally import HELD, Held, Question, Tallies, Tally, TrialTallies
from kcontrol.scheduler.terms import Labels, PodSelector, PodTerm
from kcontrol.scheduler.volumes import Volumes
from kcontrol.scheduler.workloads import Workloads

Obj = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A frozen view, valid until the cache next changes (one synchronous scheduling cycle)."""

    nodes: Mapping[str, NodeInfo]
    order: Sequence[str]
    """Names of all nodes, zones interleaved."""
    namespaces: Mapping[str, Labels]
    nominated: Mapping[str, tuple[PodInfo, ...]]
    """By node: pods that preempted others and wait for their room there."""
    workloads: Workloads
    volumes: Volumes
    cordoned: bool
    """Whether any node is unschedulable: where none is, no pod has to be checked for it."""
    tainted: bool
    """The same for taints that keep pods off."""
    _tallies: Tallies
    _domains: dict[str, dict[str, int]]

    def count(self, *selectors: PodSelector, living: bool = False) -> Tally:
        """Where the pods that match all `selectors` are."""
        return self._tallies.matching(Question(selectors, living), self.nodes, self.namespaces)

    def held(self, kind: Held) -> Mapping[PodTerm, Tally]:
        """The terms that placed pods carry, and where those pods are."""
        return self._tallies.held(kind)

    def domains(self, key: str) -> Mapping[str, int]:
        """Number of nodes by value of the label `key`."""
        counts = self._domains.get(key)
        if counts is None:
            counts = self._domains[key] = defaultdict(int)
            for node in self.nodes.values():
                value = node.labels.get(key)
                if value is not None:
                    counts[value] += 1
        return counts

    def with_node(self, node: NodeInfo) -> Snapshot:
        """The same moment, but for the pods of one node (what if …)."""
        trial = TrialTallies(self._tallies, self.nodes[node.name], node, self.namespaces)
        return replace(self, nodes={**self.nodes, node.name: node}, _tallies=trial)

    @property
    def carries_pod_terms(self) -> bool:
        """Whether any placed pod has an affinity rule towards other pods."""
        return any(self._tallies.held(kind) for kind in HELD)


@dataclass(slots=True)
class Cache:
    """Mutable state behind the snapshots. Not for concurrent use; everything is synchronous."""

    nodes: dict[str, NodeInfo] = field(default_factory=dict)
    namespaces: dict[str, Labels] = field(default_factory=dict)
    workloads: Workloads = field(default_factory=Workloads)
    volumes: Volumes = field(default_factory=Volumes)
    _where: dict[str, PodInfo] = field(default_factory=dict)
    """Placed pods by uid, assumed ones included; `.node` says where."""
    _assumed: dict[str, float] = field(default_factory=dict)
    """Uid → when the assumption lapses (monotonic seconds); infinity while the binding is under way."""
    _homeless: dict[str, dict[str, PodInfo]] = field(default_factory=dict)
    """Pods of nodes that are not (or not yet) known."""
    _nominated: dict[str, PodInfo] = field(default_factory=dict)
    _tallies: Tallies = field(default_factory=Tallies)
    _domains: dict[str, dict[str, int]] = field(default_factory=dict)
    _order: tuple[str, ...] | None = None
    _cordoned: set[str] = field(default_factory=set)
    _tainted: set[str] = field(default_factory=set)

    def snapshot(self) -> Snapshot:
        if self._order is None:
            self._order = interleave_zones(self.nodes.values())
        nominated: dict[str, tuple[PodInfo, ...]] = {}
        for pod in self._nominated.values():
            nominated[pod.nominated] = (*nominated.get(pod.nominated, ()), pod)
        return Snapshot(
            nodes=dict(self.nodes),
            order=self._order,
            namespaces=self.namespaces,
            nominated=nominated,
            workloads=self.workloads,
            volumes=self.volumes,
            cordoned=bool(self._cordoned),
            tainted=bool(self._tainted),
            _tallies=self._tallies,
            _domains=self._domains,
        )

    def set_node(self, obj: Obj) -> NodeInfo:
        """Add or update; pods stay."""
        name = obj['metadata']['name']
        old = self.nodes.get(name)
        node = parse_node(obj, self._homeless.pop(name, {}).values()) if old is None else parse_node(obj).carrying(old)
        self.nodes[name] = node
        _note(self._cordoned, name, node.unschedulable)
        _note(self._tainted, name, bool(node.hard_taints))
        if old is None or old.labels != node.labels:
            self._order, self._domains = None, {}
            self._tallies.forget_topology()
        if old is None:
            for pod in node.pods.values():
                self._tallies.count(node, pod, 1, self.namespaces)
        return node

    def remove_node(self, name: str) -> None:
        """Its pods are remembered: deleting them is another controller's business."""
        node = self.nodes.pop(name, None)
        if node is None:
            return
        for pod in node.pods.values():
            self._tallies.count(node, pod, -1, self.namespaces)
        self._homeless[name] = dict(node.pods)
        _note(self._cordoned, name, False)
        _note(self._tainted, name, False)
        self._order, self._domains = None, {}

    def set_namespace(self, name: str, labels: Labels | None) -> None:
        """None: deleted."""
        if labels is None:
            self.namespaces.pop(name, None)
        elif self.namespaces.get(name) != labels:
            self.namespaces[name] = labels
            self._tallies.forget_matching()

    def place(self, pod: PodInfo) -> None:
        """The informer shows `pod` on `pod.node`; ends an assumption, also a wrong one."""
        self._assumed.pop(pod.uid, None)
        self._take(pod.uid)
        self._put(pod)

    def assume(self, pod: PodInfo) -> None:
        """Its binding to `pod.node` is being written. Raises AssertionError when the pod is placed already."""
        assert pod.uid not in self._where, f'{pod.key} is placed already'
        self._assumed[pod.uid] = float('inf')
        self._put(pod)

    def confirm_soon(self, uid: str, deadline: float) -> None:
        """The binding is written; the informer should show it before `deadline` (monotonic seconds)."""
        if uid in self._assumed:
            self._assumed[uid] = deadline

    def forget(self, uid: str) -> PodInfo | None:
        """Take back an assumption; None when there is none (any more)."""
        return self._take(uid) if self._assumed.pop(uid, None) is not None else None

    def expire(self, now: float) -> list[PodInfo]:
        """Take back the assumptions whose deadline has passed."""
        return [p for uid in [u for u, t in self._assumed.items() if t <= now] if (p := self.forget(uid)) is not None]

    def next_expiry(self) -> float | None:
        """The earliest deadline of an assumption (monotonic seconds)."""
        due = min(self._assumed.values(), default=float('inf'))
        return due if due != float('inf') else None

    def remove(self, uid: str) -> PodInfo | None:
        """The pod has ended or is gone."""
        self._assumed.pop(uid, None)
        return self._take(uid)

    def nominate(self, pod: PodInfo | None, uid: str) -> None:
        """Remember (or with None forget) that a pending pod waits for room on `pod.nominated`."""
        if pod is not None and pod.nominated:
            self._nominated[uid] = pod
        else:
            self._nominated.pop(uid, None)

    def placed(self, uid: str) -> PodInfo | None:
        return self._where.get(uid)

    def assumed(self, uid: str) -> bool:
        return uid in self._assumed

    def _put(self, pod: PodInfo) -> None:
        self._where[pod.uid] = pod
        node = self.nodes.get(pod.node)
        if node is None:
            self._homeless.setdefault(pod.node, {})[pod.uid] = pod
            return
        self.nodes[pod.node] = node.with_pod(pod)
        self._tallies.count(node, pod, 1, self.namespaces)

    def _take(self, uid: str) -> PodInfo | None:
        pod = self._where.pop(uid, None)
        if pod is None:
            return None
        node = self.nodes.get(pod.node)
        if node is None:
            homeless = self._homeless.get(pod.node, {})
            homeless.pop(uid, None)
            if not homeless:
                self._homeless.pop(pod.node, None)
            return pod
        self.nodes[pod.node] = node.without_pod(uid)
        self._tallies.count(node, pod, -1, self.namespaces)
        return pod


def _note(names: set[str], name: str, holds: bool) -> None:
    if holds:
        names.add(name)
    else:
        names.discard(name)


def interleave_zones(nodes: Iterable[NodeInfo]) -> tuple[str, ...]:
    """Names such that any run of them spans as many zones as possible: a sample of nodes then samples all zones."""
    zones: dict[tuple[str, str], list[str]] = {}
    for node in nodes:
        zones.setdefault(node.zone, []).append(node.name)
    rows = zip_longest(*(sorted(zones[z]) for z in sorted(zones)))
    return tuple(name for name in chain.from_iterable(rows) if name is not None)
