"""EndpointSlice: some of the addresses behind a Service."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from kapi.kinds.base import BuiltinStrategy, put_defaults
from kapi.kinds.core.container_rules import PROTOCOLS
from kapi.kinds.printing import AGE, UNSET, text
from kapi.kinds.rules import complaints, immutable, one_of, required, too_many
from kapi.registry.kind import Col, Kind, Obj
from kapi.registry.strategy import Invalid
from kcore.meta import names
from kcore.meta.gvk import Resource

ENDPOINTS_MAX = 1000
ADDRESSES_MAX = 100
SHOWN_MAX = 3


class EndpointSliceStrategy(BuiltinStrategy):
    def default(self, obj: Obj) -> None:
        for port in obj.get('ports') or ():
            put_defaults(port, name='', protocol='TCP')

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        kind = new.get('addressType')
        yield from one_of('addressType', kind, ('FQDN', 'IPv4', 'IPv6'))
        endpoints = new.get('endpoints') or ()
        if len(endpoints) > ENDPOINTS_MAX:
            yield too_many('endpoints', len(endpoints), ENDPOINTS_MAX)
        check = names.dns_subdomain if kind == 'FQDN' else names.ip_address
        for i, endpoint in enumerate(endpoints):
            addresses = endpoint.get('addresses') or ()
            if not addresses:
                yield required(f'endpoints[{i}].addresses', 'must contain at least 1 address')
            elif len(addresses) > ADDRESSES_MAX:
                yield too_many(f'endpoints[{i}].addresses', len(addresses), ADDRESSES_MAX)
            for j, address in enumerate(addresses):
                yield from complaints(f'endpoints[{i}].addresses[{j}]', address, check(address))
        for i, port in enumerate(new.get('ports') or ()):
            yield from one_of(f'ports[{i}].protocol', port.get('protocol'), PROTOCOLS)
        if old is not None:
            yield from immutable('addressType', kind, old.get('addressType'))


def _some(found: list[str]) -> str:
    more = f' + {len(found) - SHOWN_MAX} more...' if len(found) > SHOWN_MAX else ''
    return ','.join(found[:SHOWN_MAX]) + more or UNSET


def _ports(obj: Obj, _now: datetime) -> str:
    ports = obj.get('ports') or ()
    return _some([str(p['port']) if p.get('port') is not None else p.get('name', '*') for p in ports])


def _endpoints(obj: Obj, _now: datetime) -> str:
    return _some([str(a) for e in obj.get('endpoints') or () for a in e.get('addresses') or ()])


KIND = Kind(
    resource=Resource('discovery.k8s.io', 'v1', 'endpointslices', 'EndpointSlice'),
    strategy=EndpointSliceStrategy(),
    columns=(
        Col('AddressType', text('addressType'), description='IPv4, IPv6 or FQDN.'),
        Col('Ports', _ports, description='Ports of every endpoint.'),
        Col('Endpoints', _endpoints, description='Addresses.'),
        AGE,
    ),
)
