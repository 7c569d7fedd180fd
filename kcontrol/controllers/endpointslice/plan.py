"""Service, its pods and its present slices → the fewest writes. Pure.

Endpoints stay in the slice where they are; new ones fill slices that change anyway, then those with room, then new
slices. Source: staging/src/k8s.io/endpointslice/reconciler.go. Differs: slices are not merged when they become sparse.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kclient.model import Obj
from kcontrol.controllers.endpoints.plan import Port, hostname_of, ports_of, publishes_unready
from kcore.meta.gvk import SERVICES
from kcore.meta.objects import (
    deleting,
    is_pod_finished,
    is_pod_ready,
    labels_of,
    name_of,
    namespace_of,
    owner_ref,
    uid_of,
)

SLICE_MAX = 100
"""Endpoints in one slice."""
SERVICE_LABEL = 'kubernetes.io/service-name'
MANAGED_LABEL = 'endpointslice.kubernetes.io/managed-by'
MANAGER = 'endpointslice-controller.k8s.io'


@dataclass(frozen=True, slots=True)
class Plan:
    create: tuple[Obj, ...]
    update: tuple[tuple[Obj, Obj], ...]
    """(slice as it is, merge patch)."""
    delete: tuple[Obj, ...]


def endpoint(pod: Obj, service: Obj, zone: str) -> Obj:
    ready, ending = is_pod_ready(pod), deleting(pod)
    found: Obj = {
        'addresses': [pod['status']['podIP']],
        'conditions': {
            'ready': publishes_unready(service) or (ready and not ending),
            'serving': publishes_unready(service) or ready,
            'terminating': ending,
        },
        'targetRef': {'kind': 'Pod', 'namespace': namespace_of(pod), 'name': name_of(pod), 'uid': uid_of(pod)},
    }
    near = zone and found['conditions']['ready'] and _prefers_near(service)
    optional = {
        'hints': {'forZones': [{'name': zone}]} if near else None,
        'hostname': hostname_of(pod, service),
        'nodeName': (pod.get('spec') or {}).get('nodeName'),
        'zone': zone,
    }
    return found | {k: v for k, v in optional.items() if v}


def _prefers_near(service: Obj) -> bool:
    return (service.get('spec') or {}).get('trafficDistribution') == 'PreferClose'


def plan(service: Obj, pods: Iterable[Obj], slices: Iterable[Obj], zones: dict[str, str]) -> Plan:
    """zones: node name → zone. slices: those that this controller manages for `service`."""
    wanted: dict[tuple[Port, ...], dict[str, Obj]] = {}
    for pod in sorted(pods, key=name_of):
        if not (pod.get('status') or {}).get('podIP') or is_pod_finished(pod):
            continue
        zone = zones.get(str((pod.get('spec') or {}).get('nodeName') or ''), '')
        wanted.setdefault(ports_of(service, pod), {})[uid_of(pod)] = endpoint(pod, service, zone)
    if not wanted:
        wanted = {(): {}}  # a service without pods still has one, empty, slice
    present: dict[tuple[Port, ...], list[Obj]] = {}
    for piece in sorted(slices, key=name_of):
        present.setdefault(_ports(piece), []).append(piece)
    create: list[Obj] = []
    update: list[tuple[Obj, Obj]] = []
    delete = [piece for ports, pieces in present.items() if ports not in wanted for piece in pieces]
    for ports, endpoints in wanted.items():
        group = _Group(service, ports, endpoints, present.get(ports, []))
        group.arrange()
        create += group.create
        update += group.update
        delete += group.delete
    return Plan(tuple(create), tuple(update), tuple(delete))


class _Group:
    """Slices and endpoints that share their ports."""

    def __init__(self, service: Obj, ports: tuple[Port, ...], endpoints: dict[str, Obj], slices: list[Obj]) -> None:
        self._service, self._ports, self._slices = service, ports, slices
        self._left = dict(endpoints)
        self.create: list[Obj] = []
        self.update: list[tuple[Obj, Obj]] = []
        self.delete: list[Obj] = []

    def arrange(self) -> None:
        kept = [(piece, self._keep(piece)) for piece in self._slices]
        # Slices that must be written anyway are filled first, then the fullest: fewest writes.
        order = sorted(kept, key=lambda e: (e[1] == (e[0].get('endpoints') or []), -len(e[1])))
        for _, endpoints in order:
            self._fill(endpoints)
        while self._left:
            fresh: list[Obj] = []
            self._fill(fresh)
            self.create.append(self._slice(fresh))
        one_left = bool(self.create) or any(endpoints for _, endpoints in kept)
        for piece, endpoints in kept:
            if not endpoints and one_left:
                self.delete.append(piece)
                continue
            one_left = True
            self._rewrite(piece, endpoints)
        if not self._slices and not self.create:
            self.create.append(self._slice([]))

    def _keep(self, piece: Obj) -> list[Obj]:
        kept: list[Obj] = []
        for held in piece.get('endpoints') or ():
            fresh = self._left.pop(str((held.get('targetRef') or {}).get('uid') or ''), None)
            if fresh is not None:
                kept.append(fresh)
        return kept

    def _fill(self, endpoints: list[Obj]) -> None:
        while self._left and len(endpoints) < SLICE_MAX:
            uid = next(iter(self._left))
            endpoints.append(self._left.pop(uid))

    def _rewrite(self, piece: Obj, endpoints: list[Obj]) -> None:
        change: Obj = {}
        if (piece.get('endpoints') or []) != endpoints:
            change['endpoints'] = endpoints
        labels = self._labels()
        if labels != labels_of(piece):
            change['metadata'] = {'labels': {**{k: None for k in labels_of(piece) if k not in labels}, **labels}}
        if change:
            self.update.append((piece, change))

    def _labels(self) -> dict[str, str]:
        labels = {**labels_of(self._service), SERVICE_LABEL: name_of(self._service), MANAGED_LABEL: MANAGER}
        if (self._service.get('spec') or {}).get('clusterIP') == 'None':
            labels['service.kubernetes.io/headless'] = ''
        return labels

    def _slice(self, endpoints: list[Obj]) -> Obj:
        return {
            'apiVersion': 'discovery.k8s.io/v1',
            'kind': 'EndpointSlice',
            'metadata': {
                'generateName': f'{name_of(self._service)}-',
                'namespace': namespace_of(self._service),
                'labels': self._labels(),
                'ownerReferences': [owner_ref(self._service, SERVICES)],
            },
            'addressType': 'IPv4',
            'endpoints': endpoints,
            'ports': [_slice_port(p) for p in self._ports],
        }


def _ports(piece: Obj) -> tuple[Port, ...]:
    return tuple(
        (
            str(p.get('name') or ''),
            int(p.get('port') or 0),
            str(p.get('protocol') or 'TCP'),
            str(p.get('appProtocol') or ''),
        )
        for p in piece.get('ports') or ()
    )


def _slice_port(port: Port) -> Obj:
    name, number, protocol, app = port
    return {'name': name, 'port': number, 'protocol': protocol} | ({'appProtocol': app} if app else {})


__all__ = ['MANAGED_LABEL', 'MANAGER', 'SERVICE_LABEL', 'SLICE_MAX', 'Plan', 'plan']
