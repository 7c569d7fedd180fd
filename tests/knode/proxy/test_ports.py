"""Bytes through the proxy: real sockets on addresses of this test's own."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from kcore.env import Env
from knode.proxy import sockets
from knode.proxy.model import NOTHING, Backend, Frontend, Plan, Target
from knode.proxy.ports import Ports
from knode.proxy.work import CHUNK_BYTES, Work

NET = f'127.{40 + os.getpid() % 20}.{os.getpid() // 20 % 250}'
VIP, OTHER = f'{NET}.1', f'{NET}.2'
PORT = 18080
TCP, UDP = Frontend('TCP', VIP, PORT), Frontend('UDP', VIP, PORT)
WITHIN_S = 30.0


def backend(n: int) -> Backend:
    return Backend(f'{NET}.{n}', PORT, 'n1')


def to(*numbers: int, frontends: tuple[Frontend, ...] = (TCP,), **more: Any) -> Plan:
    target = Target('d/s', 'd/s:x', tuple(backend(n) for n in numbers), **more)
    return Plan(dict.fromkeys(frontends, target), {})


@pytest.fixture
async def proxy() -> AsyncIterator[SimpleNamespace]:
    work, told = Work(Env.real().clock, lambda: 24), []
    ports = Ports(work, lambda *said: told.append(said))
    yield SimpleNamespace(work=work, ports=ports, told=told, set=lambda plan: ports.set('d/s', plan))
    ports.close()
    for relay in [*work.relays]:
        relay.abort()
    await settled(lambda: not work.connections)


async def settled(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not condition():
            await asyncio.sleep(0.005)


class Echo:
    """Answers each connection and datagram with its own number, the peer's address, and then all that it is sent."""

    def __init__(self, n: int) -> None:
        self.n, self.peers = n, []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peers.append(writer.get_extra_info('peername')[0])
        writer.write(f'{self.n}\n'.encode())
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Any]]:
    async with contextlib.AsyncExitStack() as stack:

        async def start(n: int) -> SimpleNamespace:
            echo = Echo(n)
            server = await asyncio.start_server(echo, backend(n).ip, PORT)
            stack.callback(server.close)

            class Datagrams(asyncio.DatagramProtocol):
                def connection_made(self, transport: Any) -> None:
                    self.transport = transport

                def datagram_received(self, data: bytes, addr: Any) -> None:
                    self.transport.sendto(f'{n} {addr[0]} '.encode() + data, addr)

            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_datagram_endpoint(Datagrams, (backend(n).ip, PORT))
            stack.callback(transport.close)
            return SimpleNamespace(echo=echo, close=server.close, close_udp=transport.close)

        yield start


async def who(ip: str = VIP, source: str | None = None) -> str:
    reader, writer = await asyncio.open_connection(ip, PORT, local_addr=(source, 0) if source else None)
    async with asyncio.timeout(WITHIN_S):
        line = await reader.readline()
    writer.close()
    return line.decode().strip()


async def test_connections_take_turns_and_the_backend_sees_the_clients_address(proxy, serve):
    first, second = await serve(10), await serve(11)
    proxy.set(to(10, 11))
    assert [await who(source=f'{NET}.77') for _ in range(4)] == ['10', '11', '10', '11']
    assert {*first.echo.peers, *second.echo.peers} == {f'{NET}.77'}


async def test_half_closed_connections_carry_the_rest_of_the_other_way(proxy, serve):
    await serve(10)
    proxy.set(to(10))
    reader, writer = await asyncio.open_connection(VIP, PORT)
    payload = os.urandom(5_000_000)
    writer.write(payload)
    writer.write_eof()
    async with asyncio.timeout(WITHIN_S):
        assert await reader.read() == b'10\n' + payload
    writer.close()
    await settled(lambda: not proxy.work.connections)


async def test_a_backend_that_is_gone_is_given_up_for_the_next_one(proxy, serve):
    await serve(11)
    proxy.set(to(10, 11))
    assert [await who() for _ in range(4)] == ['11'] * 4
    assert proxy.work.failed == 2
    proxy.set(to(10))
    with pytest.raises(ConnectionResetError):
        await who()


async def test_a_backend_that_no_route_leads_to_is_given_up_for_the_next_one(proxy, serve):
    await serve(11)
    target = Target('d/s', 'd/s:x', (Backend('255.255.255.255', PORT), backend(11)))
    proxy.set(Plan({TCP: target}, {}))
    assert [await who() for _ in range(2)] == ['11'] * 2
    assert proxy.work.failed == 1


async def test_without_endpoints_nobody_listens(proxy, serve):
    await serve(10)
    proxy.set(to(10))
    assert await who() == '10'
    proxy.set(NOTHING)
    with pytest.raises(ConnectionRefusedError):
        await who()


async def test_established_connections_outlive_their_endpoint_and_their_service(proxy, serve):
    await serve(10)
    proxy.set(to(10))
    reader, writer = await asyncio.open_connection(VIP, PORT)
    assert await reader.readline() == b'10\n'
    for plan in (to(11), NOTHING):
        proxy.set(plan)
        writer.write(b'still here\n')
        assert await reader.readline() == b'still here\n'
    writer.close()


async def test_a_reset_on_one_side_is_a_reset_on_the_other(proxy, serve):
    gone = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'hello')
        with contextlib.suppress(ConnectionResetError):
            await reader.read(1)
            return
        gone.set()

    server = await asyncio.start_server(hang, backend(12).ip, PORT)
    proxy.set(to(12))
    client = socket.create_connection((VIP, PORT))
    client.setblocking(False)
    assert await asyncio.get_running_loop().sock_recv(client, 5) == b'hello'
    sockets.abort(client)
    async with asyncio.timeout(WITHIN_S):
        await gone.wait()
    server.close()


async def test_a_slow_reader_holds_its_own_writer_and_nobody_else(proxy, serve):
    """The writer can hand over what kernel and proxy hold, and no more; others are served meanwhile."""
    await serve(10)
    proxy.set(to(10))
    _, writer = await asyncio.open_connection(VIP, PORT, limit=1024)
    writer.transport.set_write_buffer_limits(high=CHUNK_BYTES)
    sent = 0

    async def flood() -> None:
        nonlocal sent
        while True:
            writer.write(b'x' * CHUNK_BYTES)
            await writer.drain()
            sent += CHUNK_BYTES

    flooding = asyncio.ensure_future(flood())
    before = -1
    while sent != before:
        before = sent
        for _ in range(20):
            assert await who() == '10'
    flooding.cancel()
    held = sum(len(way._rest) for relay in proxy.work.relays for way in relay._ways)
    assert 0 < held <= 2 * CHUNK_BYTES
    writer.transport.abort()
    await settled(lambda: not proxy.work.relays)


async def test_clients_stay_where_they_are_while_affinity_is_on(proxy, serve):
    for n in (10, 11, 12):
        await serve(n)
    proxy.set(to(10, 11, 12, affinity_s=100))
    homes = {c: await who(source=f'{NET}.{c}') for c in range(50, 80)}
    assert {*homes.values()} == {'10', '11', '12'}
    proxy.set(to(10, 11, 12, 13, affinity_s=100))
    assert {c: await who(source=f'{NET}.{c}') for c in homes} == homes
    proxy.set(to(10, 11, 12))
    assert {await who(source=f'{NET}.50') for _ in range(3)} == {'10', '11', '12'}


async def test_policy_local_resets_who_has_no_endpoint_on_its_node(proxy, serve):
    await serve(10)
    proxy.set(to(10, near=True))
    assert await who(source=f'{NET}.50') == '10'
    with pytest.raises(ConnectionResetError):
        await who(source='127.63.9.9')
    assert proxy.work.refused == 1


async def test_beyond_the_limit_connections_are_reset(proxy, serve):
    await serve(10)
    proxy.work.connections_max = 1
    proxy.set(to(10))
    reader, writer = await asyncio.open_connection(VIP, PORT)
    assert await reader.readline() == b'10\n'
    with pytest.raises(ConnectionResetError):
        await who()
    writer.close()
    await settled(lambda: not proxy.work.connections)
    assert await who() == '10'


async def ask(client: socket.socket, text: bytes) -> list[str]:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(client, text)
    async with asyncio.timeout(WITHIN_S):
        return (await loop.sock_recv(client, 65536)).decode().split(' ', 2)


def datagrams(source: str = '127.0.0.1') -> socket.socket:
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.setblocking(False)
    client.bind((source, 0))
    client.connect((VIP, PORT))
    return client


async def test_datagrams_of_a_client_go_one_way_until_their_endpoint_goes(proxy, serve):
    await serve(10)
    await serve(11)
    proxy.set(to(10, 11, frontends=(UDP,)))
    with datagrams(f'{NET}.60') as one, datagrams(f'{NET}.61') as two:
        assert [(await ask(one, b'a'))[0] for _ in range(3)] == ['10'] * 3
        assert await ask(two, b'b c') == ['11', f'{NET}.61', 'b c']
        assert proxy.work.flows == 2
        proxy.set(to(11, frontends=(UDP,)))
        assert proxy.work.flows == 1
        assert (await ask(one, b'a'))[0] == '11'
        proxy.set(NOTHING)
        assert proxy.work.flows == 0
        with pytest.raises(ConnectionRefusedError):
            await ask(one, b'a')


async def test_a_first_datagram_that_is_refused_goes_to_the_next_backend(proxy, serve):
    await serve(11)
    proxy.set(to(10, 11, frontends=(UDP,)))
    with datagrams() as client:
        assert (await ask(client, b'a'))[0] == '11'
        assert (await ask(client, b'b'))[2] == 'b'


async def test_flows_end_in_silence_and_beyond_the_limit_the_one_silent_longest(proxy, serve, monkeypatch):
    from knode.proxy import udp

    await serve(10)
    monkeypatch.setattr(udp, 'SWEEP_S', 0.01)
    monkeypatch.setattr(udp, 'IDLE_S', 0.0)
    proxy.work.flows_max = 1
    proxy.set(to(10, frontends=(UDP,)))
    with datagrams() as one, datagrams() as two:
        assert (await ask(one, b'a'))[0] == '10'
        await settled(lambda: proxy.work.flows == 0)
        monkeypatch.setattr(udp, 'IDLE_S', 100.0)
        assert (await ask(one, b'a'))[0] == '10'
        proxy.work.flows_max = 2
        assert (await ask(two, b'b'))[0] == '10'
        assert (await ask(one, b'a'))[0] == '10'
        with datagrams() as three:
            assert (await ask(three, b'c'))[0] == '10'
            [port] = proxy.ports._open.values()
            assert [*port._flows] == [one.getsockname(), three.getsockname()]
        assert proxy.work.refused == 0


async def test_where_nobody_can_listen_it_is_said_once_and_tried_again(proxy, serve):
    await serve(10)
    with socket.create_server((VIP, PORT)) as taken:
        proxy.set(to(10))
        proxy.set(to(10, 11))
        [(service, frontend, why)] = proxy.told
        assert (service, frontend) == ('d/s', TCP)
        assert 'another process has taken the port' in why
        taken.close()
    proxy.ports.retry()
    assert not proxy.ports.closed
    assert await who() == '10'


async def test_ports_without_privilege_and_protocols_that_are_not_served_are_told(proxy, monkeypatch):
    def refuse(*_: Any) -> None:
        raise OSError(errno.EACCES, 'Permission denied')

    monkeypatch.setattr('knode.proxy.tcp.listen_tcp', refuse)
    proxy.set(to(10, frontends=(TCP, Frontend('SCTP', VIP, PORT))))
    assert [why for _, _, why in proxy.told] == [
        'ports below net.ipv4.ip_unprivileged_port_start take privilege that the node agent does not have',
        'SCTP is not served',
    ]


async def test_an_address_that_two_services_claim_is_the_firsts_until_that_goes(proxy, serve):
    await serve(10)
    await serve(11)
    proxy.set(to(10))
    proxy.ports.set('d/other', Plan({TCP: Target('d/other', 'd/other:x', (backend(11),))}, {}))
    assert await who() == '10'
    proxy.set(NOTHING)
    assert await who() == '11'


async def test_those_who_listen_together_share_new_connections_and_take_over_from_each_other(proxy, serve):
    """With affinity the first of them has all, as its memory alone is exact."""
    await serve(10)
    other = Ports(Work(Env.real().clock, lambda: 24), lambda *_: None)
    taken = [0, 0]

    async def count() -> list[int]:
        for works, i in ((proxy.work, 0), (other._work, 1)):
            taken[i] = works.bytes
        for c in range(40):
            assert await who(source=f'{NET}.{50 + c}') == '10'
        return [int(proxy.work.bytes > taken[0]), int(other._work.bytes > taken[1])]

    proxy.set(to(10))
    other.set('d/s', to(10))
    assert await count() == [1, 1]
    proxy.set(to(10, affinity_s=9))
    other.set('d/s', to(10, affinity_s=9))
    assert await count() == [1, 0]
    proxy.set(NOTHING)
    assert await count() == [0, 1]
    other.set('d/s', NOTHING)
    for ports in (proxy.ports, other):
        ports.set('d/s', to(10, affinity_s=9))
    assert await count() == [1, 0]
    other.close()


async def test_of_those_who_listen_together_the_first_has_all_flows_until_it_goes(proxy, serve):
    await serve(10)
    other = Ports(Work(Env.real().clock, lambda: 24), lambda *_: None)
    for ports in (proxy.ports, other):
        ports.set('d/s', to(10, frontends=(UDP,)))

    async def ask_often() -> None:
        for n in range(20):
            with datagrams(f'{NET}.{60 + n}') as client:
                assert (await ask(client, b'a'))[0] == '10'

    await ask_often()
    assert (proxy.work.flows, other._work.flows) == (20, 0)
    proxy.set(NOTHING)
    await ask_often()
    assert other._work.flows == 20
    other.close()
