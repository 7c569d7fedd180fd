"""Endpoints: the addresses behind a Service, in the older form."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from kapi.kinds.base import PlainStrategy
from kapi.kinds.printing import AGE, NONE
from kapi.kinds.rules import complaints, one_of, required
from kapi.registry.kind import Col, Kind, Obj
from kapi.registry.strategy import Invalid
from kcore.meta import gvk, names

SHOWN_MAX = 3
PROTOCOLS = ('SCTP', 'TCP', 'UDP')


class EndpointsStrategy(PlainStrategy):
    def default(self, obj: Obj) -> None:
        for subset in obj.get('subsets') or ():
            for port in subset.get('ports') or ():
                if not port.get('protocol'):
                    port['protocol'] = 'TCP'

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        for i, subset in enumerate(new.get('subsets') or ()):
            at = f'subsets[{i}]'
            if not subset.get('addresses') and not subset.get('notReadyAddresses'):
                yield required(at, 'must specify `addresses` or `notReadyAddresses`')
            for field in ('addresses', 'notReadyAddresses'):
                for j, address in enumerate(subset.get(field) or ()):
                    ip = address.get('ip') or ''
                    yield from complaints(f'{at}.{field}[{j}].ip', ip, names.ip_address(ip))
            ports = subset.get('ports') or ()
            for j, port in enumerate(ports):
                name, number = port.get('name') or '', port.get('port') or 0
                if not name and len(ports) > 1:
                    yield required(f'{at}.ports[{j}].name')
                elif name:
                    yield from complaints(f'{at}.ports[{j}].name', name, names.dns_label(name))
                yield from complaints(f'{at}.ports[{j}].port', number, names.port_number(number))
                yield from one_of(f'{at}.ports[{j}].protocol', port.get('protocol'), PROTOCOLS)


def _endpoints(obj: Obj, _now: datetime) -> str:
    found: list[str] = []
    total = 0
    for subset in obj.get('subsets') or ():
        addresses = subset.get('addresses') or ()
        ports = subset.get('ports') or ()
        if not ports:
            found += [str(a.get('ip')) for a in addresses]
            total += len(addresses)
        for port in ports:
            found += [_join(str(a.get('ip')), port.get('port')) for a in addresses]
            total += len(addresses)
    more = f' + {total - SHOWN_MAX} more...' if total > SHOWN_MAX else ''
    return ','.join(found[:SHOWN_MAX]) + more if obj.get('subsets') else NONE


def _join(ip: str, port: object) -> str:
    return f'[{ip}]:{port}' if ':' in ip else f'{ip}:{port}'


KIND = Kind(
    resource=gvk.ENDPOINTS,
    strategy=EndpointsStrategy(),
    short=('ep',),
    columns=(Col('Endpoints', _endpoints, description='Addresses and ports that are ready.'), AGE),
)
