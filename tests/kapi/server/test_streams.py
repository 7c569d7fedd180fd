"""Logs and streams, proxied to a node agent: here a small HTTPS server that plays one."""

from __future__ import annotations

import asyncio
import random
import ssl
from base64 import b64decode
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from kcore.env import Env
from kcore.upgrade import Address, Upgraded, dial, take_over

PODS = '/api/v1/namespaces/default/pods'


async def spdy(request: web.BaseRequest) -> web.StreamResponse:
    """Gives every byte back; a container named `b` is not there."""
    if request.path.endswith('/b'):
        return web.Response(status=404, text='container not found ("b")')
    assert 'Authorization' not in request.headers
    chosen = request.headers.getall('X-Stream-Protocol-Version')[0]
    named = [('Connection', 'Upgrade'), ('Upgrade', 'SPDY/3.1'), ('X-Stream-Protocol-Version', chosen)]
    connection = await take_over(request, named)
    while data := await connection.receive():
        await connection.send(data)
    connection.close()
    return Upgraded()


@pytest.fixture
async def agent(authority: Any) -> AsyncIterator[SimpleNamespace]:
    """Answers log and exec requests; `.seen` is what it was asked."""
    seen: list[Any] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        peer = request.transport.get_extra_info('peercert') if request.transport else None
        seen.append((request.path, dict(request.query), bool(peer)))
        if request.headers.get('Upgrade') == 'SPDY/3.1':
            return await spdy(request)
        if request.path.startswith('/exec/'):
            socket = web.WebSocketResponse(protocols=('v5.channel.k8s.io',))
            await socket.prepare(request)
            async for message in socket:
                await socket.send_bytes(b'\x01' + message.data[1:])
                await socket.close()
            return socket
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for line in (b'one\n', b'two\n'):
            await response.write(line)
        await response.write_eof()
        return response

    runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0.1)
    await runner.setup()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*authority.issue('agent', 'system:node:n1', 'system:nodes'))
    tls.load_verify_locations(authority.directory / 'ca.crt')
    tls.verify_mode = ssl.CERT_REQUIRED
    await web.TCPSite(runner, '127.0.0.1', 0, ssl_context=tls).start()
    yield SimpleNamespace(port=runner.addresses[0][1], seen=seen)
    await runner.cleanup()


@pytest.fixture
async def api(serve: Any, authority: Any, agent: Any) -> AsyncIterator[Any]:
    cert, key = authority.issue('kubelet-client', 'kube-apiserver-kubelet-client', 'system:masters')
    async with serve(kubelet_client_cert=cert, kubelet_client_key=key) as world:
        client = await world.user('admin', 'system:masters')
        await client.post('/api/v1/nodes', {'metadata': {'name': 'n1'}})
        status = {
            'addresses': [{'type': 'InternalIP', 'address': '127.0.0.1'}],
            'daemonEndpoints': {'kubeletEndpoint': {'Port': agent.port}},
        }
        await client.patch('/api/v1/nodes/n1/status', {'status': status})
        containers = [{'name': 'a', 'image': 'i'}, {'name': 'b', 'image': 'i'}]
        await client.post(PODS, {'metadata': {'name': 'p'}, 'spec': {'containers': containers}})
        client.server = world.server
        yield client


async def run_pod(api: Any) -> None:
    await api.post(f'{PODS}/p/binding', {'metadata': {'name': 'p'}, 'target': {'name': 'n1'}})
    state = {'running': {'startedAt': '2020-01-01T00:00:00Z'}}
    statuses = [
        {'name': n, 'state': state, 'ready': True, 'image': 'i', 'imageID': '', 'restartCount': 0} for n in ('a',)
    ]
    done = await api.patch(f'{PODS}/p/status', {'status': {'containerStatuses': statuses}})
    assert done.status == 200, done.text


async def test_logs_are_passed_through_with_our_own_certificate(api: Any, agent: Any) -> None:
    await run_pod(api)
    logs = await api.get(f'{PODS}/p/log?container=a&tailLines=2')
    assert (logs.status, logs.text) == (200, 'one\ntwo\n')
    assert agent.seen == [('/containerLogs/default/p/a', {'tailLines': '2'}, True)]


@pytest.mark.parametrize(
    ('query', 'message'),
    [
        ('', 'a container name must be specified for pod p, choose one of: [a b]'),
        ('container=z', 'container z is not valid for pod p'),
        ('container=a&previous=true', 'previous terminated container "a" in pod "p" not found'),
    ],
)
async def test_what_cannot_be_read_is_said(api: Any, query: str, message: str) -> None:
    await run_pod(api)
    refused = await api.get(f'{PODS}/p/log?{query}')
    assert (refused.status, refused.json['message']) == (400, message)


@pytest.mark.parametrize(
    ('protocols', 'spoken', 'whole'),
    [
        ((), None, b'one\ntwo\n'),
        (('binary.k8s.io',), 'binary.k8s.io', b'one\ntwo\n'),
        (('base64.binary.k8s.io', 'binary.k8s.io'), 'base64.binary.k8s.io', b'one\ntwo\n'),
    ],
)
async def test_a_browser_reads_logs_from_a_web_socket(api: Any, protocols: Any, spoken: Any, whole: bytes) -> None:
    await run_pod(api)
    async with api.session.ws_connect(f'{api.base}{PODS}/p/log?container=a', protocols=protocols) as socket:
        assert socket.protocol == spoken
        got = [m.data async for m in socket]
    assert b''.join(b64decode(d) if isinstance(d, str) else d for d in got) == whole


async def test_a_web_socket_that_speaks_no_protocol_of_ours_is_refused(api: Any) -> None:
    await run_pod(api)
    with pytest.raises(aiohttp.WSServerHandshakeError, match='400'):
        await api.session.ws_connect(f'{api.base}{PODS}/p/log?container=a', protocols=('soap',))


async def test_an_unscheduled_pod_has_no_logs(api: Any) -> None:
    assert (await api.get(f'{PODS}/p/log?container=a')).text == ''


async def test_exec_joins_two_web_sockets(api: Any, agent: Any) -> None:
    await run_pod(api)
    url = f'{api.base}{PODS}/p/exec?command=ls&command=-l&container=a&stdout=true'
    async with api.session.ws_connect(url, protocols=('v5.channel.k8s.io', 'v4.channel.k8s.io')) as socket:
        assert socket.protocol == 'v5.channel.k8s.io'
        await socket.send_bytes(b'\x00hello')
        assert (await socket.receive()).data == b'\x01hello'
        assert (await socket.receive()).type == aiohttp.WSMsgType.CLOSE
    assert agent.seen[-1][0] == '/exec/default/p/a'


async def test_streams_beyond_the_bound_are_asked_to_come_again_and_ended_ones_do_not_count(
    api: Any, agent: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr('kapi.server.tunnel.STREAMS_MAX', 1)
    await run_pod(api)
    url = f'{api.base}{PODS}/p/exec?command=cat&container=a&stdin=true'
    for _ in range(2):
        async with api.session.ws_connect(url, protocols=('v5.channel.k8s.io',)) as first:
            with pytest.raises(aiohttp.WSServerHandshakeError, match='429'):
                await api.session.ws_connect(url, protocols=('v5.channel.k8s.io',))
            await first.send_bytes(b'\x00hello')
            await first.receive()
            assert (await first.receive()).type == aiohttp.WSMsgType.CLOSE
        async with asyncio.timeout(10):
            while api.server.streams:
                await asyncio.sleep(0)  # the connection's end is on its way


async def test_exec_without_an_upgrade_is_400(api: Any) -> None:
    assert (await api.get(f'{PODS}/p/exec?command=ls&container=a')).status == 400


async def ask_for_spdy(api: Any, authority: Any, path: str) -> Any:
    """As kubectl before 1.30: a POST, with the protocols in headers of their own."""
    url = URL(f'{api.base}{PODS}/{path}')
    headers = [('Host', 'x'), ('Connection', 'Upgrade'), ('Upgrade', 'SPDY/3.1'), ('Content-Length', '0')]
    headers += [('X-Stream-Protocol-Version', p) for p in ('v4.channel.k8s.io', 'v3.channel.k8s.io')]
    tls = ssl.create_default_context(cafile=str(authority.directory / 'ca.crt'))
    tls.load_cert_chain(*authority.issue('user-admin-system-masters', 'admin', 'system:masters'))
    assert url.host is not None
    assert url.port is not None
    return await dial(Env.real().net, Address(url.host, url.port, tls), ('POST', url.raw_path_qs), headers)


async def test_a_spdy_connection_is_passed_on_byte_for_byte(api: Any, agent: Any, authority: Any) -> None:
    await run_pod(api)
    answer = await ask_for_spdy(api, authority, 'p/exec?command=cat&container=a&stdin=true&stdout=true')
    assert (answer.status, answer.headers['X-Stream-Protocol-Version']) == (101, 'v4.channel.k8s.io')
    assert agent.seen[-1][:2] == ('/exec/default/p/a', {'command': 'cat', 'stdin': 'true', 'stdout': 'true'})
    payload, got = random.Random(1).randbytes(4_000_000), bytearray()
    pouring = asyncio.ensure_future(answer.connection.send(payload))
    while len(got) < len(payload):
        got += await answer.connection.receive()
    await pouring
    assert got == payload
    answer.connection.close()


async def test_what_the_agent_says_instead_of_upgrading_reaches_the_client(api: Any, authority: Any) -> None:
    await run_pod(api)
    answer = await ask_for_spdy(api, authority, 'p/exec?command=cat&container=b&stdout=true')
    assert (answer.status, await answer.body(1000)) == (404, b'container not found ("b")')
    answer.connection.close()


async def test_an_agent_that_is_not_there_is_said(api: Any, authority: Any) -> None:
    await run_pod(api)
    gone = {'daemonEndpoints': {'kubeletEndpoint': {'Port': 1}}}
    await api.patch('/api/v1/nodes/n1/status', {'status': gone})
    answer = await ask_for_spdy(api, authority, 'p/attach?container=a&stdout=true')
    assert answer.status == 500
    assert b'error dialing backend: dial tcp 127.0.0.1:1' in await answer.body(4000)
    answer.connection.close()
