"""Aggregated APIs: discovery, identity, availability. A sample server stands behind a Service."""

from __future__ import annotations

import base64
import ssl
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from aiohttp import web

from kapi.aggregation.controller import ApiServices
from kapi.aggregation.proxy import forwarded_headers
from kapi.authn.user import User
from kcore import tasks

SERVICES = '/apis/apiregistration.k8s.io/v1/apiservices'
FLUNDERS = '/apis/wardle.example.com/v1alpha1/namespaces/default/flunders'


@pytest.fixture
async def sample(authority: Any) -> AsyncIterator[SimpleNamespace]:
    """A sample API server; `.heard` lists the headers of each request, `.up` False makes it fail."""
    state = SimpleNamespace(heard=[], up=True)
    resources = [
        {'name': 'flunders', 'singularName': 'flunder', 'namespaced': True, 'kind': 'Flunder', 'verbs': ['list']}
    ]

    async def answer(request: web.BaseRequest) -> web.Response:
        if not state.up:
            return web.Response(status=500)
        if request.path == '/apis/wardle.example.com/v1alpha1':
            found: Any = {
                'kind': 'APIResourceList',
                'groupVersion': 'wardle.example.com/v1alpha1',
                'resources': resources,
            }
        elif request.path == FLUNDERS:
            state.heard.append(request.headers)
            found = {'kind': 'FlunderList', 'method': request.method, 'body': (await request.read()).decode(),
                     'query': request.query_string}  # fmt: skip
        else:
            return web.Response(status=404)
        return web.Response(body=orjson.dumps(found), content_type='application/json')

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*authority.issue('server', 'kubernetes'))
    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, '127.0.0.1', 0, ssl_context=tls).start()
    state.port = runner.addresses[0][1]
    state.ca = base64.b64encode((authority.directory / 'ca.crt').read_bytes()).decode()
    yield state
    await runner.cleanup()


@pytest.fixture
async def aggregated(world: SimpleNamespace, api: Any, sample: Any) -> AsyncIterator[Any]:
    """The server with its APIService controller, and the sample server registered behind a Service."""
    service = {'metadata': {'name': 'sample'}, 'spec': {'ports': [{'port': 443}]}}
    assert (await api.post('/api/v1/namespaces/default/services', service)).status == 201
    subsets = [{'addresses': [{'ip': '127.0.0.1'}], 'ports': [{'port': sample.port}]}]
    endpoints = {'metadata': {'name': 'sample'}, 'subsets': subsets}
    assert (await api.post('/api/v1/namespaces/default/endpoints', endpoints)).status == 201
    task = tasks.start_detached('apiservices', ApiServices(world.server).run())
    spec = {'group': 'wardle.example.com', 'version': 'v1alpha1', 'groupPriorityMinimum': 2000, 'versionPriority': 200,
            'insecureSkipTLSVerify': True, 'service': {'namespace': 'default', 'name': 'sample'}}  # fmt: skip
    made = await api.post(SERVICES, {'metadata': {'name': 'v1alpha1.wardle.example.com'}, 'spec': spec})
    assert made.status == 201, made.text
    yield api
    await tasks.stop(task)


async def available(api: Any, status: str) -> dict[str, Any]:
    """The Available condition of the sample's APIService once it is `status`."""
    query = f'{SERVICES}?watch=true&resourceVersion=0&fieldSelector=metadata.name=v1alpha1.wardle.example.com'
    async with api.watch(query) as event:
        while True:
            for condition in ((await event())['object'].get('status') or {}).get('conditions') or ():
                if condition['status'] == status:
                    return dict(condition)


async def test_should_be_able_to_support_the_sample_api_server_using_the_current_aggregator(
    aggregated: Any, sample: Any, world: Any
) -> None:
    assert (await available(aggregated, 'True'))['reason'] == 'Passed'
    bob = await world.user('bob', 'system:masters')
    spoofed = {'X-Remote-User': 'root', 'X-Remote-Group': 'system:masters', 'Authorization': 'Bearer x'}
    found = await bob.post(
        f'{FLUNDERS}?a=b', {'x': 1}, headers={k: v for k, v in spoofed.items() if k != 'Authorization'}
    )
    assert found.json == {'kind': 'FlunderList', 'method': 'POST', 'body': '{"x":1}', 'query': 'a=b'}
    heard = sample.heard[-1]
    assert heard.getall('X-Remote-User') == ['bob']
    assert set(heard.getall('X-Remote-Group')) == {'system:masters', 'system:authenticated'}


async def test_discovery_lists_the_remote_group_in_both_forms(aggregated: Any, world: Any) -> None:
    await available(aggregated, 'True')
    groups = {g['name']: g for g in (await aggregated.get('/apis')).json['groups']}
    assert groups['wardle.example.com']['preferredVersion']['version'] == 'v1alpha1'
    listed = (await aggregated.get('/apis/wardle.example.com/v1alpha1')).json
    assert [r['name'] for r in listed['resources']] == ['flunders']
    remote = world.server.aggregator.remotes()[0]
    await ApiServices(world.server)._learn(remote)
    accept = {'Accept': 'application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList'}
    items = orjson.loads((await aggregated.get('/apis', headers=accept)).text)['items']
    [found] = [i for i in items if i['metadata']['name'] == 'wardle.example.com']
    assert found['versions'][0]['resources'][0]['resource'] == 'flunders'
    assert found['versions'][0]['freshness'] == 'Current'


async def test_an_unavailable_server_is_503_and_the_others_are_unaffected(
    aggregated: Any, sample: Any, world: Any
) -> None:
    await available(aggregated, 'True')
    sample.up = False
    await ApiServices(world.server)._probe(world.server.aggregator.remotes()[0])
    assert (await available(aggregated, 'False'))['reason'] == 'FailedDiscoveryCheck'
    assert (await aggregated.get(FLUNDERS)).status == 503
    assert (await aggregated.get('/api/v1/namespaces/default/configmaps')).status == 200
    assert (await aggregated.get('/apis')).status == 200


async def test_a_missing_service_is_named_in_the_condition(aggregated: Any) -> None:
    await available(aggregated, 'True')
    change = {'spec': {'service': {'name': 'nobody'}}}
    assert (await aggregated.patch(f'{SERVICES}/v1alpha1.wardle.example.com', change)).status == 200
    found = await available(aggregated, 'False')
    assert (found['reason'], found['message']) == (
        'ServiceNotFound',
        'service "nobody" not found in namespace "default"',
    )


async def test_every_group_served_here_has_a_local_apiservice(aggregated: Any) -> None:
    await available(aggregated, 'True')
    items = {i['metadata']['name']: i for i in (await aggregated.get(SERVICES)).json['items']}
    assert {'v1.', 'v1.apps', 'v1.apiextensions.k8s.io'} <= items.keys()
    assert 'service' not in items['v1.apps']['spec']


async def test_a_certificate_that_is_not_the_services_is_refused(aggregated: Any, sample: Any) -> None:
    await available(aggregated, 'True')
    change = {'spec': {'insecureSkipTLSVerify': False, 'caBundle': sample.ca}}
    assert (await aggregated.patch(f'{SERVICES}/v1alpha1.wardle.example.com', change)).status == 200
    found = await available(aggregated, 'False')
    assert found['reason'] == 'FailedDiscoveryCheck'


async def test_aggregated_servers_can_read_whom_to_trust(aggregated: Any) -> None:
    await available(aggregated, 'True')
    found = await aggregated.get('/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication')
    assert found.json['data']['requestheader-username-headers'] == '["X-Remote-User"]'
    assert 'BEGIN CERTIFICATE' in found.json['data']['requestheader-client-ca-file']


def test_only_the_proxy_says_who_the_caller_is() -> None:
    from multidict import CIMultiDict

    given = CIMultiDict(
        [('X-Remote-Extra-Scopes', 'all'), ('Impersonate-User', 'root'), ('Accept', 'x'), ('Connection', 'close')]
    )
    user = User('bob', ('dev', 'ops'), 'u1', {'example.com/scope': ('a', 'b')})
    assert list(forwarded_headers(given, user).items()) == [
        ('Accept', 'x'), ('X-Remote-User', 'bob'), ('X-Remote-Uid', 'u1'), ('X-Remote-Group', 'dev'),
        ('X-Remote-Group', 'ops'), ('X-Remote-Extra-example.com%2Fscope', 'a'),
        ('X-Remote-Extra-example.com%2Fscope', 'b'),
    ]  # fmt: skip
