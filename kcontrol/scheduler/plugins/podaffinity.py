"""InterPodAffinity: be where certain pods are, or where they are not; and respect what placed pods ask for.

Required anti-affinity is symmetric: a placed pod's rule keeps the incoming pod away. Preferred rules of placed pods and
their required affinity (with weight 1) count for the score.
Source: Kubernetes documentation, "Assigning Pods to Nodes"; the first pod of a self-affine group may go anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kcontrol.scheduler.framework import MAX_SCORE, Check, Happening, Plugin, Rejection
from kcontrol.scheduler.nodeinfo import NodeInfo
from kcontrol.scheduler.podinfo import PodInfo
from kcontrol.scheduler.snapshot import Snapshot
from kcontrol.scheduler.terms import PodTerm

HARD_AFFINITY_WEIGHT = 1
NO_COMPANY = Rejection(("node(s) didn't match pod affinity rules",), helpless=True)
BAD_COMPANY = Rejection(("node(s) didn't match pod anti-affinity rules",))
UNWANTED = Rejection(("node(s) didn't satisfy existing pods anti-affinity rules",))

Counts = Mapping[str, int]


def check_pods(pod: PodInfo, snapshot: Snapshot) -> Check | None:
    together = _wanted(pod, snapshot)
    apart = [(t.topology_key, snapshot.count(t.selector).by_value(t.topology_key, snapshot.nodes))
             for t in pod.anti_affinity]  # fmt: skip
    apart = [(key, values) for key, values in apart if values]
    kept_off = [
        (term.topology_key, tally.by_value(term.topology_key, snapshot.nodes))
        for term, tally in snapshot.held('anti_affinity').items()
        if _selects(term, pod, snapshot)
    ]
    if together is None and not apart and not kept_off:
        return None
    company = together or []

    def check(node: NodeInfo) -> Rejection | None:
        labels = node.labels
        for key, values in company:
            value = labels.get(key)
            if value is None or (values is not None and value not in values):
                return NO_COMPANY
        if any(labels.get(key) in values for key, values in apart):
            return BAD_COMPANY
        if any(labels.get(key) in values for key, values in kept_off):
            return UNWANTED
        return None

    return check


def _wanted(pod: PodInfo, snapshot: Snapshot) -> list[tuple[str, Counts | None]] | None:
    """Topology keys with the values that have company for all terms; None as values: any value will do."""
    if not pod.affinity:
        return None
    tally = snapshot.count(*(t.selector for t in pod.affinity))
    found: list[tuple[str, Counts]] = [
        (t.topology_key, tally.by_value(t.topology_key, snapshot.nodes)) for t in pod.affinity
    ]
    if not any(values for _, values in found) and all(_selects(t, pod, snapshot) for t in pod.affinity):
        return [(key, None) for key, _ in found]
    return list(found)


def _selects(term: PodTerm, pod: PodInfo, snapshot: Snapshot) -> bool:
    return term.selector.matches(pod.namespace, pod.labels, snapshot.namespaces)


def prefer_company(pod: PodInfo, snapshot: Snapshot, nodes: Sequence[NodeInfo]) -> Sequence[float] | None:
    wishes = _wishes(pod, snapshot)
    if not wishes:
        return None
    sums = [0] * len(nodes)
    for key, weight, values in wishes:
        for i, node in enumerate(nodes):
            value = node.labels.get(key)
            if value is not None and value in values:
                sums[i] += weight * values[value]
    low, high = min(sums), max(sums)
    return [MAX_SCORE * (s - low) / (high - low) for s in sums] if high > low else None


def _wishes(pod: PodInfo, snapshot: Snapshot) -> list[tuple[str, int, Counts]]:
    """(topology key, signed weight, number of pods by value)."""
    nodes = snapshot.nodes
    wishes: list[tuple[str, int, Counts]] = []
    for terms, sign in ((pod.preferred_affinity, 1), (pod.preferred_anti_affinity, -1)):
        for term in terms:
            counts = snapshot.count(term.selector).by_value(term.topology_key, nodes)
            wishes.append((term.topology_key, sign * term.weight, counts))
    for kind, sign in (('preferred_affinity', 1), ('preferred_anti_affinity', -1), ('affinity', 1)):
        for term, tally in snapshot.held(kind).items():  # type: ignore[arg-type]
            if _selects(term, pod, snapshot):
                weight = sign * (term.weight or HARD_AFFINITY_WEIGHT)
                wishes.append((term.topology_key, weight, tally.by_value(term.topology_key, nodes)))
    return [w for w in wishes if w[2]]


PLUGIN = Plugin(
    'InterPodAffinity',
    filter=check_pods,
    score=prefer_company,
    weight=2,
    wakes=frozenset(
        {
            Happening.NODE_ADD,
            Happening.NODE_LABELS,
            Happening.POD_ADD,
            Happening.POD_DELETE,
            Happening.POD_LABELS,
            Happening.NAMESPACE,
        }
    ),
)
