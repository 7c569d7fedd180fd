"""Whether this node takes a pod that was bound to it: a pure function of the pod and of what is here already.

A scheduler decides on what it has heard so far; the node has the last word. A refused pod is Failed at once, with the
reasons that upstream's kubelet gives. A critical pod is not refused for what other pods hold: they make room.
Source: pkg/kubelet/lifecycle/predicate.go, pkg/kubelet/preemption/preemption.go, noderesources.Fits, NodePorts.
"""

from __future__ import annotations

import platform
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kcore.meta.selectors import LabelOp, Requirement
from kcore.meta.tolerations import tolerated
from knode.pods.model import Verdict, containers_of
from knode.pods.resources import amount, is_critical, qos_class, requests
from knode.pods.security import forbidden_sysctl
from knode.static.manifest import is_static

Obj = Mapping[str, Any]

OPERATORS: Mapping[str, LabelOp] = {
    'In': 'in', 'NotIn': 'notin', 'Exists': 'exists', 'DoesNotExist': '!', 'Gt': 'gt', 'Lt': 'lt',
}  # fmt: skip
PREFIX = 'Pod was rejected: '
OS_LABEL = 'kubernetes.io/os'
PODS = 'pods'
PREEMPTED = Verdict(
    'Preempting', 'Preempted in order to admit critical pod', None, 'TerminationByKubelet',
    'Pod was preempted by Kubelet to accommodate a critical pod.',
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shortage:
    """What the node has not enough of; cpu in thousandths, everything else in units."""

    name: str
    requested: int
    used: int
    capacity: int

    @property
    def missing(self) -> int:
        return self.requested + self.used - self.capacity

    @property
    def text(self) -> str:
        return (
            f"Node didn't have enough resource: {self.name}, requested: {self.requested}, used: {self.used}, "
            f'capacity: {self.capacity}'
        )

    @property
    def verdict(self) -> Verdict:
        return Verdict(f'OutOf{self.name}', PREFIX + self.text)


@dataclass(frozen=True, slots=True)
class Judgement:
    """Neither: the pod is welcome."""

    verdict: Verdict | None = None
    shortages: tuple[Shortage, ...] = ()
    """Why a critical pod has to wait until others have made room."""


def judge(pod: Obj, others: Iterable[Obj], allocatable: Mapping[str, str], node: Obj | None) -> Judgement:
    """others: the pods here that still hold resources. node: the Node object; None: not known yet."""
    others = list(others)
    hopeless = forbidden_sysctl(pod) or _system(pod) or _groups(pod, node)
    if hopeless is not None:
        return Judgement(hopeless)
    shortages = tuple(_shortages(pod, others, allocatable))
    unfit = _selected(pod, node) or _ports(pod, others) or _tainted(pod, node)
    if is_critical(pod):
        return Judgement(unfit, () if unfit else shortages)
    return Judgement(shortages[0].verdict if shortages else unfit)


def _system(pod: Obj) -> Verdict | None:
    here = platform.system().lower()
    if (pod['metadata'].get('labels') or {}).get(OS_LABEL, here) != here:
        text = f"Failed to admit pod as the `{OS_LABEL}` label doesn't match node label"
        return Verdict('PodOSSelectorNodeLabelDoesNotMatch', PREFIX + text)
    if (pod['spec'].get('os') or {}).get('name', here) != here:
        return Verdict('PodOSNotSupported', f"{PREFIX}Failed to admit pod as the OS field doesn't match node OS")
    return None


def _groups(pod: Obj, node: Obj | None) -> Verdict | None:
    wanted = (pod['spec'].get('securityContext') or {}).get('supplementalGroupsPolicy')
    can = node is None or ((node.get('status') or {}).get('features') or {}).get('supplementalGroupsPolicy')
    if wanted == 'Strict' and not can:
        text = 'SupplementalGroupsPolicy=Strict is not supported in this node'
        return Verdict('SupplementalGroupsPolicyNotSupported', PREFIX + text)
    return None


def _predicate(name: str, why: str) -> Verdict:
    return Verdict(name, f'{PREFIX}Predicate {name} failed: {why}')


def _selected(pod: Obj, node: Obj | None) -> Verdict | None:
    if node is None:
        return None
    labels = node['metadata'].get('labels') or {}
    wanted = pod['spec'].get('nodeSelector') or {}
    if all(labels.get(k) == v for k, v in wanted.items()) and _has_affinity(pod, labels, node['metadata']['name']):
        return None
    return _predicate('NodeAffinity', "node(s) didn't match Pod's node affinity/selector")


def _has_affinity(pod: Obj, labels: Mapping[str, str], name: str) -> bool:
    """One of the required terms has to fit; a term without conditions fits nothing."""
    affinity = (pod['spec'].get('affinity') or {}).get('nodeAffinity') or {}
    required = affinity.get('requiredDuringSchedulingIgnoredDuringExecution')
    return required is None or any(_fits_term(t, labels, name) for t in required.get('nodeSelectorTerms') or ())


def _fits_term(term: Obj, labels: Mapping[str, str], name: str) -> bool:
    conditions = [(c, labels) for c in term.get('matchExpressions') or ()]
    conditions += [(c, {'metadata.name': name}) for c in term.get('matchFields') or ()]
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
                    return _predicate('NodePorts', "node(s) didn't have free ports for the requested pod ports")
    return None


def _host_ports(pod: Obj) -> set[tuple[str, str, int]]:
    return {
        (p.get('hostIP') or '0.0.0.0', p.get('protocol') or 'TCP', int(p['hostPort']))  # noqa: S104
        for c, kind in containers_of(pod['spec'])
        if kind in {'main', 'sidecar'}
        for p in c.get('ports') or ()
        if p.get('hostPort')
    }


def _tainted(pod: Obj, node: Obj | None) -> Verdict | None:
    """Only what ends pods counts here: a taint that merely keeps new ones away is the scheduler's affair."""
    for taint in (((node or {}).get('spec') or {}).get('taints') or ()) if not is_static(pod) else ():
        if taint.get('effect') == 'NoExecute' and not tolerated(pod, taint):
            return _predicate('TaintToleration', "node(s) had taints that the pod didn't tolerate")
    return None


def _shortages(pod: Obj, others: Collection[Obj], allocatable: Mapping[str, str]) -> Iterable[Shortage]:
    most = int(allocatable.get(PODS, '110'))
    if len(others) + 1 > most:
        yield Shortage(PODS, 1, len(others), most)
    mine = {n: wanted for n, wanted in requests(pod).items() if wanted and (n in allocatable or not _is_extended(n))}
    used: dict[str, int] = {}
    for other in others if mine else ():
        for name, wanted in requests(other).items():
            used[name] = used.get(name, 0) + wanted
    for name, wanted in sorted(mine.items()):
        capacity = amount(name, allocatable.get(name, '0'))
        if used.get(name, 0) + wanted > capacity:
            yield Shortage(name, wanted, used.get(name, 0), capacity)


def _is_extended(name: str) -> bool:
    """A resource that the cluster may know of and this node does not."""
    return '/' in name and 'kubernetes.io/' not in name and not name.startswith('requests.')


# --- making room


def victims(pod: Obj, others: Iterable[Obj], shortages: Iterable[Shortage]) -> list[Obj] | None:
    """The pods that have to go for a critical one; None: not even all of them would be enough.

    As few and as small ones as will do, and none of a better quality of service than it takes.
    """
    classes: dict[str, list[Obj]] = {'BestEffort': [], 'Burstable': [], 'Guaranteed': []}
    for other in others:
        if _may_preempt(pod, other):
            classes[qos_class(other['spec'])].append(other)
    best_effort, burstable, guaranteed = classes.values()
    needs = {s.name: s.missing for s in shortages}
    if _less(needs, [*best_effort, *burstable, *guaranteed]):
        return None
    last = _nearest(guaranteed, _less(needs, [*best_effort, *burstable]))
    middle = _nearest(burstable, _less(needs, [*best_effort, *last]))
    first = _nearest(best_effort, _less(needs, [*middle, *last]))
    return [*first, *middle, *last]


def _may_preempt(pod: Obj, other: Obj) -> bool:
    if is_critical(pod) and not is_critical(other):
        return True
    mine, theirs = pod['spec'].get('priority'), other['spec'].get('priority')
    return mine is not None and theirs is not None and mine > theirs


def _held(pod: Obj) -> dict[str, int]:
    return {**requests(pod), PODS: 1}


def _less(needs: Mapping[str, int], pods: Iterable[Obj]) -> dict[str, int]:
    """What is still missing without these pods."""
    held = [_held(p) for p in pods]
    rest = {name: missing - sum(h.get(name, 0) for h in held) for name, missing in needs.items()}
    return {name: missing for name, missing in rest.items() if missing > 0}


def _nearest(pods: Iterable[Obj], needs: Mapping[str, int]) -> list[Obj]:
    """One after another the pod that leaves least missing; of equal ones the smallest."""
    left, chosen = list(pods), []

    def key(index: int) -> tuple[float, int, int]:
        held = _held(left[index])
        rest = ((missing - held.get(name, 0)) / missing for name, missing in needs.items())
        return sum(max(part, 0.0) ** 2 for part in rest), held.get('memory', 0), held.get('cpu', 0)

    while needs:
        chosen.append(left.pop(min(range(len(left)), key=key)))
        needs = _less(needs, chosen[-1:])
    return chosen


def no_room(shortages: Iterable[Shortage]) -> Verdict:
    """Of a critical pod for which nothing can be done."""
    needs = ''.join(f'(res: {s.name}, q: {s.missing}), ' for s in shortages)
    text = (
        'Unexpected error while attempting to recover from admission failure: preemption: error finding a set of pods '
        f'to preempt: no set of running pods found to reclaim resources: [{needs}]'
    )
    return Verdict('UnexpectedAdmissionError', PREFIX + text)
