"""Plugin points, and how a pod is measured against all nodes.

A plugin is a record of pure functions. `filter(pod, snapshot)` looks once at the pod and answers with a check to run
on nodes, or None when it has nothing to say about this pod: a plain pod pays only for the checks that can fail it.
`score` answers with one number per feasible node, 0 to 100, which counts `weight` times.
Source: KEP-624 (scheduling framework); kube-scheduler's sampling rule, pkg/scheduler/schedule_one.go.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from kcontrol.scheduler.nodeinfo import NodeInfo
from kcontrol.scheduler.podinfo import PodInfo
from kcontrol.scheduler.snapshot import Snapshot

MAX_SCORE = 100
SAMPLE_MIN_NODES = 100
"""All nodes are looked at up to this many; beyond it, searching ends once enough feasible ones are found."""
SAMPLE_MIN_PERCENT = 5


class Happening(Enum):
    """A change of the cluster that can make an unschedulable pod schedulable."""

    NODE_ADD = 'node added'
    NODE_ALLOCATABLE = 'node capacity changed'
    NODE_LABELS = 'node labels changed'
    NODE_TAINTS = 'node taints changed'
    POD_ADD = 'pod placed'
    POD_DELETE = 'pod gone'
    POD_LABELS = 'labels of a placed pod changed'
    NAMESPACE = 'namespace labels changed'
    STORAGE = 'claims, volumes or what provides them changed'
    POD_UPDATE = 'the pod itself changed'


class Rejection(NamedTuple):
    """Why a node does not do."""

    reasons: tuple[str, ...]
    """As people read them in events; counted over nodes."""
    helpless: bool = False
    """Removing pods from the node would not help."""


Check = Callable[[NodeInfo], Rejection | None]


def _no_obstacle(_pod: PodInfo, _snapshot: Snapshot) -> str:
    return ''


def _no_filter(_pod: PodInfo, _snapshot: Snapshot) -> Check | None:
    return None


def _no_score(_pod: PodInfo, _snapshot: Snapshot, _nodes: Sequence[NodeInfo]) -> Sequence[float] | None:
    return None


def _all_nodes(_pod: PodInfo) -> frozenset[str] | None:
    return None


@dataclass(frozen=True, slots=True)
class Plugin:
    """One rule of scheduling."""

    name: str
    obstacle: Callable[[PodInfo, Snapshot], str] = _no_obstacle
    """Why no node does, whatever it is like; nodes are looked at only when it is empty."""
    filter: Callable[[PodInfo, Snapshot], Check | None] = _no_filter
    score: Callable[[PodInfo, Snapshot, Sequence[NodeInfo]], Sequence[float] | None] = _no_score
    weight: int = 1
    only: Callable[[PodInfo], frozenset[str] | None] = _all_nodes
    """Names of the only nodes that can pass, when the pod itself says so: spares looking at the others."""
    only_reason: str = ''
    wakes: frozenset[Happening] = frozenset()
    """What can turn a rejection by this plugin around."""


class Refused(NamedTuple):
    """No node does."""

    total: int
    """Number of nodes."""
    rejections: Mapping[str, Rejection]
    """By node."""
    plugins: frozenset[str]
    """Names of those that rejected a node."""
    obstacle: str = ''
    """What does not depend on the node."""

    def message(self) -> str:
        """As kube-scheduler says it: an obstacle alone, or reasons with node counts, sorted as text."""
        if self.obstacle:
            return f'0/{self.total} nodes are available: {self.obstacle}.'
        return refusal_text(self.total, self.rejections.values())


def refusal_text(total: int, rejections: Iterable[Rejection]) -> str:
    """`0/3 nodes are available: 1 Insufficient cpu, 2 node(s) …`."""
    reasons = Counter(reason for r in rejections for reason in r.reasons)
    text = ', '.join(sorted(f'{count} {reason}' for reason, count in reasons.items()))
    return f'0/{total} nodes are available: {text}.'


class Placement(NamedTuple):
    node: str
    feasible: int
    """How many nodes would have done, of those looked at."""


@dataclass(slots=True)
class Framework:
    """The plugins, and where the last search of the nodes ended."""

    plugins: tuple[Plugin, ...]
    rng: random.Random
    _next: int = field(default=0, init=False)

    def place(self, pod: PodInfo, snapshot: Snapshot) -> Placement | Refused:
        """The best node for `pod`, or why there is none. Ties are broken by `rng`."""
        for plugin in self.plugins:
            if obstacle := plugin.obstacle(pod, snapshot):
                everywhere = dict.fromkeys(snapshot.order, Rejection((obstacle,), helpless=True))
                return Refused(len(snapshot.order), everywhere, frozenset({plugin.name}), obstacle)
        checks = self.checks(pod, snapshot)
        reserved = snapshot.nodes.get(pod.nominated)
        if reserved is not None and self.passes(pod, reserved, checks, snapshot) is None:
            return Placement(reserved.name, 1)
        order, rejected = self._narrow(pod, snapshot)
        feasible, found, plugins = self._search(pod, snapshot, order, checks)
        if not feasible:
            return Refused(len(snapshot.order), rejected | found, plugins | self._narrowing(pod, rejected))
        if len(feasible) == 1:
            return Placement(feasible[0].name, 1)
        return Placement(self.best(pod, snapshot, feasible), len(feasible))

    def checks(self, pod: PodInfo, snapshot: Snapshot) -> list[tuple[str, Check]]:
        """What to run on each node for `pod`, in order."""
        made = ((p.name, p.filter(pod, snapshot)) for p in self.plugins)
        return [(name, check) for name, check in made if check is not None]

    def best(self, pod: PodInfo, snapshot: Snapshot, nodes: Sequence[NodeInfo]) -> str:
        """The name of the node with the highest weighted sum of scores."""
        totals = [0.0] * len(nodes)
        for plugin in self.plugins:
            scores = plugin.score(pod, snapshot, nodes)
            if scores is not None:
                weight = plugin.weight
                totals = [t + weight * s for t, s in zip(totals, scores, strict=True)]
        top = max(totals)
        return self.rng.choice([n.name for n, total in zip(nodes, totals, strict=True) if total == top])

    def _narrow(self, pod: PodInfo, snapshot: Snapshot) -> tuple[Sequence[str], dict[str, Rejection]]:
        for plugin in self.plugins:
            names = plugin.only(pod)
            if names is not None:
                out = Rejection((plugin.only_reason,), helpless=True)
                keep = sorted(n for n in names if n in snapshot.nodes)
                return keep, {n: out for n in snapshot.order if n not in names}
        return snapshot.order, {}

    def _narrowing(self, pod: PodInfo, rejected: Mapping[str, Rejection]) -> frozenset[str]:
        return frozenset(p.name for p in self.plugins if p.only(pod) is not None) if rejected else frozenset()

    def _search(
        self, pod: PodInfo, snapshot: Snapshot, order: Sequence[str], checks: list[tuple[str, Check]]
    ) -> tuple[list[NodeInfo], dict[str, Rejection], frozenset[str]]:
        """Feasible nodes until there are enough, beginning where the last search ended."""
        total = len(order)
        wanted = sample_size(total)
        start = self._next % total if total else 0
        nodes, nominated = snapshot.nodes, snapshot.nominated
        feasible: list[NodeInfo] = []
        rejections: dict[str, Rejection] = {}
        plugins: set[str] = set()
        looked_at = 0
        for i in range(start, start + total):
            looked_at += 1
            node = nodes[order[i if i < total else i - total]]
            for name, check in checks:
                rejection = check(node)
                if rejection is not None:
                    rejections[node.name] = rejection
                    plugins.add(name)
                    break
            else:
                if node.name in nominated and (late := self.passes(pod, node, checks, snapshot)) is not None:
                    rejections[node.name] = late[1]
                    plugins.add(late[0])
                    continue
                feasible.append(node)
                if len(feasible) >= wanted:
                    break
        self._next = (start + looked_at) % total if total else 0
        return feasible, rejections, frozenset(plugins)

    def passes(
        self, pod: PodInfo, node: NodeInfo, checks: list[tuple[str, Check]], snapshot: Snapshot
    ) -> tuple[str, Rejection] | None:
        """Checked as it is, and as it will be once the pods nominated to it (of no lower priority) have arrived."""
        for name, check in checks:
            rejection = check(node)
            if rejection is not None:
                return name, rejection
        coming = [p for p in snapshot.nominated.get(node.name, ()) if p.uid != pod.uid and p.priority >= pod.priority]
        if not coming:
            return None
        fuller = node
        for other in coming:
            fuller = fuller.with_pod(other.at(node.name))
        for name, check in self.checks(pod, snapshot.with_node(fuller)):
            rejection = check(fuller)
            if rejection is not None:
                return name, rejection
        return None


def sample_size(total: int) -> int:
    """How many feasible nodes suffice: all of a small cluster, 50 % falling to 5 % of a big one, never below 100."""
    if total <= SAMPLE_MIN_NODES:
        return total
    percent = max(SAMPLE_MIN_PERCENT, 50 - total // 125)
    return max(SAMPLE_MIN_NODES, total * percent // 100)
