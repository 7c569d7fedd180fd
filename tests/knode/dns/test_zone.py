"""What names of the cluster mean, row by row of the DNS specification 1.1.0 and of CoreDNS' own tests."""

from __future__ import annotations

from typing import Any

import pytest

from kcore.meta.objects import key_of
from knode.dns.zone import NO_DATA, UNKNOWN, Answer, Sources, Zone, cluster_ip, named_addresses

D = 'cluster.local'
SERVER = '127.96.0.10'


def service(name: str, ip: str | None = None, *ports: tuple[str, int, str], **spec: Any) -> dict[str, Any]:
    listed = [{'name': n, 'port': p, 'protocol': proto} for n, p, proto in ports]
    return {
        'metadata': {'name': name, 'namespace': 'ns'},
        'spec': {'type': 'ClusterIP', 'clusterIP': ip, 'ports': listed, **spec},
    }


def piece(of: str, *endpoints: tuple[str, str | None, bool], ports: Any = (('web', 8080, 'TCP'),)) -> dict[str, Any]:
    return {
        'metadata': {'name': f'{of}-1', 'namespace': 'ns', 'labels': {'kubernetes.io/service-name': of}},
        'addressType': 'IPv4', 'ports': [{'name': n, 'port': p, 'protocol': proto} for n, p, proto in ports],
        'endpoints': [
            {'addresses': [ip], 'conditions': {'ready': ready}} | ({'hostname': name} if name else {})
            for ip, name, ready in endpoints
        ],
    }  # fmt: skip


SERVICES = [
    service('web', '127.96.0.5', ('http', 80, 'TCP'), ('dns', 53, 'UDP')),
    service('db', 'None', ('web', 80, 'TCP')),
    service('bare', 'None'),
    service('empty', 'None', ('web', 80, 'TCP')),
    service('out', type='ExternalName', externalName='Example.com'),
    service('in', type='ExternalName', externalName=f'web.ns.svc.{D}.'),
    service('loop', type='ExternalName', externalName=f'loop.ns.svc.{D}'),
    service('ip', type='ExternalName', externalName='1.2.3.4'),
]
SLICES = [
    piece('db', ('127.64.0.2', 'db-0', True), ('127.64.0.3', None, True), ('127.64.0.4', 'db-2', False)),
    piece('bare', ('127.64.0.7', 'b', True), ports=()),
    piece('empty', ('127.64.0.9', None, False)),
    piece('web', ('127.64.0.8', 'w', True)),
]


@pytest.fixture
def zone() -> Zone:
    services = {key_of(s): s for s in SERVICES}
    return Zone(
        Sources(
            service=services.get,
            service_at=lambda ip: [s for s in SERVICES if ip in cluster_ip(s)],
            slices=lambda key: [s for s in SLICES if f'ns/{s["metadata"]["name"]}' == f'{key}-1'],
            slices_at=lambda ip: [s for s in SLICES if ip in named_addresses(s)],
            namespace=lambda name: name == 'ns',
        ),
        D, SERVER,
    )  # fmt: skip


def said(answer: Answer | None) -> list[str]:
    assert answer is not None
    return [f'{r.name} {r.type} {r.data}' for r in answer.records]


@pytest.mark.parametrize(
    ('name', 'kind', 'data'),
    [
        ('web.ns.svc', 'A', ['127.96.0.5']),
        ('w.web.ns.svc', 'A', ['127.64.0.8']),
        ('db.ns.svc', 'A', ['127.64.0.2', '127.64.0.3']),
        ('bare.ns.svc', 'A', ['127.64.0.7']),
        ('db-0.db.ns.svc', 'A', ['127.64.0.2']),
        ('127-64-0-3.db.ns.svc', 'A', ['127.64.0.3']),
        ('_http._tcp.web.ns.svc', 'A', ['127.96.0.5']),
        ('_http._tcp.web.ns.svc', 'SRV', [f'0 100 80 web.ns.svc.{D}.']),
        ('_dns._udp.web.ns.svc', 'SRV', [f'0 100 53 web.ns.svc.{D}.']),
        ('web.ns.svc', 'SRV', [f'0 100 80 web.ns.svc.{D}.', f'0 100 53 web.ns.svc.{D}.']),
        ('_web._tcp.db.ns.svc', 'SRV', [f'0 50 8080 db-0.db.ns.svc.{D}.', f'0 50 8080 127-64-0-3.db.ns.svc.{D}.']),
        ('db-0.db.ns.svc', 'SRV', [f'0 100 8080 db-0.db.ns.svc.{D}.']),
        ('10-1-2-3.ns.pod', 'A', ['10.1.2.3']),
        ('ip.ns.svc', 'A', ['1.2.3.4']),
        ('out.ns.svc', 'CNAME', ['example.com.']),
        ('dns-version', 'TXT', ['"1.1.0"']),
        ('ns.dns', 'A', [SERVER]),
    ],
)
def test_names_have_the_records_of_the_specification(zone, name, kind, data):
    answer = zone.answer(f'{name}.{D}', kind)
    assert said(answer) == [f'{name}.{D} {kind} {d}' for d in data]
    assert answer.code == 'NOERROR'


@pytest.mark.parametrize(
    ('name', 'kind'),
    [('web.ns.svc', 'AAAA'), ('db.ns.svc', 'AAAA'), ('ns.svc', 'A'), ('ns.pod', 'A'), ('svc', 'A'),
     ('bare.ns.svc', 'SRV'), ('10-1-2-3.ns.pod', 'AAAA'), ('dns-version', 'A'), ('web.ns.svc', 'TXT')],
)  # fmt: skip
def test_a_name_that_is_there_without_such_records_has_no_data(zone, name, kind):
    assert zone.answer(f'{name}.{D}', kind) == NO_DATA


@pytest.mark.parametrize(
    'name',
    ['nosuch.ns.svc', 'web.other.svc', 'other.svc', 'db-2.db.ns.svc', 'x.db.ns.svc', 'empty.ns.svc', 'a.b.c.web.ns.svc',
     '_http._udp.web.ns.svc', '_nosuch._tcp.db.ns.svc', 'http.tcp.web.ns.svc', 'x.out.ns.svc', 'nonsense', 'x.ns.pod',
     '10-1-2.ns.pod', '10-1-2-3.other.pod', '10-1-2-777.ns.pod', 'google.com'],
)  # fmt: skip
def test_other_names_of_the_zone_are_not_there(zone, name):
    assert zone.answer(f'{name}.{D}', 'A') == UNKNOWN


def test_names_outside_the_zone_are_somebody_elses(zone):
    for name in ('example.com', 'xcluster.local', 'local', '', '1.2.3.in-addr.arpa', '1.0.0.127.in-addr.arpa'):
        assert zone.answer(name, 'A') is None


def test_the_zone_tells_of_itself(zone):
    assert said(zone.answer(D, 'NS')) == [f'{D} NS ns.dns.{D}.']
    assert said(zone.answer(D, 'SOA')) == [f'{D} SOA {zone.authority().data}']
    assert zone.answer(D, 'A') == NO_DATA


def test_targets_of_services_come_with_their_addresses(zone):
    extra = zone.answer(f'_web._tcp.db.ns.svc.{D}', 'SRV').extra
    assert [(r.name, r.data) for r in extra] == [
        (f'db-0.db.ns.svc.{D}', '127.64.0.2'), (f'127-64-0-3.db.ns.svc.{D}', '127.64.0.3'),
    ]  # fmt: skip
    [only] = zone.answer(f'_http._tcp.web.ns.svc.{D}', 'SRV').extra
    assert (only.name, only.data) == (f'web.ns.svc.{D}', '127.96.0.5')


@pytest.mark.parametrize(
    ('ip', 'target'),
    [('127.96.0.5', f'web.ns.svc.{D}.'), ('127.64.0.2', f'db-0.db.ns.svc.{D}.'), ('127.64.0.8', f'w.web.ns.svc.{D}.')],
)
def test_addresses_lead_back_to_services_and_named_endpoints(zone, ip, target):
    name = '.'.join(reversed(ip.split('.'))) + '.in-addr.arpa'
    assert said(zone.answer(name, 'PTR')) == [f'{name} PTR {target}']
    assert zone.answer(name, 'A') == NO_DATA


def test_addresses_of_the_cluster_that_have_no_name_are_not_asked_for_outside(zone):
    assert zone.answer('3.0.64.127.in-addr.arpa', 'PTR') == UNKNOWN  # ready, but without a name
    assert zone.answer('4.0.64.127.in-addr.arpa', 'PTR') == UNKNOWN  # named, but not ready
    assert zone.answer('8.8.8.8.in-addr.arpa', 'PTR') is None


def test_an_external_name_leads_out_or_to_another_service_of_the_cluster(zone):
    out = zone.answer(f'out.ns.svc.{D}', 'A')
    assert (said(out), out.alias) == ([f'out.ns.svc.{D} CNAME example.com.'], 'example.com')
    inside = zone.answer(f'in.ns.svc.{D}', 'A')
    assert said(inside) == [f'in.ns.svc.{D} CNAME web.ns.svc.{D}.', f'web.ns.svc.{D} A 127.96.0.5']
    assert inside.alias == ''
    assert said(zone.answer(f'loop.ns.svc.{D}', 'A')) == [f'loop.ns.svc.{D} CNAME loop.ns.svc.{D}.']
