"""Names of the cluster → records, as a pure function of Services, EndpointSlices and Namespaces.

Source: the specification "Kubernetes DNS-Based Service Discovery" 1.1.0, and CoreDNS plugin/kubernetes (parse.go,
kubernetes.go, reverse.go) with `pods insecure`. Names are compared without regard to case.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from kcore.meta.objects import key_of, labels_of, name_of, namespace_of
from knode.pods.model import Obj

VERSION = '1.1.0'
TTL_S = 5
WEIGHT = 100
REVERSE = 'in-addr.arpa'
SERVICE_LABEL = 'kubernetes.io/service-name'

Code = Literal['NOERROR', 'NXDOMAIN']


@dataclass(frozen=True, slots=True)
class Record:
    name: str
    """Without its last dot."""
    type: str
    data: str
    """As in a zone file."""


@dataclass(frozen=True, slots=True)
class Answer:
    code: Code = 'NOERROR'
    records: tuple[Record, ...] = ()
    extra: tuple[Record, ...] = ()
    """Addresses of the targets of SRV records."""
    alias: str = ''
    """A name outside the cluster that the last record leads to: its addresses belong to the answer."""


UNKNOWN = Answer('NXDOMAIN')
NO_DATA = Answer()


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the zone finds what it knows."""

    service: Callable[[str], Obj | None]
    """By key."""
    service_at: Callable[[str], Iterable[Obj]]
    """By ClusterIP."""
    slices: Callable[[str], Iterable[Obj]]
    """By the key of their Service."""
    slices_at: Callable[[str], Iterable[Obj]]
    """By the address of an endpoint with a hostname."""
    namespace: Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Endpoint:
    ip: str
    hostname: str
    """Its label below its Service."""


def cluster_ip(service: Obj) -> Iterable[str]:
    """Index function of Services."""
    ip = service['spec'].get('clusterIP')
    return (ip,) if ip not in {None, '', 'None'} else ()


def named_addresses(piece: Obj) -> Iterable[str]:
    """Index function of EndpointSlices: addresses that have a name of their own."""
    return [a for e in piece.get('endpoints') or () if e.get('hostname') for a in e.get('addresses') or ()]


class Zone:
    def __init__(self, sources: Sources, domain: str, server: str) -> None:
        """server: the address of the name server, as the zone tells it."""
        self._of, self.domain, self._server = sources, domain, server

    def owns(self, name: str) -> bool:
        """Whether nobody else is asked."""
        return name == self.domain or name.endswith(f'.{self.domain}')

    def answer(self, name: str, kind: str) -> Answer | None:
        """name: in lower case, without its last dot. None: somebody else may know."""
        if self.owns(name):
            labels = name[: -len(self.domain)].rstrip('.').split('.') if name != self.domain else []
            return self._answer(name, labels, kind)
        if name.endswith(f'.{REVERSE}'):
            return self._reverse(name, kind)
        return None

    def authority(self) -> Record:
        """What says for how long a missing name may be taken for missing."""
        start = f'ns.dns.{self.domain}. hostmaster.{self.domain}. 1 7200 1800 86400 {TTL_S}'
        return Record(self.domain, 'SOA', start)

    def _answer(self, name: str, labels: list[str], kind: str) -> Answer:
        match labels:
            case []:
                apex = {'SOA': self.authority(), 'NS': Record(name, 'NS', f'ns.dns.{self.domain}.')}
                return Answer(records=(apex[kind],)) if kind in apex else NO_DATA
            case ['dns-version']:
                return Answer(records=(Record(name, 'TXT', f'"{VERSION}"'),)) if kind == 'TXT' else NO_DATA
            case ['ns', 'dns']:
                return self._addresses(name, kind, [self._server])
            case ['svc'] | ['pod'] | ['dns']:
                return NO_DATA
            case [namespace, 'svc' | 'pod']:
                return NO_DATA if self._of.namespace(namespace) else UNKNOWN
            case [pod, namespace, 'pod']:
                return self._pod(name, kind, pod, namespace)
            case [*before, service, namespace, 'svc']:
                return self._service(name, kind, before, f'{namespace}/{service}')
        return UNKNOWN

    def _pod(self, name: str, kind: str, pod: str, namespace: str) -> Answer:
        """`1-2-3-4.namespace.pod`: the address is in the name, whether there is such a pod or not."""
        ip = pod.replace('-', '.')
        if pod.count('-') != 3 or not _is_ipv4(ip) or not self._of.namespace(namespace):
            return UNKNOWN
        return self._addresses(name, kind, [ip])

    def _service(self, name: str, kind: str, before: list[str], key: str) -> Answer:
        service = self._of.service(key)
        if service is None:
            return UNKNOWN
        spec = service['spec']
        if spec.get('type') == 'ExternalName':
            return self._external(name, kind, spec['externalName']) if not before else UNKNOWN
        match before:
            case []:
                port = None
            case [hostname]:
                return self._endpoint(name, kind, service, hostname)
            case [port_name, protocol] if port_name.startswith('_') and protocol.startswith('_'):
                port = port_name[1:], protocol[1:].upper()
            case _:
                return UNKNOWN
        if spec.get('clusterIP') == 'None':
            return self._headless(name, kind, service, port)
        ports = [p for p in spec.get('ports') or () if port in (None, _port_key(p))]
        if not ports:
            return UNKNOWN
        if kind == 'SRV':
            target = self._name(service)
            records = tuple(Record(name, 'SRV', f'0 {WEIGHT} {p["port"]} {target}.') for p in ports)
            return Answer(records=records, extra=(Record(target, 'A', spec['clusterIP']),))
        return self._addresses(name, kind, [spec['clusterIP']])

    def _external(self, name: str, kind: str, target: str) -> Answer:
        """Followed as long as it leads to names of the cluster; once, since chains of them are nobody's need."""
        if _is_ipv4(target):
            return self._addresses(name, kind, [target])
        target = target.rstrip('.').lower()
        alias = Record(name, 'CNAME', f'{target}.')
        if kind == 'CNAME':
            return Answer(records=(alias,))
        if not self.owns(target):
            return Answer(records=(alias,), alias=target)
        labels = target[: -len(self.domain)].rstrip('.').split('.')
        service = self._of.service('/'.join(labels[-2:-4:-1])) if labels[-1:] == ['svc'] else None
        if service is not None and service['spec'].get('type') == 'ExternalName':
            return Answer(records=(alias,))
        return Answer(records=(alias, *self._answer(target, labels, kind).records))

    def _endpoint(self, name: str, kind: str, service: Obj, hostname: str) -> Answer:
        ready = {e.ip: None for e in self._endpoints(service) if e.hostname == hostname}
        if not ready:
            return UNKNOWN
        if kind == 'SRV':
            return self._targets(name, self._ports(service, None, hostname), service)
        return self._addresses(name, kind, ready)

    def _headless(self, name: str, kind: str, service: Obj, port: tuple[str, str] | None) -> Answer:
        found = list(self._ports(service, port, None))
        if not found:
            return UNKNOWN
        if kind == 'SRV':
            return self._targets(name, found, service)
        return self._addresses(name, kind, dict.fromkeys(e.ip for _, e in found))

    def _targets(self, name: str, found: Iterable[tuple[int, Endpoint]], service: Obj) -> Answer:
        found = [(number, e) for number, e in found if number]
        if not found:
            return NO_DATA
        base, share = self._name(service), max(1, WEIGHT // len(found))
        records = [Record(name, 'SRV', f'0 {share} {n} {e.hostname}.{base}.') for n, e in found]
        extra = [Record(f'{e.hostname}.{base}', 'A', e.ip) for _, e in found]
        return Answer(records=tuple(dict.fromkeys(records)), extra=tuple(dict.fromkeys(extra)))

    def _ports(
        self, service: Obj, port: tuple[str, str] | None, hostname: str | None
    ) -> Iterator[tuple[int, Endpoint]]:
        """Each port of each endpoint that is ready; 0 where a slice has none, as of a Service without ports."""
        for piece in self._pieces(service):
            numbers = [p.get('port') or 0 for p in piece.get('ports') or () if port in (None, _port_key(p))]
            if not piece.get('ports') and port is None:
                numbers = [0]
            for endpoint in _ready(piece):
                if hostname in (None, endpoint.hostname):
                    yield from ((number, endpoint) for number in numbers)

    def _endpoints(self, service: Obj) -> Iterator[Endpoint]:
        for piece in self._pieces(service):
            yield from _ready(piece)

    def _pieces(self, service: Obj) -> Iterable[Obj]:
        return sorted((s for s in self._of.slices(key_of(service)) if s.get('addressType') == 'IPv4'), key=name_of)

    def _name(self, service: Obj) -> str:
        return f'{name_of(service)}.{namespace_of(service)}.svc.{self.domain}'

    def _reverse(self, name: str, kind: str) -> Answer | None:
        parts = name.removesuffix(f'.{REVERSE}').split('.')
        ip = '.'.join(reversed(parts))
        if len(parts) != 4 or not _is_ipv4(ip):
            return None
        targets = [self._name(s) for s in self._of.service_at(ip)]
        if not targets:
            for piece in self._of.slices_at(ip):
                base = f'{labels_of(piece).get(SERVICE_LABEL, "")}.{namespace_of(piece)}.svc.{self.domain}'
                named = (e for e in piece['endpoints'] if e.get('hostname') and ip in e['addresses'] and _is_ready(e))
                targets += [f'{e["hostname"]}.{base}' for e in named]
        if not targets:
            return UNKNOWN if ip.startswith('127.') and ip != '127.0.0.1' else None
        records = tuple(Record(name, 'PTR', f'{t}.') for t in dict.fromkeys(targets))
        return Answer(records=records) if kind == 'PTR' else NO_DATA

    def _addresses(self, name: str, kind: str, ips: Iterable[str]) -> Answer:
        return Answer(records=tuple(Record(name, 'A', ip) for ip in ips)) if kind == 'A' else NO_DATA


def _port_key(port: Obj) -> tuple[str, str]:
    return port.get('name') or '', port.get('protocol') or 'TCP'


def _is_ready(endpoint: Obj) -> bool:
    return (endpoint.get('conditions') or {}).get('ready') is not False


def _ready(piece: Obj) -> Iterator[Endpoint]:
    for endpoint in piece.get('endpoints') or ():
        if _is_ready(endpoint):
            for ip in endpoint.get('addresses') or ():
                yield Endpoint(ip, endpoint.get('hostname') or ip.replace('.', '-'))


def _is_ipv4(text: str) -> bool:
    try:
        return bool(ipaddress.IPv4Address(text))
    except ValueError:
        return False
