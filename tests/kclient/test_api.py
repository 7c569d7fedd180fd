"""The client's verbs, errors, retries and failover."""

from __future__ import annotations

import asyncio
import socket

import pytest
from aiohttp import web

from kclient.api import REQUESTS_AT_ONCE, Client
from kclient.discovery import discover
from kclient.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    Deposed,
    Expired,
    Forbidden,
    Invalid,
    NotFound,
    ServerFailed,
    Timeout,
    TooManyRequests,
    Unavailable,
    from_status,
)
from kclient.kubeconfig import ClientConfig
from kcore.meta.gvk import CONFIGMAPS, NODES, Resource


def config(name: str) -> dict:
    return {'metadata': {'name': name, 'namespace': 'default'}, 'data': {'v': '1'}}


async def test_an_object_goes_through_its_whole_life(client):
    made = await client.create(CONFIGMAPS, config('a'))
    assert made['kind'] == 'ConfigMap'
    assert (await client.get(CONFIGMAPS, 'a', 'default'))['metadata']['uid'] == made['metadata']['uid']
    changed = await client.patch(CONFIGMAPS, 'a', {'data': {'w': '2'}}, 'default')
    assert changed['data'] == {'v': '1', 'w': '2'}
    with pytest.raises(Conflict):
        await client.update(CONFIGMAPS, {**made, 'data': {}})
    with pytest.raises(AlreadyExists):
        await client.create(CONFIGMAPS, config('a'))
    with pytest.raises(Conflict):
        await client.delete(CONFIGMAPS, 'a', 'default', uid='other')
    await client.delete(CONFIGMAPS, 'a', 'default')
    with pytest.raises(NotFound):
        await client.get(CONFIGMAPS, 'a', 'default')


async def test_items_of_a_list_carry_their_kind(api, client):
    api.put('configmaps', config('a'))
    page = await client.list(CONFIGMAPS, 'default')
    assert page.items[0]['apiVersion'] == 'v1'
    assert page.resource_version == str(api.revision)


async def test_a_watch_ends_cleanly_with_the_server_and_tells_errors_as_events(api, client):
    api.compact()
    events = [e async for e in client.watch(CONFIGMAPS, resource_version='0')]
    assert [(e.type, e.object['code']) for e in events] == [('ERROR', 410)]


async def test_retry_after_is_honoured_for_writes_too(api, client):
    api.fail_next.extend([(429, {'Retry-After': '0'}), (503, {'Retry-After': '0'})])
    assert (await client.create(CONFIGMAPS, config('a')))['metadata']['name'] == 'a'


async def test_a_guarded_write_is_given_up_when_what_guards_it_ends(api, client):
    api.fail_next.append((429, {'Retry-After': '1'}))
    with pytest.raises(Timeout):
        await client.guarded(lambda: 0.1).create(CONFIGMAPS, config('a'))
    with pytest.raises(NotFound):
        await client.guarded(lambda: 0.1).get(CONFIGMAPS, 'a', 'default')


async def test_a_crowd_of_requests_shares_a_few_connections(api, client):
    await asyncio.gather(*(client.create(CONFIGMAPS, config(f'c{n}')) for n in range(100)))
    assert len(api.all('configmaps')) == 100
    assert len(api.callers) <= REQUESTS_AT_ONCE


async def test_requests_that_hang_hold_up_no_others(env, monkeypatch):
    monkeypatch.setattr('kclient.api.PATIENCE_S', 0.01)
    release, hanging, all_hang = asyncio.Event(), 0, asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.Response:
        nonlocal hanging
        if request.path.endswith('/nodes'):
            hanging += 1
            if hanging == REQUESTS_AT_ONCE:
                all_hang.set()
            await release.wait()
        return web.json_response({})

    server = await asyncio.get_running_loop().create_server(web.Server(answer), '127.0.0.1', 0)
    url = f'http://127.0.0.1:{server.sockets[0].getsockname()[1]}'
    async with Client(ClientConfig((url,)), env, user_agent='test') as client, asyncio.TaskGroup() as group:
        for _ in range(REQUESTS_AT_ONCE):
            group.create_task(client.list(NODES))
        await all_hang.wait()
        await client.get(CONFIGMAPS, 'a', 'default')
        release.set()
    server.close()


async def test_a_refusal_without_retry_after_is_final(api, client):
    api.fail_next.append((429, {}))
    with pytest.raises(TooManyRequests):
        await client.get(CONFIGMAPS, 'a', 'default')
    api.fail_next.append((500, {}))
    with pytest.raises(ServerFailed, match='made to fail'):
        await client.get(CONFIGMAPS, 'a', 'default')


async def test_a_dead_server_is_skipped_even_for_writes(api, env):
    async with Client(ClientConfig(('http://127.0.0.1:1', api.url)), env, user_agent='test') as client:
        assert (await client.create(CONFIGMAPS, config('a')))['metadata']['name'] == 'a'


async def test_no_server_at_all_is_one_clear_error(env):
    async with Client(ClientConfig(('http://127.0.0.1:1',)), env, user_agent='test') as client:
        with pytest.raises(Unavailable, match='GET /api/v1/nodes'):
            await client.list(NODES)


async def test_a_closed_client_stays_closed(client):
    await client.list(NODES)
    await client.close()
    with pytest.raises(Unavailable, match='closed'):
        await client.list(NODES)


async def test_a_silent_server_runs_into_the_deadline(env):
    with socket.create_server(('127.0.0.1', 0)) as silent:  # the kernel accepts, nobody answers
        url = f'http://127.0.0.1:{silent.getsockname()[1]}'
        async with Client(ClientConfig((url,)), env, user_agent='test') as client:
            with pytest.raises(Timeout, match='no answer'):
                await client.request('GET', '/healthz', deadline_s=0.05)


async def test_a_guarded_client_refuses_writes_but_not_reads(api, client):
    def check() -> None:
        raise Deposed('not leading')

    guarded = client.guarded(check)
    api.put('configmaps', config('a'))
    assert await guarded.get(CONFIGMAPS, 'a', 'default')
    with pytest.raises(Deposed):
        await guarded.patch(CONFIGMAPS, 'a', {}, 'default')
    with pytest.raises(Deposed):
        await guarded.request('DELETE', '/api/v1/nodes/x')
    assert await client.patch(CONFIGMAPS, 'a', {}, 'default')


async def test_discovery_lists_kinds_and_finds_owners(client):
    found = await discover(client)
    assert found.serves(CONFIGMAPS)
    assert found.find('apps/v1beta1', 'Deployment').plural == 'deployments'
    assert found.find('example.com/v1', 'Thing') is None
    assert Resource('', 'v1', 'nodes', 'Node', namespaced=False) in found.with_verbs('list', 'watch')


@pytest.mark.parametrize(
    ('code', 'reason', 'cls'),
    [
        (400, 'BadRequest', BadRequest), (403, 'Forbidden', Forbidden), (409, 'AlreadyExists', AlreadyExists),
        (409, 'Conflict', Conflict), (410, 'Expired', Expired), (422, 'Invalid', Invalid),
        (500, 'InternalError', ServerFailed), (502, '', ServerFailed), (504, 'Timeout', Timeout),
    ],
)  # fmt: skip
def test_each_status_becomes_its_own_error(code, reason, cls):
    error = from_status({'code': code, 'reason': reason, 'message': 'why'})
    assert type(error) is cls
    assert (error.code, error.message) == (code, 'why')


async def test_every_request_is_told_to_the_observer_retries_and_failures_included(api, env):
    heard = []
    config_ = ClientConfig((api.url,))
    api.fail_next.append((503, {'Retry-After': '0'}))
    async with Client(config_, env, user_agent='test', observe=heard.append) as client:
        await client.create(CONFIGMAPS, config('a'))
        with pytest.raises(NotFound):
            await client.get(CONFIGMAPS, 'nobody', 'default')
    host = api.url.partition('://')[2]
    assert [(a.call.method, a.host, a.code, a.attempt) for a in heard] == [
        ('POST', host, '503', 0), ('POST', host, '201', 1), ('GET', host, '404', 0),
    ]  # fmt: skip
    with socket.create_server(('127.0.0.1', 0)) as probe:
        nobody = f'http://127.0.0.1:{probe.getsockname()[1]}'
    async with Client(ClientConfig((nobody,)), env, user_agent='test', observe=heard.append) as client:
        with pytest.raises(Unavailable):
            await client.get(CONFIGMAPS, 'a', 'default')
    assert heard[-1].code == '<error>'
