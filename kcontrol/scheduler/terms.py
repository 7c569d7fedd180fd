"""Parsed constraints: tolerations, node-selector terms, pod-affinity terms, spread constraints.

A pod's constraints are parsed once, when its informer event arrives, into the small immutable objects below, so that
a check against one of thousands of nodes touches no dictionary of the API. Two terms with equal text are equal and
hash alike, which is what lets `tally.py` keep one running count per distinct term instead of one per pod.
Source of the rules: Kubernetes API reference, core/v1 NodeSelectorTerm, Toleration, PodAffinityTerm,
TopologySpreadConstraint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kcore.meta import selectors

Obj = dict[str, Any]
Labels = Mapping[str, str]


class Taint(NamedTuple):
    key: str
    value: str
    effect: str


class Toleration(NamedTuple):
    key: str
    operator: str
    value: str
    effect: str

    def tolerates(self, taint: Taint) -> bool:
        """An empty key with Exists matches every taint; an empty effect matches every effect."""
        if self.effect and self.effect != taint.effect:
            return False
        if self.key and self.key != taint.key:
            return False
        if self.operator == 'Exists':
            return True
        return bool(self.key) and self.value == taint.value


def parse_taints(items: Iterable[Obj] | None) -> tuple[Taint, ...]:
    return tuple(Taint(t.get('key', ''), t.get('value') or '', t.get('effect', '')) for t in items or ())


def parse_tolerations(items: Iterable[Obj] | None) -> tuple[Toleration, ...]:
    return tuple(
        Toleration(t.get('key') or '', t.get('operator') or 'Equal', t.get('value') or '', t.get('effect') or '')
        for t in items or ()
    )


def tolerated(taint: Taint, tolerations: Iterable[Toleration]) -> bool:
    return any(t.tolerates(taint) for t in tolerations)


class Requirement(NamedTuple):
    """One expression of a node-selector term."""

    key: str
    operator: str
    values: tuple[str, ...]

    def matches(self, labels: Labels) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case 'In':
                return value is not None and value in self.values
            case 'NotIn':
                return value is None or value not in self.values
            case 'Exists':
                return value is not None
            case 'DoesNotExist':
                return value is None
            case 'Gt' | 'Lt':
                return value is not None and self._compare(value)
            case _:
                return False

    def _compare(self, value: str) -> bool:
        try:
            have, bound = int(value), int(self.values[0])
        except (ValueError, IndexError):
            return False
        return have > bound if self.operator == 'Gt' else have < bound


class NodeTerm(NamedTuple):
    """All requirements must hold; a term without any matches no node."""

    expressions: tuple[Requirement, ...]
    fields: tuple[Requirement, ...]

    def matches(self, name: str, labels: Labels) -> bool:
        if not self.expressions and not self.fields:
            return False
        if self.fields:
            view = {'metadata.name': name}
            if not all(r.matches(view) for r in self.fields):
                return False
        return all(r.matches(labels) for r in self.expressions)


def parse_node_term(term: Obj | None) -> NodeTerm:
    return NodeTerm(
        _requirements((term or {}).get('matchExpressions')),
        _requirements((term or {}).get('matchFields')),
    )


def _requirements(items: Iterable[Obj] | None) -> tuple[Requirement, ...]:
    return tuple(Requirement(r['key'], r['operator'], tuple(r.get('values') or ())) for r in items or ())


@dataclass(frozen=True, slots=True)
class PodSelector:
    """Which pods: a label selector within namespaces. Equal text, equal selector."""

    text: str
    """Canonical form of the label selector."""
    namespaces: frozenset[str]
    namespace_text: str
    """Canonical form of the namespace selector; empty when there is none."""
    matches_labels: Callable[[Labels], bool] = field(compare=False, repr=False)
    matches_namespace_labels: Callable[[Labels], bool] | None = field(default=None, compare=False, repr=False)

    def matches(self, namespace: str, labels: Labels, namespace_labels: Mapping[str, Labels]) -> bool:
        if namespace not in self.namespaces:
            by_label = self.matches_namespace_labels
            if by_label is None or not by_label(namespace_labels.get(namespace, {})):
                return False
        return self.matches_labels(labels)


def pod_selector(selector: Obj | None, namespaces: Iterable[str], namespace_selector: Obj | None = None) -> PodSelector:
    """`selector` None matches no pod, an empty one every pod; the same two rules hold for `namespace_selector`."""
    text, by_label = _parsed(selector)
    if namespace_selector is None:
        return PodSelector(text, frozenset(namespaces), '', by_label)
    namespace_text, by_namespace = _parsed(namespace_selector)
    return PodSelector(text, frozenset(namespaces), namespace_text, by_label, by_namespace)


def _parsed(selector: Obj | None) -> tuple[str, Callable[[Labels], bool]]:
    """Canonical text and predicate. A broken selector, which validation should have stopped, selects nothing."""
    try:
        parsed = selectors.from_label_selector(selector)
    except selectors.SelectorError:
        return 'none', selectors.NOTHING.matches
    return ('none' if parsed.nothing else f'all {parsed}'), parsed.matches


class PodTerm(NamedTuple):
    """One pod-affinity or anti-affinity term."""

    selector: PodSelector
    topology_key: str
    weight: int = 0
    """1 to 100 for a preferred term, 0 for a required one."""


def parse_pod_term(term: Obj, namespace: str, labels: Labels, weight: int = 0) -> PodTerm:
    """`namespace` and `labels` are those of the pod that carries the term."""
    spaces = term.get('namespaces') or ()
    by_label = term.get('namespaceSelector')
    if not spaces and by_label is None:
        spaces = (namespace,)
    chosen = _with_label_keys(term.get('labelSelector'), labels, term)
    return PodTerm(pod_selector(chosen, spaces, by_label), term.get('topologyKey', ''), weight)


def _with_label_keys(selector: Obj | None, labels: Labels, term: Obj) -> Obj | None:
    """Merge matchLabelKeys and mismatchLabelKeys: the pod's own value of each key becomes a requirement."""
    same, other = term.get('matchLabelKeys') or (), term.get('mismatchLabelKeys') or ()
    if selector is None or not (same or other):
        return selector
    extra = [{'key': k, 'operator': 'In', 'values': [labels[k]]} for k in same if k in labels]
    extra += [{'key': k, 'operator': 'NotIn', 'values': [labels[k]]} for k in other if k in labels]
    return {**selector, 'matchExpressions': [*(selector.get('matchExpressions') or ()), *extra]}


class Spread(NamedTuple):
    """One topology spread constraint."""

    topology_key: str
    max_skew: int
    selector: PodSelector
    hard: bool
    """DoNotSchedule; otherwise ScheduleAnyway."""
    min_domains: int = 1
    honor_affinity: bool = True
    honor_taints: bool = False


def parse_spread(item: Obj, namespace: str, labels: Labels) -> Spread:
    chosen = _with_label_keys(item.get('labelSelector'), labels, item)
    return Spread(
        topology_key=item.get('topologyKey', ''),
        max_skew=int(item.get('maxSkew', 1)),
        selector=pod_selector(chosen, (namespace,)),
        hard=item.get('whenUnsatisfiable', 'DoNotSchedule') == 'DoNotSchedule',
        min_domains=int(item.get('minDomains') or 1),
        honor_affinity=item.get('nodeAffinityPolicy', 'Honor') == 'Honor',
        honor_taints=item.get('nodeTaintsPolicy', 'Ignore') == 'Honor',
    )
