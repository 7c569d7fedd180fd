"""Several versions, several API servers: what is stored once is seen everywhere in the version that was asked for."""

from __future__ import annotations

import base64
import contextlib
import ssl
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from aiohttp import web

from kapi.storage.urls import open_storage

CRDS = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions'
conformance = pytest.mark.conformance
NAME = 'crontabs.stable.example.com'
V1, V2 = (
    '/apis/stable.example.com/v1/namespaces/default/crontabs',
    '/apis/stable.example.com/v2/namespaces/default/crontabs',
)


def convert(obj: dict[str, Any], version: str) -> dict[str, Any]:
    """v1 has `hostPort: h:p`, v2 `host` and `port`."""
    made = {**obj, 'apiVersion': version}
    if version.endswith('v2') and 'hostPort' in obj:
        made['host'], _, made['port'] = made.pop('hostPort').partition(':')
    elif version.endswith('v1') and 'host' in obj:
        made['hostPort'] = f'{made.pop("host")}:{made.pop("port")}'
    return made


@pytest.fixture
async def webhook(authority: Any) -> AsyncIterator[SimpleNamespace]:
    """A conversion webhook on a TLS socket; `.asked` lists the number of objects of each review."""
    asked: list[int] = []
    state = SimpleNamespace(asked=asked, broken=False)

    async def answer(request: web.BaseRequest) -> web.Response:
        review = orjson.loads(await request.read())['request']
        asked.append(len(review['objects']))
        done = [convert(o, review['desiredAPIVersion']) for o in review['objects']]
        if state.broken:
            for obj in done:
                obj['metadata'] = {**obj['metadata'], 'name': 'other'}
        response = {'uid': review['uid'], 'result': {'status': 'Success'}, 'convertedObjects': done}
        body = {'apiVersion': 'apiextensions.k8s.io/v1', 'kind': 'ConversionReview', 'response': response}
        return web.Response(body=orjson.dumps(body), content_type='application/json')

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*authority.issue('server', 'kubernetes'))
    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, '127.0.0.1', 0, ssl_context=tls).start()
    state.url = f'https://127.0.0.1:{runner.addresses[0][1]}/convert'
    state.ca = base64.b64encode((authority.directory / 'ca.crt').read_bytes()).decode()
    yield state
    await runner.cleanup()


def two_versions(crd: dict[str, Any], webhook: SimpleNamespace | None = None) -> dict[str, Any]:
    text = {'type': 'string'}
    one = {'type': 'object', 'properties': {'hostPort': text}}
    two = {'type': 'object', 'properties': {'host': text, 'port': text}}
    if webhook is None:
        one = two = {'type': 'object', 'x-kubernetes-preserve-unknown-fields': True}
    crd['spec']['versions'] = [
        {'name': 'v1', 'served': True, 'storage': True, 'schema': {'openAPIV3Schema': one}},
        {'name': 'v2', 'served': True, 'storage': False, 'schema': {'openAPIV3Schema': two},
         'selectableFields': [{'jsonPath': '.host'}] if webhook else []},
    ]  # fmt: skip
    if webhook is not None:
        config = {'url': webhook.url, 'caBundle': webhook.ca}
        crd['spec']['conversion'] = {
            'strategy': 'Webhook', 'webhook': {'clientConfig': config, 'conversionReviewVersions': ['v1']}
        }  # fmt: skip
    return crd


@conformance('CustomResourceConversionWebhook [Privileged:ClusterAdmin] should be able to convert from CR v1 to CR v2')
async def test_should_be_able_to_convert_from_cr_v1_to_cr_v2(custom: Any, define: Any, webhook: Any) -> None:
    await custom.declare(two_versions(define(), webhook))
    assert (await custom.api.post(V1, custom.obj('x', hostPort='h:1'))).status == 201
    seen = (await custom.api.get(f'{V2}/x')).json
    assert (seen['apiVersion'], seen['host'], seen['port']) == ('stable.example.com/v2', 'h', '1')
    seen['port'] = '2'
    assert (await custom.api.put(f'{V2}/x', seen)).json['port'] == '2'
    assert (await custom.api.get(f'{V1}/x')).json['hostPort'] == 'h:2'


@conformance(
    'CustomResourceConversionWebhook [Privileged:ClusterAdmin] should be able to convert a non homogeneous list of CRs'
)
async def test_should_be_able_to_convert_a_non_homogeneous_list_of_crs(custom: Any, define: Any, webhook: Any) -> None:
    crd = await custom.declare(two_versions(define(), webhook))
    await custom.api.post(V1, custom.obj('a', hostPort='a:1'))
    crd['spec']['versions'][0]['storage'], crd['spec']['versions'][1]['storage'] = False, True
    changed = await custom.api.put(f'{CRDS}/{NAME}', crd)
    assert changed.json['status']['storedVersions'] == ['v1', 'v2']
    await custom.api.post(V2, custom.obj('b', apiVersion='stable.example.com/v2', host='b', port='2'))
    webhook.asked.clear()
    assert [i['hostPort'] for i in (await custom.api.get(V1)).json['items']] == ['a:1', 'b:2']
    assert [i['host'] for i in (await custom.api.get(V2)).json['items']] == ['a', 'b']
    assert webhook.asked == [1, 1]


async def test_a_list_is_converted_in_one_call_and_kept(custom: Any, define: Any, webhook: Any) -> None:
    await custom.declare(two_versions(define(), webhook))
    for i in range(5):
        await custom.api.post(V1, custom.obj(f'x{i}', hostPort=f'h{i}:1'))
    webhook.asked.clear()
    for _ in range(2):
        assert len((await custom.api.get(V2)).json['items']) == 5
    assert webhook.asked == [5]


async def test_a_watch_and_a_field_selector_see_the_converted_object(custom: Any, define: Any, webhook: Any) -> None:
    await custom.declare(two_versions(define(), webhook))
    await custom.api.post(V1, custom.obj('a', hostPort='a:1'))
    await custom.api.post(V1, custom.obj('b', hostPort='b:1'))
    listed = await custom.api.get(f'{V2}?fieldSelector=host=b')
    assert [i['metadata']['name'] for i in listed.json['items']] == ['b']
    async with custom.api.watch(f'{V2}?watch=true&fieldSelector=host=a') as event:
        assert (await event())['object']['host'] == 'a'
        await custom.api.patch(f'{V1}/a', {'hostPort': 'c:1'})
        assert (await event())['type'] == 'DELETED'


async def test_a_webhook_that_changes_the_name_is_an_internal_error(custom: Any, define: Any, webhook: Any) -> None:
    await custom.declare(two_versions(define(), webhook))
    await custom.api.post(V1, custom.obj('x', hostPort='h:1'))
    webhook.broken = True
    refused = await custom.api.get(f'{V2}/x')
    assert refused.status == 500
    assert 'conversion webhook must not change metadata.name' in refused.json['message']


async def test_policies_for_another_version_see_and_change_the_converted_object(
    custom: Any, define: Any, webhook: Any
) -> None:
    await custom.declare(two_versions(define(), webhook))
    group = '/apis/admissionregistration.k8s.io/v1'
    match = {'resourceRules': [{
        'operations': ['*'], 'apiGroups': ['stable.example.com'], 'apiVersions': ['v2'], 'resources': ['crontabs'],
    }]}  # fmt: skip
    told = "object.host + ' as ' + request.kind.version + ' for ' + request.requestKind.version"
    judged = {'validations': [{'expression': "object.host != 'bad'", 'messageExpression': told}]}
    changed = {
        'mutations': [{
            'patchType': 'ApplyConfiguration', 'applyConfiguration': {'expression': 'Object{port: "9"}'},
        }], 'reinvocationPolicy': 'Never',
    }  # fmt: skip
    for kind, spec in (('mutating', changed), ('validating', judged)):
        bound = {'policyName': 'p', **({'validationActions': ['Deny']} if kind == 'validating' else {})}
        policy = {'metadata': {'name': 'p'}, 'spec': {'matchConstraints': match, **spec}}
        for plural, body in (('policies', policy), ('policybindings', {'metadata': {'name': 'b'}, 'spec': bound})):
            made = await custom.api.post(f'{group}/{kind}admission{plural}', body)
            assert made.status == 201, made.text
        await custom.api.get(f'{group}/{kind}admissionpolicybindings')
    assert (await custom.api.post(V1, custom.obj('x', hostPort='h:1'))).json['hostPort'] == 'h:9'
    refused = await custom.api.post(V1, custom.obj('y', hostPort='bad:1'))
    assert (refused.status, refused.json['message'].rpartition(': ')[2]) == (422, 'bad as v2 for v1')


async def test_without_a_webhook_only_the_version_changes(custom: Any, define: Any) -> None:
    await custom.declare(two_versions(define()))
    await custom.api.post(V1, custom.obj('x', {'a': 1}))
    seen = (await custom.api.get(f'{V2}/x')).json
    assert (seen['apiVersion'], seen['spec']) == ('stable.example.com/v2', {'a': 1})
    patched = await custom.api.patch(f'{V2}/x', {'spec': {'a': 2}})
    assert patched.json['apiVersion'] == 'stable.example.com/v2'
    assert (await custom.api.get(f'{V1}/x')).json['spec'] == {'a': 2}


async def test_two_api_servers_on_one_store_agree_at_once(serve: Any, crd_tools: Any, env: Any) -> None:
    storage = open_storage('memory://', env)
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(serve(storage))
        second = await stack.enter_async_context(serve(storage))
        await stack.enter_async_context(crd_tools.acting(first.server))
        await stack.enter_async_context(crd_tools.acting(second.server))
        one = crd_tools.Custom(await first.user('admin', 'system:masters'))
        two = crd_tools.Custom(await second.user('admin', 'system:masters'))
        await one.declare(crd_tools.definition())
        assert (await two.create({'a': 1})).status == 201
        assert (await one.api.get(f'{one.path}/x')).json['spec'] == {'a': 1}
        assert (await one.api.get(f'{CRDS}/{NAME}')).json == (await two.api.get(f'{CRDS}/{NAME}')).json
