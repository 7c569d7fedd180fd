"""Ingress: HTTP routes from outside to services."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from types import MappingProxyType

from kapi.kinds.base import BuiltinStrategy
from kapi.kinds.printing import AGE, NONE, balancer_addresses, text
from kapi.kinds.rules import complaints, dns_name, invalid, one_of, required
from kapi.registry.kind import Col, Kind, Obj, Status
from kapi.registry.strategy import Invalid
from kcore.meta import names
from kcore.meta.gvk import Resource
from kcore.meta.objects import get_path

PATH_TYPES = ('Exact', 'ImplementationSpecific', 'Prefix')
SHOWN_MAX = 3


class IngressStrategy(BuiltinStrategy):
    first_status = MappingProxyType({'loadBalancer': {}})

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        spec = new.get('spec') or {}
        if not spec.get('rules') and spec.get('defaultBackend') is None:
            yield invalid('spec', {}, 'either `defaultBackend` or `rules` must be specified')
        if spec.get('defaultBackend') is not None:
            yield from _backend('spec.defaultBackend', spec['defaultBackend'])
        if spec.get('ingressClassName') is not None:
            yield from dns_name('spec.ingressClassName', spec['ingressClassName'])
        for i, rule in enumerate(spec.get('rules') or ()):
            at, host = f'spec.rules[{i}]', rule.get('host') or ''
            if host:
                check = names.wildcard_subdomain if '*' in host else names.dns_subdomain
                yield from complaints(f'{at}.host', host, check(host))
            if rule.get('http') is not None and not rule['http'].get('paths'):
                yield required(f'{at}.http.paths')
            for j, path in enumerate((rule.get('http') or {}).get('paths') or ()):
                yield from _path(f'{at}.http.paths[{j}]', path)


def _path(at: str, path: Obj) -> Iterator[Invalid]:
    kind, route = path.get('pathType'), path.get('path') or ''
    if kind is None:
        yield required(f'{at}.pathType', 'pathType must be specified')
    else:
        yield from one_of(f'{at}.pathType', kind, PATH_TYPES)
    if kind in {'Exact', 'Prefix'} and not route.startswith('/'):
        yield invalid(f'{at}.path', route, 'must be an absolute path')
    yield from _backend(f'{at}.backend', path.get('backend') or {})


def _backend(at: str, backend: Obj) -> Iterator[Invalid]:
    service, resource = backend.get('service'), backend.get('resource')
    if service is not None and resource is not None:
        yield invalid(at, '', 'cannot set both resource and service backends')
    elif service is not None:
        yield from dns_name(f'{at}.service.name', service.get('name'), names.dns_1035_label)
        port = service.get('port') or {}
        if not port.get('name') and not port.get('number'):
            yield required(at, 'port name or number is required')
        elif port.get('number'):
            yield from complaints(f'{at}.service.port.number', port['number'], names.port_number(port['number']))
    elif resource is None:
        yield required(at, 'resource or service backend is required')


def _hosts(obj: Obj, _now: datetime) -> str:
    rules = get_path(obj, 'spec.rules') or ()
    hosts = [r['host'] for r in rules if r.get('host')]
    last_shown = [i for i, r in enumerate(rules) if r.get('host')][SHOWN_MAX - 1 : SHOWN_MAX]
    more = last_shown and last_shown[0] < len(rules) - 1
    return ','.join(hosts[:SHOWN_MAX]) + (f' + {len(rules) - SHOWN_MAX} more...' if more else '') or '*'


def _address(obj: Obj, _now: datetime) -> str:
    return ','.join(balancer_addresses(obj))


def _ports(obj: Obj, _now: datetime) -> str:
    return '80, 443' if get_path(obj, 'spec.tls') else '80'


KIND = Kind(
    resource=Resource('networking.k8s.io', 'v1', 'ingresses', 'Ingress'),
    strategy=IngressStrategy(),
    short=('ing',),
    subresources=(Status(),),
    columns=(
        Col('Class', text('spec.ingressClassName', NONE), description='Which controller serves it.'),
        Col('Hosts', _hosts, description='Host names it matches.'),
        Col('Address', _address, description='Where it is reached.'),
        Col('Ports', _ports, description='Ports it is reached at.'),
        AGE,
    ),
)
