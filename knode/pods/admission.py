"""Whether this node takes a pod that was bound to it: a pure function of the pod and of what is here already.

A scheduler decides on what it has heard so far; the node has the last word. A refused pod is Failed at once, with the
reasons that upstream's kubelet gives. Source: pkg/kubelet/lifecycle/predicate.go, noderesources.Fits, NodePorts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kcore.meta import quantity
from knode.pods.model import Verdict
from knode.pods.security import forbidden_sysctl

Obj = Mapping[str, Any]

PREFIX = 'Pod was rejected: '


def admit(
    pod: Obj, others: Iterable[Obj], allocatable: Mapping[str, str], labels: Mapping[str, str] | None
) -> Verdict | None:
    """None: welcome. others: the pods here that still hold resources. labels: of the node; None: not known yet."""
    others = list(others)
    return forbidden_sysctl(pod) or _selected(pod, labels) or _ports(pod, others) or _fits(pod, others, allocatable)


def _selected(pod: Obj, labels: Mapping[str, str] | None) -> Verdict | None:
    wanted = pod['spec'].get('nodeSelector') or {}
    if labels is None or all(labels.get(k) == v for k, v in wanted.items()):
        return None
    text = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
    return Verdict('NodeAffinity', PREFIX + text)


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
        for c in pod['spec'].get('containers') or ()
        for p in c.get('ports') or ()
        if p.get('hostPort')
    }


def requests(pod: Obj) -> dict[str, int]:
    """What a pod asks for: cpu in thousandths, everything else in units.

    The larger of what the main containers and sidecars ask for together, and what each init container asks for beside
    the sidecars that started before it; overhead on top. Source: component-helpers/resource/helpers.go.
    """
    spec = pod['spec']
    total: dict[str, int] = {}
    for c in spec.get('containers') or ():
        total = _sum(total, _asked(c))
    beside: dict[str, int] = {}
    peak: dict[str, int] = {}
    for c in spec.get('initContainers') or ():
        if c.get('restartPolicy') == 'Always':
            beside = _sum(beside, _asked(c))
            total = _sum(total, _asked(c))
            peak = _most(peak, beside)
        else:
            peak = _most(peak, _sum(beside, _asked(c)))
    return _sum(_most(total, peak), {k: _amount(k, v) for k, v in (spec.get('overhead') or {}).items()})


def _asked(c: Obj) -> dict[str, int]:
    resources = c.get('resources') or {}
    both = {**(resources.get('limits') or {}), **(resources.get('requests') or {})}
    return {k: _amount(k, v) for k, v in both.items()}


def _amount(name: str, value: str) -> int:
    return quantity.milli(value) if name == 'cpu' else quantity.value(value)


def _sum(a: Mapping[str, int], b: Mapping[str, int]) -> dict[str, int]:
    return {k: a.get(k, 0) + b.get(k, 0) for k in {*a, *b}}


def _most(a: Mapping[str, int], b: Mapping[str, int]) -> dict[str, int]:
    return {k: max(a.get(k, 0), b.get(k, 0)) for k in {*a, *b}}


def _fits(pod: Obj, others: list[Obj], allocatable: Mapping[str, str]) -> Verdict | None:
    most = int(allocatable.get('pods', '110'))
    if len(others) + 1 > most:
        return _short('pods', 1, len(others), most)
    used: dict[str, int] = {}
    for other in others:
        used = _sum(used, requests(other))
    for name, wanted in sorted(requests(pod).items()):
        capacity = _amount(name, allocatable.get(name, '0'))
        if wanted and used.get(name, 0) + wanted > capacity:
            return _short(name, wanted, used.get(name, 0), capacity)
    return None


def _short(name: str, wanted: int, used: int, capacity: int) -> Verdict:
    text = f"Node didn't have enough resource: {name}, requested: {wanted}, used: {used}, capacity: {capacity}"
    return Verdict(f'OutOf{name}', PREFIX + text)
