"""A Service, its EndpointSlices and what this node knows of itself → its frontends and where they lead. Pure.

Source: pkg/proxy/topology.go (CategorizeEndpoints), pkg/proxy/endpointslicecache.go, pkg/proxy/serviceport.go.
Differs: which node a client of a ClusterIP is on is told by its address, since the agents of one machine listen
together; a client without an address of a pod may use every node of the machine (`Target.near`, `near`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kcore.meta.objects import is_pod_finished, is_pod_ready, key_of, labels_of, name_of
from knode.proxy.model import LOOPBACK, NOTHING, Backend, Frontend, Health, Plan, Target

Obj = Mapping[str, Any]

SERVICE_LABEL = 'kubernetes.io/service-name'
OTHER_PROXY_LABEL = 'service.kubernetes.io/service-proxy-name'
ZONE_LABEL = 'topology.kubernetes.io/zone'
EXTERNAL = frozenset({'NodePort', 'LoadBalancer'})
AFFINITY_S = 10_800
EVERYWHERE = '0.0.0.0'  # noqa: S104 — a host port without an address of its own


@dataclass(frozen=True, slots=True)
class Facts:
    """What a node knows of itself."""

    node: str
    address: str
    """Its node ports are served there."""
    zone: str = ''


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address of a slice, with the port that a port of the Service means."""

    backend: Backend
    ready: bool
    serving: bool
    terminating: bool
    zones: frozenset[str]
    """Whom topology hints give it to; empty: they say nothing."""

    @property
    def last_resort(self) -> bool:
        return self.serving and self.terminating


@dataclass(frozen=True, slots=True)
class Port:
    """One port of a Service, with what goes for its Service as a whole."""

    spec: Obj
    entry: Obj
    endpoints: Sequence[Endpoint]
    facts: Facts

    @property
    def protocol(self) -> str:
        return str(self.entry.get('protocol') or 'TCP')

    @property
    def near(self) -> bool:
        return self.spec.get('internalTrafficPolicy') == 'Local'

    @property
    def external_local(self) -> bool:
        return self.spec.get('externalTrafficPolicy') == 'Local'

    def anywhere(self) -> tuple[Backend, ...]:
        """Ready ones, of the zone if hints say so; where none is ready, those that end and still serve."""
        ready = [e for e in self.endpoints if e.ready]
        zone = self.facts.zone
        hinted = zone and ready and all(e.zones for e in ready) and any(zone in e.zones for e in ready)
        chosen = [e for e in ready if zone in e.zones] if hinted else ready
        return _backends(chosen or [e for e in self.endpoints if e.last_resort])

    def on_each_node(self) -> tuple[Backend, ...]:
        """The ready ones of every node; of a node that has none of these, those that end and still serve."""
        ready = [e for e in self.endpoints if e.ready]
        served = {e.backend.node for e in ready}
        last = [e for e in self.endpoints if e.last_resort and e.backend.node not in served]
        return _backends([*ready, *last])

    def here(self) -> tuple[Backend, ...]:
        return tuple(b for b in self.on_each_node() if b.node == self.facts.node)


def plan(service: Obj, slices: Iterable[Obj], facts: Facts) -> Plan:
    """slices: those of the Service, in any order."""
    spec = service['spec']
    address = spec.get('clusterIP')
    if spec.get('type') == 'ExternalName' or address in {None, '', 'None'} or OTHER_PROXY_LABEL in labels_of(service):
        return NOTHING
    pieces = sorted((s for s in slices if s.get('addressType') == 'IPv4'), key=name_of)
    targets: dict[Frontend, Target] = {}
    local: set[str] = set()
    for entry in spec.get('ports') or ():
        port = Port(spec, entry, list(_endpoints(entry, pieces)), facts)
        local |= {b.ip for b in port.here()}
        for frontend, target in _targets(service, port):
            if target.backends and _is_ipv4(frontend.ip):
                targets.setdefault(frontend, target)
    key, number = key_of(service), spec.get('healthCheckNodePort')
    asked = number and spec.get('type') == 'LoadBalancer' and spec.get('externalTrafficPolicy') == 'Local'
    return Plan(targets, {number: Health(key, len(local))} if asked else {})


def host_ports(pod: Obj, facts: Facts) -> Plan:
    """A pod of this node and the ports of the node that lead to its own, while it is ready.

    A host port of the same number as the container's is left alone: the program takes it itself where it binds all
    addresses, as many do, and could not if somebody else had it.
    """
    address = (pod.get('status') or {}).get('podIP')
    if not address or pod['spec'].get('hostNetwork') or not is_pod_ready(pod) or is_pod_finished(pod):
        return NOTHING
    targets: dict[Frontend, Target] = {}
    key = f'pod {key_of(pod)}'
    for container in pod['spec'].get('containers') or ():
        for port in container.get('ports') or ():
            if not port.get('hostPort') or port['hostPort'] == port['containerPort']:
                continue
            ip = port.get('hostIP') or EVERYWHERE
            frontend = Frontend(
                port.get('protocol') or 'TCP', facts.address if ip == EVERYWHERE else ip, port['hostPort']
            )
            backend = Backend(address, port['containerPort'], facts.node)
            targets[frontend] = Target(key, f'{key}:{frontend}', (backend,))
    return Plan(targets, {})


def _targets(service: Obj, port: Port) -> Iterator[tuple[Frontend, Target]]:
    spec, entry = port.spec, port.entry
    key = key_of(service)
    name = f'{key}:{entry["name"]}' if entry.get('name') else key
    inside = Target(key, name, port.on_each_node() if port.near else port.anywhere(), _affinity_s(spec), near=port.near)
    outside = Target(key, name, port.here() if port.external_local else port.anywhere(), _affinity_s(spec))
    yield Frontend(port.protocol, spec['clusterIP'], entry['port']), inside
    for ip in spec.get('externalIPs') or ():
        yield Frontend(port.protocol, ip, entry['port']), outside
    if spec.get('type') not in EXTERNAL:
        return
    if entry.get('nodePort'):
        yield Frontend(port.protocol, port.facts.address, entry['nodePort']), outside
    sources = tuple(_networks(spec.get('loadBalancerSourceRanges') or ()))
    balanced = Target(key, name, outside.backends, outside.affinity_s, sources=sources)
    for ingress in ((service.get('status') or {}).get('loadBalancer') or {}).get('ingress') or ():
        if ingress.get('ip') and ingress.get('ipMode', 'VIP') == 'VIP':
            yield Frontend(port.protocol, ingress['ip'], entry['port']), balanced


def _affinity_s(spec: Obj) -> int:
    if spec.get('sessionAffinity') != 'ClientIP':
        return 0
    client = (spec.get('sessionAffinityConfig') or {}).get('clientIP') or {}
    return int(client.get('timeoutSeconds') or AFFINITY_S)


def _networks(ranges: Iterable[str]) -> Iterator[ipaddress.IPv4Network]:
    for text in ranges:
        try:
            yield ipaddress.IPv4Network(text.strip(), strict=False)
        except ValueError:  # of the other family, or not checked by whoever wrote it: it lets nobody in
            continue


def _is_ipv4(text: str) -> bool:
    try:
        return bool(ipaddress.IPv4Address(text))
    except ValueError:
        return False


def _endpoints(entry: Obj, slices: Iterable[Obj]) -> Iterator[Endpoint]:
    name, protocol = entry.get('name') or '', entry.get('protocol') or 'TCP'
    for piece in slices:
        for port in piece.get('ports') or ():
            if (port.get('name') or '', port.get('protocol') or 'TCP') != (name, protocol) or not port.get('port'):
                continue
            for endpoint in piece.get('endpoints') or ():
                if endpoint.get('addresses'):
                    yield _endpoint(endpoint, port['port'])


def _endpoint(endpoint: Obj, port: int) -> Endpoint:
    """Of several addresses the first counts: they are interchangeable by definition."""
    conditions = endpoint.get('conditions') or {}
    ready = conditions.get('ready') is not False
    serving = conditions.get('serving')
    zones = frozenset(str(z['name']) for z in (endpoint.get('hints') or {}).get('forZones') or ())
    return Endpoint(
        Backend(endpoint['addresses'][0], port, str(endpoint.get('nodeName') or '')), ready,
        ready if serving is None else bool(serving), bool(conditions.get('terminating')), zones,
    )  # fmt: skip


def _backends(endpoints: Iterable[Endpoint]) -> tuple[Backend, ...]:
    """Sorted, each address once: while an endpoint moves from one slice to another both have it."""
    return tuple(sorted({e.backend.address: e.backend for e in endpoints}.values()))


def near(backends: Iterable[Backend], client: str, prefix: int) -> tuple[Backend, ...]:
    """Those on the client's node, as its address tells.

    prefix:  length of a node's podCIDR. A client without an address of a pod (a process of the host, or of a pod that
             did not bind its own) belongs to the machine: all backends of the machine are near.
    """
    network = _network(client, prefix)
    nodes = {b.node for b in backends if _network(b.ip, prefix) == network}
    if nodes:
        return tuple(b for b in backends if b.node in nodes)
    return () if _is_pod(client) else tuple(b for b in backends if b.ip.startswith(LOOPBACK))


def _network(address: str, prefix: int) -> int:
    return int(ipaddress.IPv4Address(address)) >> (32 - prefix)


def _is_pod(address: str) -> bool:
    return address.startswith(LOOPBACK) and not address.startswith('127.0.')
