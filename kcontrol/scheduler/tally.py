"""Running counts of pods by node and by topology value, one `Tally` per distinct question.

Inter-pod affinity and topology spread ask "how many pods that match S are in each zone?". Counting anew costs one pass
over all pods for each pod scheduled; a tally is filled once and then follows each pod that comes or goes, so the
question costs one look-up per node. Two families: *matching* tallies count pods selected by a term of the incoming pod,
*held* tallies count the pods that themselves carry a term (symmetric anti-affinity).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from kcontrol.scheduler.nodeinfo import NodeInfo
from kcontrol.scheduler.podinfo import PodInfo
from kcontrol.scheduler.terms import Labels, PodSelector, PodTerm

TALLIES_MAX = 1_024
"""Matching tallies kept; the least recently asked one is dropped and would be counted anew."""

Held = Literal['affinity', 'anti_affinity', 'preferred_affinity', 'preferred_anti_affinity']
HELD: tuple[Held, ...] = ('affinity', 'anti_affinity', 'preferred_affinity', 'preferred_anti_affinity')


class Question(NamedTuple):
    """Pods that match all of `selectors`; with `living`, only those not being deleted (topology spread)."""

    selectors: tuple[PodSelector, ...]
    living: bool

    def counts(self, pod: PodInfo, namespaces: Mapping[str, Labels]) -> bool:
        if self.living and pod.deleting:
            return False
        return all(s.matches(pod.namespace, pod.labels, namespaces) for s in self.selectors)


class Tally:
    """Non-zero counts only."""

    __slots__ = ('_by_key', 'per_node')

    def __init__(self) -> None:
        self.per_node: dict[str, int] = {}
        self._by_key: dict[str, dict[str, int]] = {}

    def add(self, node: str, labels: Labels, amount: int) -> None:
        _bump(self.per_node, node, amount)
        for key, counts in self._by_key.items():
            value = labels.get(key)
            if value is not None:
                _bump(counts, value, amount)

    def by_value(self, key: str, nodes: Mapping[str, NodeInfo]) -> Mapping[str, int]:
        """Count by value of the node label `key`; nodes without the label do not count."""
        counts = self._by_key.get(key)
        if counts is None:
            counts = self._by_key[key] = {}
            for name, amount in self.per_node.items():
                node = nodes.get(name)
                value = node.labels.get(key) if node else None
                if value is not None:
                    _bump(counts, value, amount)
        return counts

    def forget_topology(self) -> None:
        """Node labels have changed: sums by value are made anew when asked for."""
        self._by_key.clear()

    def copy(self) -> Tally:
        """An independent tally."""
        twin = Tally()
        twin.per_node = dict(self.per_node)
        twin._by_key = {key: dict(counts) for key, counts in self._by_key.items()}
        return twin


def _bump(counts: dict[str, int], key: str, amount: int) -> None:
    total = counts.get(key, 0) + amount
    if total:
        counts[key] = total
    else:
        del counts[key]


class Tallies:
    """All tallies over one set of nodes."""

    def __init__(self) -> None:
        self._matching: OrderedDict[Question, Tally] = OrderedDict()
        self._held: dict[Held, dict[PodTerm, Tally]] = {kind: {} for kind in HELD}

    def count(self, node: NodeInfo, pod: PodInfo, amount: int, namespaces: Mapping[str, Labels]) -> None:
        """`pod` came to (`amount` 1) or left (-1) `node`."""
        for question, tally in self._matching.items():
            if question.counts(pod, namespaces):
                tally.add(node.name, node.labels, amount)
        if not pod.holds_pod_terms:
            return
        for kind in HELD:
            by_term = self._held[kind]
            for term in getattr(pod, kind):
                tally = by_term.setdefault(term, Tally())
                tally.add(node.name, node.labels, amount)
                if not tally.per_node:
                    del by_term[term]

    def matching(self, question: Question, nodes: Mapping[str, NodeInfo], namespaces: Mapping[str, Labels]) -> Tally:
        """The tally of `question`; a new question costs one pass over all pods."""
        tally = self._matching.get(question)
        if tally is None:
            tally = self._matching[question] = count_pods(question, nodes.values(), namespaces)
            if len(self._matching) > TALLIES_MAX:
                self._matching.popitem(last=False)
        else:
            self._matching.move_to_end(question)
        return tally

    def held(self, kind: Held) -> Mapping[PodTerm, Tally]:
        """Terms of that kind among the pods placed, each with where its holders are."""
        return self._held[kind]

    def forget_topology(self) -> None:
        for tally in self._matching.values():
            tally.forget_topology()
        for by_term in self._held.values():
            for tally in by_term.values():
                tally.forget_topology()

    def forget_matching(self) -> None:
        """Namespace labels have changed: any count may be wrong."""
        self._matching.clear()


class TrialTallies(Tallies):
    """What the tallies would be if `before` carried the pods of `after`; the base stays as it is."""

    def __init__(self, base: Tallies, before: NodeInfo, after: NodeInfo, namespaces: Mapping[str, Labels]) -> None:
        super().__init__()
        self._base, self._node, self._namespaces = base, before, namespaces
        self._moves = [(p, -1) for uid, p in before.pods.items() if uid not in after.pods]
        self._moves += [(p, 1) for uid, p in after.pods.items() if uid not in before.pods]
        self._held = {kind: dict(base.held(kind)) for kind in HELD}
        for pod, amount in self._moves:
            if pod.holds_pod_terms:
                self._move_terms(pod, amount)

    def _move_terms(self, pod: PodInfo, amount: int) -> None:
        for kind in HELD:
            for term in getattr(pod, kind):
                known = self._held[kind].get(term)
                tally = self._held[kind][term] = known.copy() if known else Tally()
                tally.add(self._node.name, self._node.labels, amount)

    def matching(self, question: Question, nodes: Mapping[str, NodeInfo], namespaces: Mapping[str, Labels]) -> Tally:
        # The base counts the base's own pods: its nodes are `nodes` but for the one on trial.
        tally = self._base.matching(question, {**nodes, self._node.name: self._node}, namespaces)
        changes = sum(amount for pod, amount in self._moves if question.counts(pod, self._namespaces))
        if changes:
            tally = tally.copy()
            tally.add(self._node.name, self._node.labels, changes)
        return tally


def count_pods(question: Question, nodes: Iterable[NodeInfo], namespaces: Mapping[str, Labels]) -> Tally:
    """One pass over all pods."""
    tally = Tally()
    for node in nodes:
        found = sum(question.counts(pod, namespaces) for pod in node.pods.values())
        if found:
            tally.per_node[node.name] = found
    return tally
