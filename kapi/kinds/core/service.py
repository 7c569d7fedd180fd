"""Service: one stable address for a set of pods."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from kapi.kinds.base import PlainStrategy, put_defaults, spec_of
from kapi.kinds.core.container_rules import PROTOCOLS, port_ref
from kapi.kinds.printing import AGE, NONE, balancer_addresses, labels_at, text
from kapi.kinds.rules import between, complaints, duplicate, forbidden, immutable, invalid, labels, one_of, required
from kapi.registry.kind import Col, Connect, Kind, Obj, Status
from kapi.registry.strategy import Invalid
from kcore.meta import gvk, names

TYPES = ('ClusterIP', 'ExternalName', 'LoadBalancer', 'NodePort')
AFFINITY_TIMEOUT_S = 10800
MAX_AFFINITY_TIMEOUT_S = 86400
EXTERNAL = frozenset({'LoadBalancer', 'NodePort'})
LB_WIDTH = 16
ANY_VERB = ('create', 'delete', 'get', 'patch', 'update')
HEADLESS = 'None'


class ServiceStrategy(PlainStrategy):
    """Addresses and node ports are allocated by the server; here they are only checked and carried over."""

    name_check = staticmethod(names.dns_1035_label)
    returns_deleted_object = True

    def default(self, obj: Obj) -> None:
        spec = spec_of(obj)
        put_defaults(spec, sessionAffinity='None', type='ClusterIP')
        if spec['sessionAffinity'] == 'None':
            spec.pop('sessionAffinityConfig', None)
        elif spec['sessionAffinity'] == 'ClientIP':
            client = spec.setdefault('sessionAffinityConfig', {}).setdefault('clientIP', {})
            put_defaults(client, timeoutSeconds=AFFINITY_TIMEOUT_S)
        for port in spec.get('ports') or ():
            if not port.get('protocol'):
                port['protocol'] = 'TCP'
            if port.get('targetPort') in (None, 0, '') and 'port' in port:
                port['targetPort'] = port['port']
        if spec['type'] in EXTERNAL:
            put_defaults(spec, externalTrafficPolicy='Cluster')
        if spec['type'] == 'LoadBalancer':
            put_defaults(spec, allocateLoadBalancerNodePorts=True)
        if spec['type'] != 'ExternalName':
            put_defaults(spec, internalTrafficPolicy='Cluster')

    def prepare(self, new: Obj, old: Obj | None) -> None:
        spec = spec_of(new)
        if old is not None:
            _keep_allocated(spec, old.get('spec') or {})
            _drop_what_the_type_has_no_use_for(spec, old.get('spec') or {})
        if spec.get('clusterIP') and not spec.get('clusterIPs'):
            spec['clusterIPs'] = [spec['clusterIP']]
        elif spec.get('clusterIPs') and not spec.get('clusterIP'):
            spec['clusterIP'] = spec['clusterIPs'][0]
        if spec.get('type') != 'ExternalName':
            put_defaults(spec, ipFamilies=['IPv6' if ':' in (spec.get('clusterIP') or '') else 'IPv4'])
            put_defaults(spec, ipFamilyPolicy='SingleStack')
        new.setdefault('status', {'loadBalancer': {}})

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        spec = new.get('spec') or {}
        yield from one_of('spec.type', spec.get('type'), TYPES)
        yield from one_of('spec.sessionAffinity', spec.get('sessionAffinity'), ('ClientIP', 'None'))
        timeout = ((spec.get('sessionAffinityConfig') or {}).get('clientIP') or {}).get('timeoutSeconds')
        yield from between('spec.sessionAffinityConfig.clientIP.timeoutSeconds', timeout, 1, MAX_AFFINITY_TIMEOUT_S)
        yield from labels('spec.selector', spec.get('selector'))
        yield from _type_rules(spec)
        yield from _ports(spec.get('ports') or (), spec)
        for i, ip in enumerate(spec.get('externalIPs') or ()):
            yield from complaints(f'spec.externalIPs[{i}]', ip, names.ip_address(ip))
        ip = spec.get('clusterIP')
        if ip and ip != HEADLESS:
            yield from complaints('spec.clusterIPs[0]', ip, names.ip_address(ip))
        yield from one_of('spec.trafficDistribution', spec.get('trafficDistribution'), ('PreferClose',), need=False)
        yield from _health_check_rules(spec, (old or {}).get('spec') or {})
        if old is not None:
            before = old.get('spec') or {}
            if before.get('clusterIP') and before.get('type') != 'ExternalName' and spec.get('type') != 'ExternalName':
                ips = spec.get('clusterIPs') or [spec.get('clusterIP') or '']
                yield from immutable('spec.clusterIPs[0]', ips[0], before['clusterIP'])


def _keep_allocated(spec: Obj, before: Obj) -> None:
    """What the server allocated stays when the client does not send it, as in a PUT of the original manifest."""
    if spec.get('type') == 'ExternalName':
        return
    for field in ('clusterIP', 'clusterIPs', 'ipFamilies', 'ipFamilyPolicy', 'healthCheckNodePort'):
        if not spec.get(field) and before.get(field):
            spec[field] = before[field]
    if spec.get('type') not in EXTERNAL:
        return
    allocated = {(p.get('port'), p.get('protocol')): p.get('nodePort') for p in before.get('ports') or ()}
    for port in spec.get('ports') or ():
        found = allocated.get((port.get('port'), port.get('protocol')))
        if not port.get('nodePort') and found:
            port['nodePort'] = found


def _health_check_rules(spec: Obj, before: Obj) -> Iterator[Invalid]:
    port, had = spec.get('healthCheckNodePort'), before.get('healthCheckNodePort')
    if port and not _needs_health_check(spec):
        why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        yield invalid('spec.healthCheckNodePort', port, why)
    elif port and had and _needs_health_check(before):
        yield from immutable('spec.healthCheckNodePort', port, had)


def _needs_health_check(spec: Obj) -> bool:
    return spec.get('type') == 'LoadBalancer' and spec.get('externalTrafficPolicy') == 'Local'


def _drop_what_the_type_has_no_use_for(spec: Obj, before: Obj) -> None:
    """Who changes the type need not take off what the old one had, unless they changed that, too.

    Source: pkg/registry/core/service/strategy.go, dropTypeDependentFields.
    """

    def drop(needs: Callable[[Obj], bool], *fields: str) -> None:
        if needs(before) and not needs(spec) and all(spec.get(f) == before.get(f) for f in fields):
            for field in fields:
                spec.pop(field, None)

    drop(lambda s: s.get('type') != 'ExternalName', 'clusterIP', 'clusterIPs')
    drop(lambda s: s.get('type') != 'ExternalName', 'ipFamilies', 'ipFamilyPolicy')
    drop(_needs_health_check, 'healthCheckNodePort')
    drop(lambda s: s.get('type') == 'LoadBalancer', 'allocateLoadBalancerNodePorts')
    drop(lambda s: s.get('type') == 'LoadBalancer', 'loadBalancerClass')
    drop(lambda s: s.get('type') in EXTERNAL or bool(s.get('externalIPs')), 'externalTrafficPolicy')
    if before.get('type') in EXTERNAL and spec.get('type') not in EXTERNAL:
        ports, had = spec.get('ports') or (), [p.get('nodePort') for p in before.get('ports') or ()]
        if [p.get('nodePort') for p in ports] == had:
            for port in ports:
                port.pop('nodePort', None)


def _type_rules(spec: Obj) -> Iterator[Invalid]:
    kind, ip = spec.get('type'), spec.get('clusterIP')
    if kind != 'ExternalName' and not spec.get('ports') and ip != HEADLESS:
        yield required('spec.ports')
    if kind in EXTERNAL and ip == HEADLESS:
        yield invalid('spec.clusterIPs[0]', ip, f"may not be set to 'None' for {kind} services")
    if kind == 'ExternalName':
        if ip:
            yield forbidden('spec.clusterIPs', 'may not be set for ExternalName services')
        name = (spec.get('externalName') or '').rstrip('.')
        if not name:
            yield required('spec.externalName')
        else:
            yield from complaints('spec.externalName', name, names.dns_subdomain(name))
    policy = spec.get('externalTrafficPolicy')
    if policy and kind not in EXTERNAL and not spec.get('externalIPs'):
        yield invalid('spec.externalTrafficPolicy', policy, 'may only be set for externally-accessible services')
    yield from one_of('spec.externalTrafficPolicy', policy, ('Cluster', 'Local'), need=False)
    yield from one_of('spec.internalTrafficPolicy', spec.get('internalTrafficPolicy'), ('Cluster', 'Local'), need=False)


def _ports(ports: Sequence[Obj], spec: Obj) -> Iterator[Invalid]:
    seen_names: set[str] = set()
    seen: set[tuple[object, object]] = set()
    node_ports: set[tuple[object, object]] = set()
    for i, port in enumerate(ports):
        at, name, number = f'spec.ports[{i}]', port.get('name') or '', port.get('port') or 0
        if not name and len(ports) > 1:
            yield required(f'{at}.name')
        elif name:
            yield from complaints(f'{at}.name', name, names.dns_label(name))
            if name in seen_names:
                yield duplicate(f'{at}.name', name)
            seen_names.add(name)
        yield from complaints(f'{at}.port', number, names.port_number(number))
        yield from one_of(f'{at}.protocol', port.get('protocol'), PROTOCOLS)
        if port.get('targetPort') is not None:
            yield from port_ref(f'{at}.targetPort', port['targetPort'])
        key = (number, port.get('protocol'))
        if key in seen:
            yield duplicate(at, {'port': number, 'protocol': port.get('protocol')})
        seen.add(key)
        node_port = port.get('nodePort')
        if node_port and spec.get('type') == 'ClusterIP':
            yield forbidden(f'{at}.nodePort', "may not be used when `type` is 'ClusterIP'")
        if node_port and (node_port, port.get('protocol')) in node_ports:
            yield duplicate(f'{at}.nodePort', node_port)
        node_ports.add((node_port, port.get('protocol')))


def _cluster_ip(service: Obj, _now: datetime) -> str:
    spec = service.get('spec') or {}
    ips = spec.get('clusterIPs') or ()
    return (ips[0] if ips else spec.get('clusterIP')) or NONE


def _external_ip(service: Obj, _now: datetime) -> str:
    spec = service.get('spec') or {}
    kind = spec.get('type')
    if kind == 'ExternalName':
        return spec.get('externalName') or NONE
    ips = list(spec.get('externalIPs') or ())
    if kind == 'LoadBalancer':
        return ','.join(balancer_addresses(service) + ips) or '<pending>'
    return ','.join(ips) or NONE


def _ports_text(service: Obj, _now: datetime) -> str:
    return ','.join(_port_text(p) for p in (service.get('spec') or {}).get('ports') or ()) or NONE


def _port_text(port: Obj) -> str:
    node_port = f':{port["nodePort"]}' if port.get('nodePort') else ''
    return f'{port.get("port")}{node_port}/{port.get("protocol")}'


KIND = Kind(
    resource=gvk.SERVICES,
    strategy=ServiceStrategy(),
    short=('svc',),
    categories=('all',),
    subresources=(Status(), Connect('proxy', 'ServiceProxyOptions', ANY_VERB)),
    columns=(
        Col('Type', text('spec.type'), description='How the service is exposed.'),
        Col('Cluster-IP', _cluster_ip, description='Its address inside the cluster.'),
        Col('External-IP', _external_ip, description='Its addresses outside the cluster.'),
        Col('Port(s)', _ports_text, description='Ports it listens on.'),
        AGE,
        Col('Selector', labels_at('spec.selector'), priority=1, description='Labels of the pods behind it.'),
    ),
    selectable={'spec.clusterIP': 'spec.clusterIP', 'spec.type': 'spec.type'},
)
