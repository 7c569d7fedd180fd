"""Logs and streams, proxied to a node agent: here a small HTTPS server that plays one."""

from __future__ import annotations

import ssl
from base64 import b64decode
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web

PODS = '/api/v1/namespaces/default/pods'


@pytest.fixture
async def agent(authority: Any) -> AsyncIterator[SimpleNamespace]:
    """Answers log and exec requests; `.seen` is what it was asked."""
    seen: list[Any] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        peer = request.transport.get_extra_info('peercert') if request.transport else None
        seen.append((request.path, dict(request.query), bool(peer)))
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


async def test_exec_without_an_upgrade_is_400(api: Any) -> None:
    assert (await api.get(f'{PODS}/p/exec?command=ls&container=a')).status == 400
