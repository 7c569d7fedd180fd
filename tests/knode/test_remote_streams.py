"""exec and port-forward as old and new clients speak them, with real processes; a small SPDY client plays kubectl."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import aiohttp
import orjson
import pytest

from kcore.metrics import CollectorRegistry
from kcore.upgrade import Address, Answer, dial
from knode.access import Access
from knode.config import NodeConfig
from knode.server import NodeServer
from knode.streams import spdy_remote
from knode.streams.portforward import CONNECTIONS_MAX
from knode.streams.spdy import DATA, PING, RST_STREAM, SYN_REPLY, SYN_STREAM, Frame, Spdy, control, data_frame

V4 = 'v4.channel.k8s.io'
MIB = 1 << 20


class Client:
    """One SPDY connection, from the client's side: opens odd streams, collects what comes on each."""

    def __init__(self, answer: Answer) -> None:
        self.answer, self.duplex = answer, answer.connection
        self._spdy = Spdy()
        self._next = 1
        self.data: dict[int, bytearray] = {}
        self.ended: set[int] = set()
        self.refused: set[int] = set()
        self.pings: list[int] = []

    async def open(self, **headers: str) -> int:
        stream, self._next = self._next, self._next + 2
        await self.duplex.send(self._spdy.syn(SYN_STREAM, stream, headers))
        self.data[stream] = bytearray()
        await self.until(lambda: self._replied == stream or stream in self.refused)
        return stream

    _replied = 0

    async def until(self, done: Any) -> None:
        async with asyncio.timeout(20):
            while not done():
                data = await self.duplex.receive()
                if not data:
                    raise EOFError
                for frame in self._spdy.receive(data):
                    self._take(frame)

    def _take(self, frame: Frame) -> None:
        if frame.kind == SYN_REPLY:
            self._replied = frame.stream
        elif frame.kind == RST_STREAM:
            self.refused.add(frame.stream)
        elif frame.kind == PING:
            self.pings.append(frame.stream)
        elif frame.kind == DATA:
            self.data[frame.stream] += frame.data
            if frame.fin:
                self.ended.add(frame.stream)

    async def all_ended(self, *streams: int) -> list[bytes]:
        await self.until(lambda: self.ended >= set(streams))
        return [bytes(self.data[s]) for s in streams]


@pytest.fixture
async def node(rig: Any) -> AsyncIterator[SimpleNamespace]:
    """A pod with a sleeping container behind the streams of a node agent; `.dial` asks for an upgrade."""
    handle = await rig.open()
    await rig.start(handle, 'sleep', '1000')

    def records() -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for r in rig.driver.observe(handle):
            found.setdefault(r.name, []).append(r)
        return found

    worker = SimpleNamespace(
        key='default/p', records=records, driver=rig.driver, pod={'spec': {'containers': [{'name': 'c'}]}},
        checkpoint=SimpleNamespace(handle=handle, address='127.0.0.1'),
    )  # fmt: skip
    manager = SimpleNamespace(find=lambda namespace, name: worker if name == 'p' else None)
    config = NodeConfig(name='n', kubeconfig='/dev/null', data_dir='/', listen='127.0.0.1:0')
    routes = {'add_routes': lambda router: None, 'configz': mock.AsyncMock()}
    stats = SimpleNamespace(**routes, registry=CollectorRegistry())
    access = Access(config, rig.env, SimpleNamespace())  # type: ignore[arg-type]
    server = NodeServer(config, rig.env, manager, stats, access)  # type: ignore[arg-type]
    await server.start()

    clients: list[Client] = []

    async def ask(target: str, *protocols: str) -> Client:
        headers = [('Host', 'n'), ('Connection', 'Upgrade'), ('Upgrade', 'SPDY/3.1'), ('Content-Length', '0')]
        headers += [('X-Stream-Protocol-Version', p) for p in protocols]
        clients.append(Client(await dial(rig.env.net, Address('127.0.0.1', server.port), ('POST', target), headers)))
        return clients[-1]

    yield SimpleNamespace(dial=ask, url=f'http://127.0.0.1:{server.port}')
    for client in clients:
        client.duplex.abort()
    await server.close()


def exec_path(*argv: str, **wants: str) -> str:
    query = [f'command={a}' for a in argv] + [f'{k}={v}' for k, v in wants.items()]
    return f'/exec/default/p/c?{"&".join(query)}'


async def test_a_command_has_its_streams_and_its_exit_code(node: Any) -> None:
    client = await node.dial(exec_path('sh', '-c', 'cat;echo+err>%262;exit+7', stdin='1', stdout='1', stderr='1'), V4)
    assert (client.answer.status, client.answer.headers['X-Stream-Protocol-Version']) == (101, V4)
    error, stdin, out, err = [await client.open(streamtype=t) for t in ('error', 'stdin', 'stdout', 'stderr')]
    await client.duplex.send(data_frame(stdin, b'hello') + data_frame(stdin, b'', fin=True))
    said = await client.all_ended(out, err, error)
    assert said[:2] == [b'hello', b'err\n']
    assert orjson.loads(said[2])['details']['causes'] == [{'reason': 'ExitCode', 'message': '7'}]


async def test_ten_megabytes_go_through_a_command_unchanged(node: Any) -> None:
    client = await node.dial(exec_path('cat', stdin='1', stdout='1'), V4)
    error, stdin, out = [await client.open(streamtype=t) for t in ('error', 'stdin', 'stdout')]
    payload = os.urandom(10 * MIB)

    async def pour() -> None:
        for at in range(0, len(payload), 32768):
            await client.duplex.send(data_frame(stdin, payload[at : at + 32768]))
        await client.duplex.send(data_frame(stdin, b'', fin=True))

    pouring = asyncio.ensure_future(pour())
    got, outcome = await client.all_ended(out, error)
    await pouring
    assert got == payload
    assert orjson.loads(outcome)['status'] == 'Success'


async def test_a_client_that_still_sends_learns_the_outcome(node: Any) -> None:
    client = await node.dial(exec_path('true', stdin='1', stdout='1'), V4)
    error, stdin, out = [await client.open(streamtype=t) for t in ('error', 'stdin', 'stdout')]
    pouring = asyncio.ensure_future(client.duplex.send(data_frame(stdin, os.urandom(MIB))))
    _, outcome = await client.all_ended(out, error)
    await pouring
    assert orjson.loads(outcome)['status'] == 'Success'


async def test_a_terminal_gets_its_size_and_a_quiet_client_its_pongs(node: Any) -> None:
    script = 'until+[+"$(stty+size)"+=+"33+77"+];do+sleep+.01;done;stty+size'
    client = await node.dial(exec_path('sh', '-c', script, stdin='1', stdout='1', tty='1'), V4)
    error, _stdin, out, resize = [await client.open(streamtype=t) for t in ('error', 'stdin', 'stdout', 'resize')]
    sizes = b'{"Width":10,"Height":10}\n{"Width":77,"Hei'
    await client.duplex.send(data_frame(resize, sizes) + control(PING, 0, struct.pack('>I', 5)))
    await client.duplex.send(data_frame(resize, b'ght":33}\n'))
    said, _ = await client.all_ended(out, error)
    assert said == b'33 77\r\n'
    assert client.pings == [5]


async def test_the_oldest_protocols_tell_a_failure_in_words(node: Any) -> None:
    for protocols in ([], ['channel.k8s.io'], ['v9.channel.k8s.io', 'v2.channel.k8s.io', V4]):
        client = await node.dial(exec_path('sh', '-c', 'exit+3', stdout='1'), *protocols)
        error, out = [await client.open(streamtype=t) for t in ('error', 'stdout')]
        assert b'exit code 3' in (await client.all_ended(out, error))[1]
        client.duplex.close()


async def test_a_client_of_other_protocols_is_told_what_there_is(node: Any) -> None:
    client = await node.dial(exec_path('true', stdout='1'), 'v9.channel.k8s.io')
    assert client.answer.status == 403
    assert V4 in client.answer.headers.getall('X-Accepted-Stream-Protocol-Versions')
    assert b'unable to negotiate protocol' in await client.answer.body(1000)


async def test_a_container_that_is_not_there_is_told_before_the_upgrade(node: Any) -> None:
    client = await node.dial('/exec/default/p/none?command=true&stdout=1', V4)
    assert (client.answer.status, await client.answer.body(100)) == (404, b'container not found ("none")')


async def test_streams_nobody_asked_for_are_refused_and_missing_ones_end_the_connection(
    node: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spdy_remote, 'CREATION_S', 0.2)
    client = await node.dial(exec_path('true', stdout='1'), V4)
    assert await client.open(streamtype='error') not in client.refused
    assert await client.open(streamtype='stdin') in client.refused
    assert await client.open(streamtype='error') in client.refused
    with pytest.raises(EOFError):
        await client.until(lambda: False)


async def test_a_command_ends_when_its_client_leaves(node: Any, rig: Any, eventually: Any) -> None:
    client = await node.dial(exec_path('sh', '-c', 'echo+$$;exec+sleep+1000', stdout='1'), V4)
    _, out = [await client.open(streamtype=t) for t in ('error', 'stdout')]
    await client.until(lambda: client.data[out].endswith(b'\n'))
    pid = int(client.data[out])
    assert os.path.exists(f'/proc/{pid}')
    client.duplex.abort()
    await eventually(lambda: not os.path.exists(f'/proc/{pid}'))


@pytest.mark.parametrize('sent', [100_000, 2 * MIB], ids=['buffered', 'more than buffers hold'])
async def test_a_command_that_takes_no_input_ends_when_its_client_leaves(
    node: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch, sent: int
) -> None:
    monkeypatch.setattr(spdy_remote, 'HEARTBEAT_S', 0.1)
    client = await node.dial(exec_path('sh', '-c', 'echo+$$;exec+sleep+1000', stdin='1', stdout='1'), V4)
    _, stdin, out = [await client.open(streamtype=t) for t in ('error', 'stdin', 'stdout')]
    await client.until(lambda: client.data[out].endswith(b'\n'))
    pid = int(client.data[out])
    flood = b''.join(data_frame(stdin, bytes(10_000)) for _ in range(sent // 10_000))
    pouring = asyncio.ensure_future(client.duplex.send(flood))
    await asyncio.wait({pouring}, timeout=0.5)
    client.duplex.abort()
    await eventually(lambda: not os.path.exists(f'/proc/{pid}'))
    assert await asyncio.wait({pouring})


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    """A server in the pod that gives back what it gets. At the end it leaves no connection half closed."""
    serving: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        with contextlib.suppress(ConnectionError):
            try:
                while data := await reader.read(65536):
                    writer.write(data)
                    await writer.drain()
            finally:
                writer.close()
                await writer.wait_closed()

    server = await asyncio.start_server(serve, '127.0.0.1', 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    for task in serving:
        task.cancel()
    if serving:
        await asyncio.wait(serving)


async def test_twenty_connections_are_forwarded_at_once(node: Any, echo: int) -> None:
    client = await node.dial('/portForward/default/p', 'portforward.k8s.io')
    pairs = []
    for i in range(20):
        request = {'port': str(echo), 'requestid': str(i)}
        error = await client.open(streamtype='error', **request)
        pairs.append((error, await client.open(streamtype='data', **request)))
    payloads = [os.urandom(MIB) for _ in pairs]

    async def pour() -> None:
        for at in range(0, MIB, 32768):
            for (_, data), payload in zip(pairs, payloads, strict=True):
                await client.duplex.send(data_frame(data, payload[at : at + 32768]))
        for _, data in pairs:
            await client.duplex.send(data_frame(data, b'', fin=True))

    pouring = asyncio.ensure_future(pour())
    assert await client.all_ended(*(data for _, data in pairs)) == payloads
    assert await client.all_ended(*(error for error, _ in pairs)) == [b''] * 20
    await pouring


async def test_a_port_where_nobody_listens_is_said_on_the_error_stream(node: Any) -> None:
    client = await node.dial('/portForward/default/p', 'portforward.k8s.io')
    error = await client.open(streamtype='error', port='1', requestid='0')
    data = await client.open(streamtype='data', port='1', requestid='0')
    assert b'failed to connect to 127.0.0.1:1 inside the pod' in (await client.all_ended(data, error))[1]
    assert await client.open(streamtype='data', port='1', requestid='unknown') in client.refused


async def test_one_connection_too_many_is_refused_and_the_others_live(node: Any, echo: int) -> None:
    client = await node.dial('/portForward/default/p', 'portforward.k8s.io')
    for i in range(CONNECTIONS_MAX):
        await client.open(streamtype='error', port=str(echo), requestid=str(i))
    assert await client.open(streamtype='error', port=str(echo), requestid='more') in client.refused
    data = await client.open(streamtype='data', port=str(echo), requestid='0')
    await client.duplex.send(data_frame(data, b'hi', fin=True))
    assert await client.all_ended(data) == [b'hi']


async def test_web_socket_channels_forward_several_ports(node: Any, echo: int) -> None:
    url = f'{node.url}/portForward/default/p?ports={echo}&ports=1'
    async with aiohttp.ClientSession() as session, session.ws_connect(url, protocols=(V4,)) as socket:
        await socket.send_bytes(b'\0ping')
        got: dict[int, bytes] = {}
        while not (got.get(0, b'')[2:] == b'ping' and len(got.get(3, b'')) > 2):
            message = await socket.receive(timeout=10)
            got[message.data[0]] = got.get(message.data[0], b'') + message.data[1:]
        assert [got[c][:2] for c in (0, 1, 2, 3)] == [struct.pack('<H', p) for p in (echo, echo, 1, 1)]
        assert b'failed to connect' in got[3]


async def test_base64_channels_serve_clients_that_can_only_send_text(node: Any) -> None:
    url = node.url + exec_path('cat', stdin='1', stdout='1')
    protocols = ('v4.base64.channel.k8s.io',)
    async with aiohttp.ClientSession() as session, session.ws_connect(url, protocols=protocols) as socket:
        await socket.send_str('0aGVsbG8=')
        assert (await socket.receive(timeout=10)).data == '1aGVsbG8='


async def test_text_messages_are_input_too(node: Any) -> None:
    url = node.url + exec_path('cat', stdin='1', stdout='1')
    async with aiohttp.ClientSession() as session, session.ws_connect(url, protocols=(V4,)) as socket:
        await socket.send_str('\0héllo')
        assert (await socket.receive(timeout=10)).data == '\1héllo'.encode()
