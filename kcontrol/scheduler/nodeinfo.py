"""`NodeInfo`: a node and the pods on it at one moment, with running sums; immutable, so a snapshot can share it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from kcontrol.scheduler.podinfo import HostPort, PodInfo
from kcontrol.scheduler.resources import CPU, EPHEMERAL, MEMORY, PODS
from kcontrol.scheduler.terms import Labels, Taint, parse_taints
from kcore.meta.podresources import in_integers

Obj = dict[str, Any]

ZONE, REGION, HOSTNAME = 'topology.kubernetes.io/zone', 'topology.kubernetes.io/region', 'kubernetes.io/hostname'


@dataclass(frozen=True, slots=True, eq=False)
class NodeInfo:
    """Capacity (`allocatable`) against use (sums over `pods`); cpu in millicores, memory in bytes."""

    name: str
    labels: Labels
    unschedulable: bool
    hard_taints: tuple[Taint, ...]
    """NoSchedule and NoExecute."""
    soft_taints: tuple[Taint, ...]
    """PreferNoSchedule."""
    cpu: int
    memory: int
    ephemeral: int
    pods_max: int
    extended: Mapping[str, int]
    pods: Mapping[str, PodInfo]
    """By uid; includes assumed pods."""
    used_cpu: int = 0
    used_memory: int = 0
    used_ephemeral: int = 0
    used_extended: Mapping[str, int] | None = None
    scoring_cpu: int = 0
    scoring_memory: int = 0
    ports: tuple[HostPort, ...] = ()

    @property
    def zone(self) -> tuple[str, str]:
        return self.labels.get(REGION, ''), self.labels.get(ZONE, '')

    def carrying(self, other: NodeInfo) -> NodeInfo:
        """This node with the pods of `other`, an earlier version of it."""
        return replace(
            self,
            pods=other.pods,
            used_cpu=other.used_cpu,
            used_memory=other.used_memory,
            used_ephemeral=other.used_ephemeral,
            used_extended=other.used_extended,
            scoring_cpu=other.scoring_cpu,
            scoring_memory=other.scoring_memory,
            ports=other.ports,
        )

    def with_pod(self, pod: PodInfo) -> NodeInfo:
        """With `pod` added; a version with the same uid is replaced."""
        if pod.uid in self.pods:
            return self.without_pod(pod.uid).with_pod(pod)
        used = self.used_extended
        return replace(
            self,
            pods={**self.pods, pod.uid: pod},
            used_cpu=self.used_cpu + pod.cpu,
            used_memory=self.used_memory + pod.memory,
            used_ephemeral=self.used_ephemeral + pod.ephemeral,
            used_extended=_changed(used, pod.extended, 1) if pod.extended else used,
            scoring_cpu=self.scoring_cpu + pod.scoring_cpu,
            scoring_memory=self.scoring_memory + pod.scoring_memory,
            ports=self.ports + pod.ports,
        )

    def without_pod(self, uid: str) -> NodeInfo:
        """With the pod removed. Raises KeyError when it is not here."""
        pods = dict(self.pods)
        pod = pods.pop(uid)
        used, ports = self.used_extended, self.ports
        if pod.ports:
            remaining = list(ports)
            for port in pod.ports:
                remaining.remove(port)
            ports = tuple(remaining)
        return replace(
            self,
            pods=pods,
            used_cpu=self.used_cpu - pod.cpu,
            used_memory=self.used_memory - pod.memory,
            used_ephemeral=self.used_ephemeral - pod.ephemeral,
            used_extended=_changed(used, pod.extended, -1) if pod.extended else used,
            scoring_cpu=self.scoring_cpu - pod.scoring_cpu,
            scoring_memory=self.scoring_memory - pod.scoring_memory,
            ports=ports,
        )


def _changed(used: Mapping[str, int] | None, amounts: Iterable[tuple[str, int]], sign: int) -> Mapping[str, int]:
    result = dict(used or {})
    for name, amount in amounts:
        result[name] = result.get(name, 0) + sign * amount
    return result


def parse_node(obj: Obj, pods: Iterable[PodInfo] = ()) -> NodeInfo:
    """The view of `obj`, a node as the API server stores it, carrying `pods`."""
    meta, spec, status = obj['metadata'], obj.get('spec') or {}, obj.get('status') or {}
    taints = parse_taints(spec.get('taints'))
    room = in_integers(status.get('allocatable') or status.get('capacity'))
    info = NodeInfo(
        name=meta['name'],
        labels=meta.get('labels') or {},
        unschedulable=bool(spec.get('unschedulable')),
        hard_taints=tuple(t for t in taints if t.effect != 'PreferNoSchedule'),
        soft_taints=tuple(t for t in taints if t.effect == 'PreferNoSchedule'),
        cpu=room.pop(CPU, 0),
        memory=room.pop(MEMORY, 0),
        ephemeral=room.pop(EPHEMERAL, 0),
        pods_max=room.pop(PODS, 0),
        extended=room,
        pods={},
    )
    for pod in pods:
        info = info.with_pod(pod)
    return info
