"""NodeAffinity: `spec.nodeSelector` and node affinity, required and preferred."""

from __future__ import annotations

from collections.abc import Sequence

from kcontrol.scheduler.framework import MAX_SCORE, Check, Happening, Plugin, Rejection
from kcontrol.scheduler.nodeinfo import NodeInfo
from kcontrol.scheduler.podinfo import PodInfo
from kcontrol.scheduler.snapshot import Snapshot

REASON = "node(s) didn't match Pod's node affinity/selector"
REJECTED = Rejection((REASON,), helpless=True)


def wants(pod: PodInfo, node: NodeInfo) -> bool:
    """Whether `node` satisfies the required rules of `pod`."""
    labels = node.labels
    for key, value in pod.node_selector:
        if labels.get(key) != value:
            return False
    return pod.node_terms is None or any(t.matches(node.name, labels) for t in pod.node_terms)


def check_affinity(pod: PodInfo, _snapshot: Snapshot) -> Check | None:
    if not pod.node_selector and pod.node_terms is None:
        return None

    def check(node: NodeInfo) -> Rejection | None:
        return None if wants(pod, node) else REJECTED

    return check


def named_nodes(pod: PodInfo) -> frozenset[str] | None:
    """Nodes named by every alternative (`matchFields` metadata.name), as a DaemonSet's pods do."""
    names: set[str] = set()
    for term in pod.node_terms or ():
        named = [set(r.values) for r in term.fields if r.key == 'metadata.name' and r.operator == 'In']
        if not named:
            return None
        names |= set.intersection(*named)
    return frozenset(names) if pod.node_terms else None


def prefer_matching(pod: PodInfo, _snapshot: Snapshot, nodes: Sequence[NodeInfo]) -> Sequence[float] | None:
    if not pod.preferred_nodes:
        return None
    sums = [sum(w for w, t in pod.preferred_nodes if t.matches(n.name, n.labels)) for n in nodes]
    most = max(sums)
    return [MAX_SCORE * s // most for s in sums] if most else None


PLUGIN = Plugin(
    'NodeAffinity',
    filter=check_affinity,
    score=prefer_matching,
    weight=2,
    only=named_nodes,
    only_reason=REASON,
    wakes=frozenset({Happening.NODE_ADD, Happening.NODE_LABELS}),
)
