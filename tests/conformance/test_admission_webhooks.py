"""Admission webhooks: what another service may change, refuse, and may not touch."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest
from aiohttp import web

from tests.conformance.test_api_operations import life

conformance = pytest.mark.conformance
Obj = dict[str, Any]
SUITE = 'AdmissionWebhook [Privileged:ClusterAdmin]'
CREATE = 'should be able to create and update'
GROUP = 'admissionregistration.k8s.io/v1'
CORE = '/api/v1/namespaces/marked'
ANYTHING = {'type': 'object', 'x-kubernetes-preserve-unknown-fields': True}
EVERYWHERE = {'apiGroups': ['*'], 'apiVersions': ['*'], 'resources': ['*/*']}


class Hook:
    """A webhook server that knows what is asked of it by the path; `seen` are the requests."""

    def __init__(self) -> None:
        self.seen: list[Obj] = []
        self.release = asyncio.Event()
        self.base = ''

    async def answer(self, request: web.Request) -> web.Response:
        review = orjson.loads(await request.read())
        self.seen.append(review['request'])
        if request.path == '/slow':
            await self.release.wait()
        response = {'uid': review['request']['uid'], **ANSWERS[request.path](review['request'])}
        return web.json_response({'apiVersion': 'admission.k8s.io/v1', 'kind': 'AdmissionReview', 'response': response})


def add(path: str, value: Any) -> Callable[[Obj], Obj]:
    patch = base64.b64encode(orjson.dumps([{'op': 'add', 'path': path, 'value': value}])).decode()
    return lambda _: {'allowed': True, 'patchType': 'JSONPatch', 'patch': patch}


def deny(why: str) -> Callable[[Obj], Obj]:
    return lambda _: {'allowed': False, 'status': {'message': why}}


def unless_fine(request: Obj) -> Obj:
    """Refuses what carries `data.key = unwanted`, and deletions of it."""
    held = request['object'] or request['oldObject']
    return deny('unwanted')({}) if (held.get('data') or {}).get('key') == 'unwanted' else {'allowed': True}


def one_stage_each(request: Obj) -> Obj:
    data = (request['object'] or {}).get('data') or {}
    if data.get('stage-1') == 'yes':
        return add('/data/stage-2', 'yes')({})
    return add('/data/stage-1', 'yes')({})


ANSWERS: dict[str, Callable[[Obj], Obj]] = {
    '/allow': lambda _: {'allowed': True},
    '/slow': lambda _: {'allowed': True},
    '/deny': deny('no'),
    '/unwanted': unless_fine,
    '/stages': one_stage_each,
    '/label': add('/metadata/labels', {'touched': 'yes'}),
    '/unknown-field': add('/data/unknown', 'yes'),
    '/init-container': add('/spec/initContainers', [{'name': 'added', 'image': 'i'}]),
}


@pytest.fixture
async def hook(authority: Any, api: Any) -> AsyncIterator[Hook]:
    found = Hook()
    app = web.Application()
    app.router.add_post('/{path:.*}', found.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*authority.issue('server', 'kubernetes'))
    await web.TCPSite(runner, '127.0.0.1', 0, ssl_context=tls).start()
    found.base = f'https://localhost:{runner.addresses[0][1]}'
    bundle = base64.b64encode((authority.directory / 'ca.crt').read_bytes()).decode()
    BUNDLE[0] = bundle
    labels = {'webhooks': 'yes'}
    assert (await api.post('/api/v1/namespaces', {'metadata': {'name': 'marked', 'labels': labels}})).status == 201
    await api.post(f'{CORE}/serviceaccounts', {'metadata': {'name': 'default'}})
    yield found
    found.release.set()
    await runner.cleanup()


BUNDLE = ['']


def rule(resource: str, *operations: str, group: str = '') -> Obj:
    return {'apiGroups': [group], 'apiVersions': ['*'], 'resources': [resource], 'operations': list(operations or '*')}


def webhooks(url: str, *rules: Obj, name: str = 'w', **more: Any) -> Obj:
    """A configuration with one webhook, for the marked namespace and what is in none."""
    hook = {
        'name': f'{name}.example.com', 'clientConfig': {'url': url, 'caBundle': BUNDLE[0]}, 'rules': list(rules),
        'sideEffects': 'None', 'admissionReviewVersions': ['v1'],
        'namespaceSelector': {'matchLabels': {'webhooks': 'yes'}}, **more,
    }  # fmt: skip
    return {'metadata': {'name': name, 'labels': {'all': 'ours'}}, 'webhooks': [hook]}


async def install(api: Any, kind: str, body: Obj) -> Obj:
    made = await api.post(f'/apis/{GROUP}/{kind}webhookconfigurations', body)
    assert made.status == 201, made.text
    return made.json


def configmap(name: str = 'c', data: Obj | None = None, **labels: str) -> Obj:
    return {'metadata': {'name': name, 'labels': labels}, 'data': data or {'key': 'fine'}}


def pod(name: str = 'p') -> Obj:
    return {'metadata': {'name': name}, 'spec': {'containers': [{'name': 'c', 'image': 'i'}]}}


async def refused(answer: Any, why: str = 'no') -> None:
    assert answer.status in {400, 403, 500}, answer.text
    assert why in answer.json['message']


@conformance(f'{SUITE} should include webhook resources in discovery documents')
async def test_discovery_tells_of_webhook_configurations(api):
    groups = {g['name']: g for g in (await api.get('/apis')).json['groups']}
    found = groups['admissionregistration.k8s.io']
    assert {v['version'] for v in found['versions']} >= {'v1'}
    assert (await api.get('/apis/admissionregistration.k8s.io')).json['name'] == found['name']
    listed = {r['name'] for r in (await api.get(f'/apis/{GROUP}')).json['resources']}
    assert listed >= {'mutatingwebhookconfigurations', 'validatingwebhookconfigurations'}


@conformance(f'{SUITE} should be able to deny pod and configmap creation')
async def test_pods_and_configmaps_are_refused_and_others_are_not(api, hook):
    await install(api, 'validating', webhooks(f'{hook.base}/deny', rule('pods', 'CREATE'), name='pods'))
    await install(api, 'validating', webhooks(f'{hook.base}/unwanted', rule('configmaps'), name='maps'))
    await refused(await api.post(f'{CORE}/pods', pod()))
    await refused(await api.post(f'{CORE}/configmaps', configmap(data={'key': 'unwanted'})), 'unwanted')
    assert (await api.post(f'{CORE}/configmaps', configmap())).status == 201
    await refused(await api.put(f'{CORE}/configmaps/c', configmap(data={'key': 'unwanted'})), 'unwanted')
    await refused(await api.patch(f'{CORE}/configmaps/c', {'data': {'key': 'unwanted'}}), 'unwanted')
    exempt = {'metadata': {'name': 'exempt'}}
    assert (await api.post('/api/v1/namespaces', exempt)).status == 201
    free = '/api/v1/namespaces/exempt/configmaps'
    assert (await api.post(free, configmap(data={'key': 'unwanted'}))).status == 201


@conformance(f'{SUITE} should be able to deny attaching pod')
async def test_attaching_is_refused(api, hook):
    assert (await api.post(f'{CORE}/pods', pod())).status == 201
    await install(api, 'validating', webhooks(f'{hook.base}/deny', rule('pods/attach', 'CONNECT')))
    await refused(await api.get(f'{CORE}/pods/p/attach?stdout=true'))
    assert hook.seen[0]['operation'] == 'CONNECT'


@conformance(f'{SUITE} should be able to deny custom resource creation, update and deletion')
async def test_custom_resources_are_refused_at_every_verb(api, custom, define, hook):
    await custom.declare(define(root=ANYTHING))
    things = '/apis/stable.example.com/v1/namespaces/marked/crontabs'
    await install(api, 'validating', webhooks(f'{hook.base}/unwanted', rule('crontabs', group='stable.example.com')))
    bad = {'metadata': {'name': 'bad'}, 'data': {'key': 'unwanted'}}
    await refused(await api.post(things, thing(bad)), 'unwanted')
    assert (await api.post(things, thing({'metadata': {'name': 'good'}, 'data': {'key': 'fine'}}))).status == 201
    await refused(await api.patch(f'{things}/good', {'data': {'key': 'unwanted'}}), 'unwanted')
    assert (await api.delete(f'{things}/good')).status == 200
    assert hook.seen[-1]['operation'] == 'DELETE'


@conformance(f'{SUITE} should unconditionally reject operations on fail closed webhook')
async def test_a_webhook_that_cannot_be_reached_refuses(api, hook):
    await install(
        api, 'validating', webhooks('https://localhost:1/', rule('configmaps', 'CREATE'), failurePolicy='Fail')
    )
    await refused(await api.post(f'{CORE}/configmaps', configmap()), 'failed calling webhook "w.example.com"')


@conformance(f'{SUITE} should mutate configmap')
async def test_two_webhooks_change_a_configmap_one_after_the_other(api, hook):
    for name in ('a', 'b'):
        await install(api, 'mutating', webhooks(f'{hook.base}/stages', rule('configmaps', 'CREATE'), name=name))
    made = await api.post(f'{CORE}/configmaps', configmap())
    assert made.json['data'] == {'key': 'fine', 'stage-1': 'yes', 'stage-2': 'yes'}


@conformance(f'{SUITE} should mutate pod and apply defaults after mutation')
async def test_what_a_webhook_adds_to_a_pod_is_defaulted(api, hook):
    await install(api, 'mutating', webhooks(f'{hook.base}/init-container', rule('pods', 'CREATE')))
    made = await api.post(f'{CORE}/pods', pod())
    added = made.json['spec']['initContainers'][0]
    assert (added['name'], added['terminationMessagePolicy']) == ('added', 'File')
    assert added['terminationMessagePath'] == '/dev/termination-log'


@conformance(f'{SUITE} should not be able to mutate or prevent deletion of webhook configuration objects')
async def test_configurations_of_webhooks_are_not_theirs_to_judge(api, hook):
    rules = {**EVERYWHERE, 'apiGroups': ['admissionregistration.k8s.io'], 'operations': ['*'], 'resources': ['*']}
    await install(api, 'validating', webhooks(f'{hook.base}/deny', rules, name='deny'))
    await install(api, 'mutating', webhooks(f'{hook.base}/label', rules, name='label'))
    for kind in ('validating', 'mutating'):
        made = await install(api, kind, {'metadata': {'name': 'dummy'}, 'webhooks': []})
        assert 'labels' not in made['metadata']
        assert (await api.delete(f'/apis/{GROUP}/{kind}webhookconfigurations/dummy')).status == 200
    assert hook.seen == []


def thing(obj: Obj) -> Obj:
    return {'apiVersion': 'stable.example.com/v1', 'kind': 'CronTab', **obj}


@conformance(f'{SUITE} should mutate custom resource')
async def test_a_custom_resource_is_changed(api, custom, define, hook):
    await custom.declare(define(root=ANYTHING))
    things = '/apis/stable.example.com/v1/namespaces/marked/crontabs'
    for name in ('a', 'b'):
        hooks = webhooks(f'{hook.base}/stages', rule('crontabs', 'CREATE', group='stable.example.com'), name=name)
        await install(api, 'mutating', hooks)
    made = await api.post(things, thing({'metadata': {'name': 'x'}, 'data': {'key': 'fine'}}))
    assert made.json['data'] == {'key': 'fine', 'stage-1': 'yes', 'stage-2': 'yes'}


@conformance(f'{SUITE} should deny crd creation')
async def test_definitions_are_refused(api, define, hook):
    rules = rule('customresourcedefinitions', 'CREATE', group='apiextensions.k8s.io')
    await install(api, 'validating', webhooks(f'{hook.base}/deny', rules))
    await refused(await api.post('/apis/apiextensions.k8s.io/v1/customresourcedefinitions', define()))


@conformance(f'{SUITE} should mutate custom resource with different stored version')
async def test_a_custom_resource_is_changed_when_the_stored_version_moves(api, custom, define, hook):
    definition = define(root=ANYTHING)
    version = definition['spec']['versions'][0]
    definition['spec']['versions'] = [version, {**version, 'name': 'v2', 'storage': False}]
    await custom.declare(definition)
    await install(api, 'mutating', webhooks(f'{hook.base}/stages', rule('crontabs', group='stable.example.com')))
    things = '/apis/stable.example.com/v1/namespaces/marked/crontabs'
    assert (await api.post(things, thing({'metadata': {'name': 'x'}, 'data': {'key': 'fine'}}))).status == 201
    name = definition['metadata']['name']
    versions = [{**v, 'storage': v['name'] == 'v2'} for v in definition['spec']['versions']]
    moved = await api.patch(
        f'/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}', {'spec': {'versions': versions}}
    )
    assert moved.status == 200, moved.text
    patched = await api.patch(f'{things}/x', {'data': {'key': 'other'}})
    assert patched.json['data'] == {'key': 'other', 'stage-1': 'yes', 'stage-2': 'yes'}


@conformance(f'{SUITE} should mutate custom resource with pruning')
async def test_what_the_schema_does_not_know_is_pruned_from_what_a_webhook_adds(api, custom, define, hook):
    schema = {
        'type': 'object',
        'properties': {'data': {'type': 'object', 'properties': {
            k: {'type': 'string'} for k in ('key', 'stage-1')
        }}},
    }  # fmt: skip
    await custom.declare(define(root=schema))
    for name in ('a', 'b'):
        hooks = webhooks(f'{hook.base}/stages', rule('crontabs', 'CREATE', group='stable.example.com'), name=name)
        await install(api, 'mutating', hooks)
    things = '/apis/stable.example.com/v1/namespaces/marked/crontabs'
    made = await api.post(things, thing({'metadata': {'name': 'x'}, 'data': {'key': 'fine'}}))
    assert made.json['data'] == {'key': 'fine', 'stage-1': 'yes'}


@conformance(f'{SUITE} should honor timeout')
async def test_a_slow_webhook_is_waited_for_as_long_as_told(api, hook):
    patient = webhooks(f'{hook.base}/slow', rule('configmaps', 'CREATE'), timeoutSeconds=1)
    made = await install(api, 'validating', patient)
    late = await api.post(f'{CORE}/configmaps', configmap('late'))
    await refused(late, 'failed calling webhook')
    path = f'/apis/{GROUP}/validatingwebhookconfigurations/w'
    hooks = [{**made['webhooks'][0], 'failurePolicy': 'Ignore'}]
    assert (await api.patch(path, {'webhooks': hooks})).status == 200
    assert (await api.post(f'{CORE}/configmaps', configmap('ignored'))).status == 201
    hooks = [{k: v for k, v in made['webhooks'][0].items() if k != 'timeoutSeconds'}]
    defaulted = await api.patch(path, {'webhooks': hooks})
    assert defaulted.json['webhooks'][0]['timeoutSeconds'] == 10
    hook.release.set()
    assert (await api.post(f'{CORE}/configmaps', configmap('soon'))).status == 201


@pytest.mark.parametrize('kind', [
    pytest.param('validating', marks=[
        conformance(f'{SUITE} listing validating webhooks should work'),
        conformance(f'{SUITE} patching/updating a validating webhook should work'),
    ]),
    pytest.param('mutating', marks=[
        conformance(f'{SUITE} listing mutating webhooks should work'),
        conformance(f'{SUITE} patching/updating a mutating webhook should work'),
    ]),
])  # fmt: skip
async def test_configurations_are_listed_updated_and_deleted_together(api, hook, kind):
    path = f'/apis/{GROUP}/{kind}webhookconfigurations'
    url = f'{hook.base}/{"deny" if kind == "validating" else "unknown-field"}'

    async def acts() -> bool:
        made = await api.post(f'{CORE}/configmaps', configmap())
        if made.status == 201:
            await api.delete(f'{CORE}/configmaps/c')
        return made.status != 201 or 'unknown' in made.json['data']

    await install(api, kind, webhooks(url, rule('configmaps', 'CREATE'), name='one'))
    assert await acts()
    held = (await api.get(f'{path}/one')).json
    held['webhooks'][0]['rules'][0]['operations'] = ['UPDATE']
    assert (await api.put(f'{path}/one', held)).status == 200
    assert not await acts()
    again = [{'op': 'replace', 'path': '/webhooks/0/rules/0/operations', 'value': ['CREATE']}]
    assert (await api.patch(f'{path}/one', again, kind='json-patch')).status == 200
    assert await acts()
    await install(api, kind, webhooks(url, rule('configmaps', 'CREATE'), name='two'))
    assert len((await api.get(f'{path}?labelSelector=all%3Dours')).json['items']) == 2
    assert (await api.delete(f'{path}?labelSelector=all%3Dours')).status == 200
    assert not await acts()
    await life(api, GROUP, f'{kind}webhookconfigurations', {'webhooks': []}, None)


@pytest.mark.parametrize('kind', [
    pytest.param('validating', marks=[
        conformance(f'{SUITE} {CREATE} validating webhook configurations with match conditions'),
        conformance(f'{SUITE} should reject validating webhook configurations with invalid match conditions'),
    ]),
    pytest.param('mutating', marks=[
        conformance(f'{SUITE} {CREATE} mutating webhook configurations with match conditions'),
        conformance(f'{SUITE} should reject mutating webhook configurations with invalid match conditions'),
    ]),
])  # fmt: skip
async def test_match_conditions_are_kept_and_bad_ones_refused(api, hook, kind):
    path = f'/apis/{GROUP}/{kind}webhookconfigurations'
    one = [{'name': 'expression-1', 'expression': "object.metadata.namespace == 'production'"}]
    two = [*one, {'name': 'expression-2', 'expression': "object.metadata.namespace == 'staging'"}]
    await install(api, kind, webhooks(f'{hook.base}/allow', rule('configmaps'), matchConditions=one))
    held = (await api.get(f'{path}/w')).json
    assert held['webhooks'][0]['matchConditions'] == one
    held['webhooks'][0]['matchConditions'] = two
    assert (await api.put(f'{path}/w', held)).json['webhooks'][0]['matchConditions'] == two
    bad = [{'name': 'bad', 'expression': 'bad bad expression ...'}]
    refusal = await api.post(path, webhooks(f'{hook.base}/allow', rule('configmaps'), name='x', matchConditions=bad))
    assert (refusal.status, 'compilation failed' in refusal.json['message']) == (422, True)


@conformance(f"{SUITE} should mutate everything except 'skip-me' configmaps")
async def test_a_match_condition_spares_what_it_names(api, hook):
    spare = [{'name': 'not-skip-me', 'expression': "object.metadata.name != 'skip-me'"}]
    await install(api, 'mutating', webhooks(f'{hook.base}/stages', rule('configmaps', 'CREATE'), matchConditions=spare))
    assert (await api.post(f'{CORE}/configmaps', configmap('skip-me'))).json['data'] == {'key': 'fine'}
    assert (await api.post(f'{CORE}/configmaps', configmap('other'))).json['data']['stage-1'] == 'yes'
