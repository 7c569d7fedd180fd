"""Service and its pods → subsets. Pure. Source: pkg/controller/endpoint/endpoints_controller.go."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from kclient.model import Obj
from kcore.meta.objects import deleting, is_pod_finished, is_pod_ready, labels_of, name_of, namespace_of, uid_of

CAPACITY = 1_000
"""Addresses in one Endpoints object; more are cut off and the object says so."""
OVER_CAPACITY = 'endpoints.kubernetes.io/over-capacity'
_FIELDS = ('addresses', 'notReadyAddresses')

Port = tuple[str, int, str, str]
"""(name, number, protocol, appProtocol)."""


def eligible(pod: Obj, service: Obj) -> bool:
    """Has an address and may take traffic, now or later."""
    status = pod.get('status') or {}
    if not status.get('podIP') or is_pod_finished(pod):
        return False
    return not deleting(pod) or publishes_unready(service)


def publishes_unready(service: Obj) -> bool:
    return bool((service.get('spec') or {}).get('publishNotReadyAddresses'))


def ports_of(service: Obj, pod: Obj) -> tuple[Port, ...]:
    """The service's ports as this pod has them; a port name that the pod lacks is left out."""
    ports: list[Port] = []
    for port in (service.get('spec') or {}).get('ports') or ():
        number = _target(port, pod)
        if number is not None:
            protocol = str(port.get('protocol') or 'TCP')
            ports.append((str(port.get('name') or ''), number, protocol, str(port.get('appProtocol') or '')))
    return tuple(ports)


def _target(port: Obj, pod: Obj) -> int | None:
    target = port.get('targetPort') or port.get('port')
    if isinstance(target, int):
        return target
    for container in (pod.get('spec') or {}).get('containers') or ():
        for declared in container.get('ports') or ():
            same = (declared.get('protocol') or 'TCP') == (port.get('protocol') or 'TCP')
            if declared.get('name') == target and same:
                return int(declared['containerPort'])
    return None


def address_of(pod: Obj, service: Obj) -> Obj:
    address: Obj = {
        'ip': pod['status']['podIP'],
        'nodeName': (pod.get('spec') or {}).get('nodeName'),
        'targetRef': {'kind': 'Pod', 'namespace': namespace_of(pod), 'name': name_of(pod), 'uid': uid_of(pod)},
    }
    hostname = hostname_of(pod, service)
    if hostname:
        address['hostname'] = hostname
    return {k: v for k, v in address.items() if v}


def hostname_of(pod: Obj, service: Obj) -> str:
    """The pod's DNS name under a headless service that is its subdomain."""
    spec = pod.get('spec') or {}
    if spec.get('hostname') and spec.get('subdomain') == name_of(service):
        return str(spec['hostname'])
    return ''


def subsets(service: Obj, pods: Iterable[Obj]) -> tuple[list[Obj], bool]:
    """(subsets in canonical order, whether addresses had to be cut off). Source: pkg/api/v1/endpoints/util.go."""
    # Pods of a node's own network share its address: only the uid tells their order.
    fit = sorted((p for p in pods if eligible(p, service)), key=lambda p: (str(p['status']['podIP']), uid_of(p)))
    found = [_subset(service, ports, members) for ports, members in _groups(service, fit) if members]
    truncated = _cut(found)
    return [s for s in found if s.keys() & {*_FIELDS}], truncated


def _groups(service: Obj, pods: list[Obj]) -> list[tuple[list[Port], list[Obj]]]:
    """Ports that the same pods offer, with these; of a service without ports all pods."""
    if not (service.get('spec') or {}).get('ports'):
        return [([], pods)]
    offered: dict[Port, list[Obj]] = {}
    for pod in pods:
        for port in ports_of(service, pod):
            offered.setdefault(port, []).append(pod)
    shared: dict[tuple[str, ...], tuple[list[Port], list[Obj]]] = {}
    for port, members in sorted(offered.items(), key=lambda item: item[0]):
        shared.setdefault(tuple(map(uid_of, members)), ([], members))[0].append(port)
    return [*shared.values()]


def _subset(service: Obj, ports: list[Port], pods: list[Obj]) -> Obj:
    subset: Obj = {}
    for pod in pods:
        field = 'addresses' if is_pod_ready(pod) or publishes_unready(service) else 'notReadyAddresses'
        subset.setdefault(field, []).append(address_of(pod, service))
    return subset | ({'ports': [_port(p) for p in ports]} if ports else {})


def _cut(found: list[Obj]) -> bool:
    """Cut off what exceeds the capacity, of each subset its share; ready addresses only when no others are left."""
    ready, waiting = (sum(len(s.get(field, ())) for s in found) for field in _FIELDS)
    if ready + waiting <= CAPACITY:
        return False
    few = ready <= CAPACITY
    field, total, room = ('notReadyAddresses', waiting, CAPACITY - ready) if few else ('addresses', ready, CAPACITY)
    left = room
    for subset in found:
        held = subset.pop(field, [])
        kept = held[: min(left, math.ceil(len(held) * room / total))]
        left -= len(kept)
        if not few:
            subset.pop('notReadyAddresses', None)
        if kept:
            subset[field] = kept
    return True


def _port(port: Port) -> Obj:
    name, number, protocol, app = port
    full: dict[str, Any] = {'name': name, 'port': number, 'protocol': protocol, 'appProtocol': app}
    return {k: v for k, v in full.items() if v != ''}


def plan(service: Obj, pods: Iterable[Obj]) -> Obj:
    """The Endpoints object as it should be."""
    found, truncated = subsets(service, pods)
    annotations = {OVER_CAPACITY: 'truncated'} if truncated else {}
    labels = dict(labels_of(service))
    if (service.get('spec') or {}).get('clusterIP') == 'None':
        labels['service.kubernetes.io/headless'] = ''
    meta: Obj = {'name': name_of(service), 'namespace': namespace_of(service)}
    meta |= {'labels': labels} if labels else {}
    meta |= {'annotations': annotations} if annotations else {}
    return {'apiVersion': 'v1', 'kind': 'Endpoints', 'metadata': meta, 'subsets': found}
