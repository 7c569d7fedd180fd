"""PodTopologySpread: pods that match a selector are spread evenly over the values of a node label.

Hard constraints filter: after placing, no domain may exceed the emptiest eligible one by more than maxSkew. Soft ones,
and the built-in defaults for pods of a Service or workload (hostname 3, zone 5), count for the score.
Source: KEP-895, KEP-3022 (minDomains), KEP-3094 (node inclusion policies), KEP-1258 (default constraints).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from kcontrol.scheduler.framework import MAX_SCORE, Check, Happening, Plugin, Rejection
from kcontrol.scheduler.nodeinfo import HOSTNAME, ZONE, NodeInfo
from kcontrol.scheduler.plugins.nodeaffinity import wants
from kcontrol.scheduler.podinfo import PodInfo
from kcontrol.scheduler.snapshot import Snapshot
from kcontrol.scheduler.terms import Spread, tolerated

DEFAULT_SKEWS = ((HOSTNAME, 3), (ZONE, 5))
UNEVEN = Rejection(("node(s) didn't match pod topology spread constraints",))
NO_LABEL = Rejection(("node(s) didn't match pod topology spread constraints (missing required label)",), helpless=True)

Counts = Mapping[str, int]
Eligible = Callable[[NodeInfo], bool]


def check_spread(pod: PodInfo, snapshot: Snapshot) -> Check | None:
    hard = [s for s in pod.spread if s.hard]
    if not hard:
        return None
    rules: list[tuple[str, Counts, int]] = []
    for rule in hard:
        counts = _counts(rule, hard, pod, snapshot)
        lowest = min(counts.values(), default=0) if len(counts) >= rule.min_domains else 0
        own = rule.selector.matches(pod.namespace, pod.labels, snapshot.namespaces)
        rules.append((rule.topology_key, counts, lowest + rule.max_skew - own))

    def check(node: NodeInfo) -> Rejection | None:
        labels = node.labels
        for key, counts, ceiling in rules:
            value = labels.get(key)
            if value is None:
                return NO_LABEL
            if counts.get(value, 0) > ceiling:
                return UNEVEN
        return None

    return check


def _counts(rule: Spread, peers: Sequence[Spread], pod: PodInfo, snapshot: Snapshot) -> Counts:
    """Matching pods by topology value over the eligible nodes; eligible values without pods count 0."""
    key = rule.topology_key
    tally = snapshot.count(rule.selector, living=True)
    eligible = _eligible(rule, peers, pod, snapshot)
    if eligible is None:
        return {**dict.fromkeys(snapshot.domains(key), 0), **tally.by_value(key, snapshot.nodes)}
    counts: dict[str, int] = {}
    for name, node in snapshot.nodes.items():
        if eligible(node):
            value = node.labels[key]
            counts[value] = counts.get(value, 0) + tally.per_node.get(name, 0)
    return counts


def _eligible(rule: Spread, peers: Sequence[Spread], pod: PodInfo, snapshot: Snapshot) -> Eligible | None:
    """Which nodes count for `rule`; None when all that have its label do, so that running sums can be used."""
    keys = tuple({p.topology_key for p in peers})
    all_labelled = len(keys) == 1 or all(sum(snapshot.domains(k).values()) == len(snapshot.order) for k in keys)
    choosy = rule.honor_affinity and (bool(pod.node_selector) or pod.node_terms is not None)
    if all_labelled and not choosy and not rule.honor_taints:
        return None

    def eligible(node: NodeInfo) -> bool:
        if any(k not in node.labels for k in keys):
            return False
        if choosy and not wants(pod, node):
            return False
        return not rule.honor_taints or all(tolerated(t, pod.tolerations) for t in node.hard_taints)

    return eligible


def prefer_even(pod: PodInfo, snapshot: Snapshot, nodes: Sequence[NodeInfo]) -> Sequence[float] | None:
    if pod.spread:
        soft, need_labels = [s for s in pod.spread if not s.hard], True
    else:
        soft, need_labels = _defaults(pod, snapshot), False
    if not soft:
        return None
    keys = [s.topology_key for s in soft]
    counted = [not need_labels or all(k in n.labels for k in keys) for n in nodes]
    sums = [0.0] * len(nodes)
    for rule in soft:
        counts = _soft_counts(rule, soft if need_labels else [rule], pod, snapshot)
        key, base = rule.topology_key, rule.max_skew - 1
        values = [n.labels.get(key) if c else None for n, c in zip(nodes, counted, strict=True)]
        weight = math.log(len({v for v in values if v is not None}) + 2)
        number = counts.get
        sums = [s if v is None else s + number(v, 0) * weight + base for s, v in zip(sums, values, strict=True)]
    return _inverted([round(s) if c else None for s, c in zip(sums, counted, strict=True)])


def _soft_counts(rule: Spread, peers: Sequence[Spread], pod: PodInfo, snapshot: Snapshot) -> Counts:
    tally = snapshot.count(rule.selector, living=True)
    if _eligible(rule, peers, pod, snapshot) is None:
        return tally.by_value(rule.topology_key, snapshot.nodes)
    return _counts(rule, peers, pod, snapshot)


def _inverted(sums: Sequence[int | None]) -> Sequence[float] | None:
    """Fewest pods → highest score; a node that is not counted scores 0."""
    known = [s for s in sums if s is not None]
    if not known:
        return None
    low, high = min(known), max(known)
    if high == 0:
        return None if len(known) == len(sums) else [0 if s is None else MAX_SCORE for s in sums]
    return [0 if s is None else MAX_SCORE * (high + low - s) // high for s in sums]


def _defaults(pod: PodInfo, snapshot: Snapshot) -> list[Spread]:
    siblings = snapshot.workloads.siblings(pod)
    if siblings is None:
        return []
    return [Spread(key, skew, siblings, hard=False) for key, skew in DEFAULT_SKEWS]


PLUGIN = Plugin(
    'PodTopologySpread',
    filter=check_spread,
    score=prefer_even,
    weight=2,
    wakes=frozenset(
        {
            Happening.NODE_ADD,
            Happening.NODE_LABELS,
            Happening.NODE_TAINTS,
            Happening.POD_ADD,
            Happening.POD_DELETE,
            Happening.POD_LABELS,
        }
    ),
)
