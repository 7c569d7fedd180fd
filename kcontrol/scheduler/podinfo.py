"""`PodInfo`: one version of a pod as the scheduler reads it, parsed once, immutable."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from kcontrol.scheduler import resources
from kcontrol.scheduler.resources import CPU, EPHEMERAL, MEMORY
from kcontrol.scheduler.terms import (
    Labels,
    NodeTerm,
    PodTerm,
    Spread,
    Toleration,
    parse_node_term,
    parse_pod_term,
    parse_spread,
    parse_tolerations,
)
from kcontrol.volumes import claims_by_origin

Obj = dict[str, Any]


class HostPort(NamedTuple):
    """A port of the host; an empty `ip` stands for all addresses."""

    ip: str
    protocol: str
    port: int

    def conflicts(self, other: HostPort) -> bool:
        if (self.protocol, self.port) != (other.protocol, other.port):
            return False
        return not self.ip or not other.ip or self.ip == other.ip


@dataclass(frozen=True, slots=True, eq=False)
class PodInfo:
    """Everything that scheduling needs to know of a pod. Identity is `uid`; two versions are two objects."""

    uid: str
    namespace: str
    name: str
    labels: Labels
    node: str
    """Where it is bound or assumed; empty while pending."""
    priority: int
    preempts: bool
    """preemptionPolicy is not Never."""
    nominated: str
    """status.nominatedNodeName."""
    gated: bool
    deleting: bool
    scheduler: str
    started: str
    """status.startTime (RFC 3339, hence ordered as text); empty before the kubelet has seen it."""
    cpu: int
    memory: int
    ephemeral: int
    extended: tuple[tuple[str, int], ...]
    scoring_cpu: int
    scoring_memory: int
    ports: tuple[HostPort, ...]
    tolerations: tuple[Toleration, ...]
    node_selector: tuple[tuple[str, str], ...]
    node_terms: tuple[NodeTerm, ...] | None
    """Required node affinity, any of which must match; None when there is no rule."""
    preferred_nodes: tuple[tuple[int, NodeTerm], ...]
    affinity: tuple[PodTerm, ...]
    anti_affinity: tuple[PodTerm, ...]
    preferred_affinity: tuple[PodTerm, ...]
    preferred_anti_affinity: tuple[PodTerm, ...]
    spread: tuple[Spread, ...]
    claims: tuple[tuple[str, bool], ...]
    """Names of the claims, and whether each is made for this pod (an ephemeral volume)."""
    owner: tuple[str, str]
    """Kind and name of the controlling owner; two empty texts without one."""
    obj: Obj

    @property
    def key(self) -> str:
        return f'{self.namespace}/{self.name}'

    @property
    def holds_pod_terms(self) -> bool:
        return bool(self.affinity or self.anti_affinity or self.preferred_affinity or self.preferred_anti_affinity)

    def at(self, node: str) -> PodInfo:
        """The same pod on `node`."""
        return replace(self, node=node)

    def with_room_on(self, node: str) -> PodInfo:
        """The same pod, waiting for room on `node` (empty: on none)."""
        return replace(self, nominated=node)


def parse_pod(obj: Obj) -> PodInfo:
    """The view of `obj`, a pod as the API server stores it."""
    meta, spec, status = obj['metadata'], obj.get('spec') or {}, obj.get('status') or {}
    namespace, labels = meta.get('namespace', ''), meta.get('labels') or {}
    affinity = spec.get('affinity') or {}
    nodes = affinity.get('nodeAffinity') or {}
    together, apart = affinity.get('podAffinity') or {}, affinity.get('podAntiAffinity') or {}
    required = nodes.get(_REQUIRED)
    requests = resources.pod_requests(obj)
    scoring = resources.pod_requests(obj, assume_defaults=True)
    return PodInfo(
        uid=meta.get('uid', ''),
        namespace=namespace,
        name=meta['name'],
        labels=labels,
        node=spec.get('nodeName') or '',
        priority=int(spec.get('priority') or 0),
        preempts=spec.get('preemptionPolicy') != 'Never',
        nominated=status.get('nominatedNodeName') or '',
        gated=bool(spec.get('schedulingGates')),
        deleting='deletionTimestamp' in meta,
        scheduler=spec.get('schedulerName') or 'default-scheduler',
        started=status.get('startTime') or '',
        cpu=requests.pop(CPU, 0),
        memory=requests.pop(MEMORY, 0),
        ephemeral=requests.pop(EPHEMERAL, 0),
        extended=tuple(sorted((k, v) for k, v in requests.items() if v > 0)),
        scoring_cpu=scoring.get(CPU, 0),
        scoring_memory=scoring.get(MEMORY, 0),
        ports=tuple(_host_ports(spec)),
        tolerations=parse_tolerations(spec.get('tolerations')),
        node_selector=tuple(sorted((spec.get('nodeSelector') or {}).items())),
        node_terms=None if required is None else tuple(map(parse_node_term, required.get('nodeSelectorTerms') or ())),
        preferred_nodes=tuple(
            (int(p['weight']), parse_node_term(p['preference'])) for p in nodes.get(_PREFERRED) or ()
        ),
        affinity=_required_terms(together, namespace, labels),
        anti_affinity=_required_terms(apart, namespace, labels),
        preferred_affinity=_preferred_terms(together, namespace, labels),
        preferred_anti_affinity=_preferred_terms(apart, namespace, labels),
        spread=tuple(parse_spread(s, namespace, labels) for s in spec.get('topologySpreadConstraints') or ()),
        claims=tuple(claims_by_origin(obj)),
        owner=_owner(meta),
        obj=obj,
    )


_REQUIRED = 'requiredDuringSchedulingIgnoredDuringExecution'
_PREFERRED = 'preferredDuringSchedulingIgnoredDuringExecution'


def _required_terms(rules: Obj, namespace: str, labels: Labels) -> tuple[PodTerm, ...]:
    return tuple(parse_pod_term(t, namespace, labels) for t in rules.get(_REQUIRED) or ())


def _preferred_terms(rules: Obj, namespace: str, labels: Labels) -> tuple[PodTerm, ...]:
    return tuple(
        parse_pod_term(t['podAffinityTerm'], namespace, labels, int(t['weight'])) for t in rules.get(_PREFERRED) or ()
    )


def _host_ports(spec: Obj) -> Iterable[HostPort]:
    containers = [*(spec.get('containers') or ())]
    containers += [c for c in spec.get('initContainers') or () if c.get('restartPolicy') == 'Always']
    for container in containers:
        for port in container.get('ports') or ():
            number = port.get('hostPort') or (port.get('containerPort') if spec.get('hostNetwork') else 0)
            if number:
                ip = port.get('hostIP') or ''
                yield HostPort('' if ip in ('0.0.0.0', '::') else ip, port.get('protocol') or 'TCP', int(number))  # noqa: S104


def _owner(meta: Obj) -> tuple[str, str]:
    for owner in meta.get('ownerReferences') or ():
        if owner.get('controller'):
            return owner['kind'], owner['name']
    return '', ''
