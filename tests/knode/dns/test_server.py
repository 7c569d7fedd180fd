"""Questions over the wire: what the cluster knows, what others are asked, and what is none."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from kcore.env import Env
from kcore.tasks import start_detached, stop
from knode.dns import forward, messages
from knode.dns import server as module
from knode.dns.forward import Forwarder
from knode.dns.server import DnsServer
from knode.dns.zone import Answer, Record, Sources, Zone

NET = f'127.{40 + os.getpid() % 20}.{os.getpid() // 20 % 250}'
HOST, OTHER, PORT = f'{NET}.201', f'{NET}.202', 10053
WITHIN_S = 30.0
MANY = 200


def piece(count: int) -> dict[str, Any]:
    return {
        'metadata': {'name': 'x', 'namespace': 'ns', 'labels': {}}, 'addressType': 'IPv4',
        'ports': [{'name': 'p', 'port': 1}],
        'endpoints': [{'addresses': [f'127.64.1.{n}']} for n in range(2, count + 2)],
    }  # fmt: skip


def services(key: str) -> dict[str, Any] | None:
    name = key.partition('/')[2]
    spec = {
        'web': {'clusterIP': '127.96.0.5', 'ports': [{'name': 'http', 'port': 80}]},
        'many': {'clusterIP': 'None', 'ports': [{'name': 'p', 'port': 1}]},
        'few': {'clusterIP': 'None', 'ports': [{'name': 'p', 'port': 1}]},
        'out': {'type': 'ExternalName', 'externalName': 'example.com'},
    }.get(name)
    return {'metadata': {'name': name, 'namespace': 'ns'}, 'spec': spec} if spec else None


SOURCES = Sources(
    service=services, service_at=lambda ip: [], slices=lambda key: [piece(MANY if key == 'ns/many' else 3)],
    slices_at=lambda ip: [], namespace=lambda name: True,
)  # fmt: skip


class Outside(asyncio.DatagramProtocol):
    """The machine's name server: knows example.com, says NXDOMAIN to the rest."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.silent = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def answer(self, data: bytes) -> bytes:
        query = dns.message.from_wire(data)
        name = query.question[0].name.to_text()
        self.asked.append(name)
        response = dns.message.make_response(query)
        if name == 'example.com.':
            response.answer.append(dns.rrset.from_text(name, 60, 'IN', 'A', '93.184.216.34'))
        else:
            response.set_rcode(dns.rcode.NXDOMAIN)
        return response.to_wire()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if not self.silent:
            self.transport.sendto(self.answer(data), addr)

    async def stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer = self.answer(await reader.readexactly(int.from_bytes(await reader.readexactly(2))))
        writer.write(len(answer).to_bytes(2) + answer)
        writer.close()


@pytest.fixture
async def world(env: Env) -> AsyncIterator[SimpleNamespace]:
    loop = asyncio.get_running_loop()
    outside = Outside()
    transport, _ = await loop.create_datagram_endpoint(lambda: outside, (OTHER, PORT))
    stream = await asyncio.start_server(outside.stream, OTHER, PORT)
    made = SimpleNamespace(outside=outside, servers=[f'{OTHER}#{PORT}'], registry=CollectorRegistry())
    server = DnsServer(
        env, Zone(SOURCES, 'cluster.local', '127.96.0.10'), Forwarder(lambda: made.servers), made.registry
    )
    task = start_detached('dns', server.run(HOST, PORT))
    await until(lambda: server._group)
    yield made
    await stop(task)
    transport.close()
    stream.close()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not condition():
            await asyncio.sleep(0.005)


class Asking(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.got: asyncio.Queue[bytes] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.got.put_nowait(data)


async def raw(data: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    transport, asking = await loop.create_datagram_endpoint(Asking, remote_addr=(HOST, PORT))
    try:
        transport.sendto(data)
        async with asyncio.timeout(WITHIN_S):
            return await asking.got.get()
    finally:
        transport.close()


async def ask(name: str, kind: str = 'A', **more: Any) -> dns.message.Message:
    query = dns.message.make_query(name, kind, **more)
    answer = dns.message.from_wire(await raw(query.to_wire()))
    assert answer.id == query.id
    return answer


async def ask_stream(*names: str) -> list[dns.message.Message]:
    """All at once on one connection."""
    reader, writer = await asyncio.open_connection(HOST, PORT)
    wires = [dns.message.make_query(n, 'A').to_wire() for n in names]
    writer.write(b''.join(len(w).to_bytes(2) + w for w in wires))
    async with asyncio.timeout(WITHIN_S):
        answers = [await reader.readexactly(int.from_bytes(await reader.readexactly(2))) for _ in names]
    writer.close()
    return [dns.message.from_wire(a) for a in answers]


def addresses(answer: dns.message.Message) -> list[str]:
    return [r.to_text() for s in answer.answer for r in s if s.rdtype == 1]


async def test_names_of_the_cluster_are_answered_with_authority_and_whatever_their_case(world):
    answer = await ask('WEB.ns.svc.Cluster.LOCAL')
    assert addresses(answer) == ['127.96.0.5']
    assert answer.flags & dns.flags.AA
    assert answer.answer[0].name.to_text() == 'WEB.ns.svc.Cluster.LOCAL.'
    assert world.outside.asked == []


async def test_what_is_missing_says_for_how_long(world):
    for name, kind, code in (('nosuch.ns.svc', 'A', dns.rcode.NXDOMAIN), ('web.ns.svc', 'AAAA', dns.rcode.NOERROR)):
        answer = await ask(f'{name}.cluster.local', kind)
        assert (answer.rcode(), answer.answer) == (code, [])
        assert answer.authority[0].to_text().startswith('cluster.local. 5 IN SOA ns.dns.cluster.local.')


async def test_addresses_of_many_come_in_changing_order(world):
    first = {addresses(await ask('few.ns.svc.cluster.local'))[0] for _ in range(60)}
    assert first == {'127.64.1.2', '127.64.1.3', '127.64.1.4'}


async def test_an_answer_too_long_for_a_datagram_is_cut_and_whole_over_tcp_or_with_more_room(world):
    name = 'many.ns.svc.cluster.local'
    cut = await ask(name)
    assert cut.flags & dns.flags.TC
    assert len(addresses(await ask(name, use_edns=0, payload=4096))) == MANY
    [whole] = await ask_stream(name)
    assert len(addresses(whole)) == MANY


async def test_other_names_are_asked_for_outside_over_udp_and_tcp(world):
    answer = await ask('example.com')
    assert addresses(answer) == ['93.184.216.34']
    assert (await ask('nosuch.example')).rcode() == dns.rcode.NXDOMAIN
    assert world.outside.asked == ['example.com.', 'nosuch.example.']
    both = await ask_stream('example.com', 'web.ns.svc.cluster.local')
    assert sorted(a for answer in both for a in addresses(answer)) == ['127.96.0.5', '93.184.216.34']


async def test_an_alias_is_followed_outside_and_stands_alone_when_nobody_answers(world):
    answer = await ask('out.ns.svc.cluster.local')
    assert [s.to_text() for s in answer.answer] == [
        'out.ns.svc.cluster.local. 5 IN CNAME example.com.', 'example.com. 5 IN A 93.184.216.34',
    ]  # fmt: skip
    world.servers = []
    answer = await ask('out.ns.svc.cluster.local')
    assert [s.to_text() for s in answer.answer] == ['out.ns.svc.cluster.local. 5 IN CNAME example.com.']


async def test_the_next_name_server_is_asked_when_one_refuses_or_is_silent(world, monkeypatch):
    world.servers = [f'{NET}.203#{PORT}', f'{OTHER}#{PORT}']
    assert addresses(await ask('example.com')) == ['93.184.216.34']
    monkeypatch.setattr(forward, 'TRY_S', 0.05)
    world.outside.silent = True
    assert (await ask('example.com')).rcode() == dns.rcode.SERVFAIL
    assert world.outside.asked == ['example.com.']


async def test_beyond_the_limit_questions_to_others_fail_at_once_and_the_clusters_do_not(world, monkeypatch):
    monkeypatch.setattr(module, 'FORWARDS_MAX', 0)
    assert (await ask('example.com')).rcode() == dns.rcode.SERVFAIL
    assert addresses(await ask('web.ns.svc.cluster.local')) == ['127.96.0.5']


async def test_what_is_no_question_is_refused_or_not_answered(world):
    notify = dns.message.make_query('a', 'A')
    notify.set_opcode(dns.opcode.NOTIFY)
    empty = dns.message.Message()
    chaos = dns.message.make_query('version.bind', 'TXT', 'CH')
    for query, code in ((notify, dns.rcode.NOTIMP), (empty, dns.rcode.FORMERR), (chaos, dns.rcode.REFUSED)):
        assert dns.message.from_wire(await raw(query.to_wire())).rcode() == code
    assert messages.parse(b'') is None
    assert messages.parse(dns.message.make_response(notify).to_wire()) is None


async def test_one_connection_too_many_is_closed_and_a_silent_one_too(world, monkeypatch):
    monkeypatch.setattr(module, 'CONNECTIONS_MAX', 1)
    first, held = await asyncio.open_connection(HOST, PORT)
    second, other = await asyncio.open_connection(HOST, PORT)
    query = dns.message.make_query('web.ns.svc.cluster.local', 'A').to_wire()
    async with asyncio.timeout(WITHIN_S):
        with contextlib.suppress(ConnectionResetError):
            assert await second.read() == b''
        monkeypatch.setattr(module, 'IDLE_S', 0.05)
        held.write(len(query).to_bytes(2) + query)
        answer = await first.readexactly(int.from_bytes(await first.readexactly(2)))
        assert addresses(dns.message.from_wire(answer)) == ['127.96.0.5']
        with contextlib.suppress(ConnectionResetError):
            assert await first.read() == b''
    held.close()
    other.close()


async def test_requests_and_responses_are_counted_as_coredns_counts_them(world):
    await ask('web.ns.svc.cluster.local')
    await ask('nosuch.ns.svc.cluster.local')
    await ask('example.com')
    value = world.registry.get_sample_value
    where = {'server': 'dns://:53', 'zone': 'cluster.local.', 'view': ''}
    assert value('coredns_dns_requests_total', {**where, 'proto': 'udp', 'family': '1', 'type': 'A'}) == 2
    for code, zone, plugin in (
        ('NOERROR', 'cluster.local.', 'kubernetes'), ('NXDOMAIN', 'cluster.local.', 'kubernetes'),
        ('NOERROR', '.', 'forward'),
    ):  # fmt: skip
        assert value('coredns_dns_responses_total', {**where, 'zone': zone, 'rcode': code, 'plugin': plugin}) == 1
    assert value('coredns_dns_request_duration_seconds_count', where) == 2


@given(st.binary(max_size=600))
def test_no_bytes_make_the_parser_fail(data):
    found = messages.parse(data)
    assert found is None or isinstance(found, bytes | messages.Query)


LABEL = st.from_regex(r'[a-z0-9_]([a-z0-9_-]{0,20}[a-z0-9_])?', fullmatch=True)


@given(st.lists(LABEL, min_size=1, max_size=6), st.sampled_from(['A', 'AAAA', 'SRV', 'PTR', 'TXT', 'CNAME', 'ANY']))
def test_every_question_about_the_zone_has_an_answer_that_can_be_written(labels, kind):
    zone = Zone(SOURCES, 'cluster.local', '127.96.0.10')
    query = messages.parse(dns.message.make_query('.'.join([*labels, 'cluster.local']), kind).to_wire())
    assert isinstance(query, messages.Query)
    answer = zone.answer(query.name, query.type)
    assert answer is not None
    wire = messages.build(query, answer, zone.authority(), query.room)
    assert len(wire) <= query.room
    assert dns.message.from_wire(wire).question == query.message.question


def test_records_of_others_are_read_whatever_they_are():
    assert messages.records(b'nonsense') == ()
    assert Answer(records=(Record('a', 'A', '1.2.3.4'),)).code == 'NOERROR'
