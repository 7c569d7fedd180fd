"""Whether this node takes a pod that was bound to it: a pure function of the pod and of what is here already.

A scheduler decides on what it has heard so far; the node has the last word. A refused pod is Failed at once, with the
reasons that upstream's kubelet gives. Source: pkg/kubelet/lifecycle/predicate.go, noderesources.Fits, NodePorts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kcore.meta.selectors import LabelOp, Requirement
from knode.pods.model import Verdict, containers_of
from knode.pods.resources import amount, requests
from knode.pods.security import forbidden_sysctl

Obj = Mapping[str, Any]

OPERATORS: Mapping[str, LabelOp] = {
    'In': 'in', 'NotIn': 'notin', 'Exists': 'exists', 'DoesNotExist': '!', 'Gt': 'gt', 'Lt': 'lt',
}  # fmt: skip
PREFIX = 'Pod was rejected: '


def admit(
    pod: Obj, others: Iterable[Obj], allocatable: Mapping[str, str], labels: Mapping[str, str] | None
) -> Verdict | None:
    """None: welcome. others: the pods here that still hold resources. labels: of the node; None: not known yet."""
    others = list(others)
    return forbidden_sysctl(pod) or _selected(pod, labels) or _ports(pod, others) or _fits(pod, others, allocatable)


def _selected(pod: Obj, labels: Mapping[str, str] | None) -> Verdict | None:
    wanted = pod['spec'].get('nodeSelector') or {}
    if labels is None or (all(labels.get(k) == v for k, v in wanted.items()) and _has_affinity(pod, labels)):
        return None
    text = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
    return Verdict('NodeAffinity', PREFIX + text)


def _has_affinity(pod: Obj, labels: Mapping[str, str]) -> bool:
    """One of the required terms has to fit; a term without conditions fits nothing."""
    affinity = (pod['spec'].get('affinity') or {}).get('nodeAffinity') or {}
    required = affinity.get('requiredDuringSchedulingIgnoredDuringExecution')
    return required is None or any(_fits_term(t, labels) for t in required.get('nodeSelectorTerms') or ())


def _fits_term(term: Obj, labels: Mapping[str, str]) -> bool:
    name = {'metadata.name': labels.get('kubernetes.io/hostname', '')}
    conditions = [(c, labels) for c in term.get('matchExpressions') or ()]
    conditions += [(c, name) for c in term.get('matchFields') or ()]
    return bool(conditions) and all(
        Requirement(c['key'], OPERATORS[c['operator']], frozenset(c.get('values') or ())).matches(where)
        for c, where in conditions
    )


def _ports(pod: Obj, others: Iterable[Obj]) -> Verdict | None:
    mine = _host_ports(pod)
    for other in others if mine else ():
        for ip, protocol, number in _host_ports(other):
            for my_ip, my_protocol, my_number in mine:
                same = (my_protocol, my_number) == (protocol, number)
                if same and (my_ip == ip or '0.0.0.0' in {my_ip, ip}):  # noqa: S104 — a wish in a spec, no bind
                    text = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
                    return Verdict('NodePorts', PREFIX + text)
    return None


def _host_ports(pod: Obj) -> set[tuple[str, str, int]]:
    return {
        (p.get('hostIP') or '0.0.0.0', p.get('protocol') or 'TCP', int(p['hostPort']))  # noqa: S104
        for c, kind in containers_of(pod['spec'])
        if kind in {'main', 'sidecar'}
        for p in c.get('ports') or ()
        if p.get('hostPort')
    }


def _fits(pod: Obj, others: list[Obj], allocatable: Mapping[str, str]) -> Verdict | None:
    most = int(allocatable.get('pods', '110'))
    if len(others) + 1 > most:
        return _short('pods', 1, len(others), most)
    mine = {name: wanted for name, wanted in requests(pod).items() if wanted}
    used: dict[str, int] = {}
    for other in others if mine else ():
        for name, wanted in requests(other).items():
            used[name] = used.get(name, 0) + wanted
    for name, wanted in sorted(mine.items()):
        capacity = amount(name, allocatable.get(name, '0'))
        if used.get(name, 0) + wanted > capacity:
            return _short(name, wanted, used.get(name, 0), capacity)
    return None


def _short(name: str, wanted: int, used: int, capacity: int) -> Verdict:
    text = f"Node didn't have enough resource: {name}, requested: {wanted}, used: {used}, capacity: {capacity}"
    return Verdict(f'OutOf{name}', PREFIX + text)
