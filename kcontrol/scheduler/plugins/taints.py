"""TaintToleration: NoSchedule and NoExecute keep pods off, PreferNoSchedule counts against a node."""

from __future__ import annotations

from collections.abc import Sequence

from kcontrol.scheduler.framework import MAX_SCORE, Check, Happening, Plugin, Rejection
from kcontrol.scheduler.nodeinfo import NodeInfo
from kcontrol.scheduler.podinfo import PodInfo
from kcontrol.scheduler.snapshot import Snapshot
from kcontrol.scheduler.terms import tolerated


def check_taints(pod: PodInfo, snapshot: Snapshot) -> Check | None:
    if not snapshot.tainted:
        return None
    tolerations = pod.tolerations

    def check(node: NodeInfo) -> Rejection | None:
        for taint in node.hard_taints:
            if not tolerated(taint, tolerations):
                return Rejection((f'node(s) had untolerated taint {{{taint.key}: {taint.value}}}',), helpless=True)
        return None

    return check


def prefer_untainted(pod: PodInfo, _snapshot: Snapshot, nodes: Sequence[NodeInfo]) -> Sequence[float] | None:
    """Fewest intolerable soft taints wins."""
    if not any(n.soft_taints for n in nodes):
        return None
    tolerations = [t for t in pod.tolerations if t.effect in ('', 'PreferNoSchedule')]
    bad = [sum(not tolerated(t, tolerations) for t in n.soft_taints) for n in nodes]
    most = max(bad)
    return [MAX_SCORE - MAX_SCORE * b // most for b in bad] if most else None


PLUGIN = Plugin(
    'TaintToleration',
    filter=check_taints,
    score=prefer_untainted,
    weight=3,
    wakes=frozenset({Happening.NODE_ADD, Happening.NODE_TAINTS, Happening.POD_UPDATE}),
)
