"""Admission webhooks and policies in CEL, against a real HTTPS server."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from aiohttp import web

CORE = '/api/v1/namespaces/default'
GROUP = '/apis/admissionregistration.k8s.io/v1'
RULE = {'operations': ['*'], 'apiGroups': [''], 'apiVersions': ['v1'], 'resources': ['configmaps']}


class Hook:
    """An HTTPS server; `answer` makes the response from the request, `seen` are the requests."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.answer: Callable[[dict[str, Any]], dict[str, Any]] = lambda _: {'allowed': True}
        self.hold: asyncio.Event | None = None
        self.port = 0

    async def handle(self, request: web.Request) -> web.Response:
        review = orjson.loads(await request.read())
        self.seen.append(review['request'])
        if self.hold is not None:
            await self.hold.wait()
        response = {'uid': review['request']['uid'], **self.answer(review['request'])}
        return web.json_response({'apiVersion': 'admission.k8s.io/v1', 'kind': 'AdmissionReview', 'response': response})


@pytest.fixture
async def hook(authority: Any) -> Any:
    found = Hook()
    app = web.Application()
    app.router.add_post('/{path:.*}', found.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*authority.issue('server', 'kubernetes'))
    await web.TCPSite(runner, '127.0.0.1', 0, ssl_context=tls).start()
    found.port = runner.addresses[0][1]
    yield found
    if found.hold is not None:
        found.hold.set()
    await runner.cleanup()


def configuration(authority: Any, port: int, name: str = 'w', **more: Any) -> dict[str, Any]:
    bundle = base64.b64encode((authority.directory / 'ca.crt').read_bytes()).decode()
    client = {'url': f'https://localhost:{port}/hook', 'caBundle': bundle}
    hook = {
        'name': f'{name}.example.com', 'clientConfig': client, 'rules': [RULE], 'sideEffects': 'None',
        'admissionReviewVersions': ['v1'], 'timeoutSeconds': 1, **more,
    }  # fmt: skip
    return {'metadata': {'name': name}, 'webhooks': [hook]}


async def install(api: Any, kind: str, body: dict[str, Any]) -> None:
    made = await api.post(f'{GROUP}/{kind}webhookconfigurations', body)
    assert made.status == 201, made.text
    await api.get(f'{GROUP}/{kind}webhookconfigurations')


def configmap(name: str = 'c', **more: Any) -> dict[str, Any]:
    return {'metadata': {'name': name, **more}, 'data': {'k': 'v'}}


def patch(*operations: dict[str, Any]) -> dict[str, Any]:
    encoded = base64.b64encode(orjson.dumps(operations)).decode()
    return {'allowed': True, 'patchType': 'JSONPatch', 'patch': encoded}


async def test_a_validating_webhook_sees_the_write_and_refuses_it(api: Any, authority: Any, hook: Hook) -> None:
    await install(api, 'validating', configuration(authority, hook.port))
    assert (await api.post(f'{CORE}/configmaps', configmap())).status == 201
    request = hook.seen[0]
    assert request['operation'] == 'CREATE'
    assert request['resource'] == {'group': '', 'version': 'v1', 'resource': 'configmaps'}
    assert request['object']['data'] == {'k': 'v'}
    assert request['oldObject'] is None
    assert request['userInfo']['username'] == 'admin'
    hook.answer = lambda _: {'allowed': False, 'status': {'message': 'no', 'code': 418}, 'warnings': ['mind']}
    refused = await api.delete(f'{CORE}/configmaps/c')
    assert refused.status == 418
    assert refused.json['message'] == 'admission webhook "w.example.com" denied the request: no'
    assert 'mind' in refused.headers['Warning']
    assert hook.seen[-1]['oldObject']['metadata']['name'] == 'c'


async def test_mutating_webhooks_run_in_order_and_again_when_needed(api: Any, authority: Any, hook: Hook) -> None:
    def answer(request: dict[str, Any]) -> dict[str, Any]:
        data = request['object']['data']
        if 'first' in data and 'second' in data:
            return {'allowed': True}
        return patch({'op': 'add', 'path': '/data/first' if 'first' not in data else '/data/second', 'value': 'x'})

    hook.answer = answer
    for name in ('b', 'a'):
        await install(api, 'mutating', configuration(authority, hook.port, name, reinvocationPolicy='IfNeeded'))
    made = await api.post(f'{CORE}/configmaps', configmap())
    assert made.json['data'] == {'k': 'v', 'first': 'x', 'second': 'x'}
    assert len(hook.seen) == 3


@pytest.mark.parametrize(('policy', 'status'), [('Fail', 500), ('Ignore', 201)])
async def test_a_webhook_that_is_down_refuses_or_not(
    api: Any, authority: Any, hook: Hook, policy: str, status: int
) -> None:
    dead = configuration(authority, 1, failurePolicy=policy)
    await install(api, 'validating', dead)
    made = await api.post(f'{CORE}/configmaps', configmap())
    assert made.status == status
    if status == 500:
        assert 'failed calling webhook "w.example.com": failed to call webhook: Post "https://' in made.json['message']


async def test_a_webhook_that_hangs_is_given_up_in_time(api: Any, authority: Any, hook: Hook) -> None:
    hook.hold = asyncio.Event()
    await install(api, 'validating', configuration(authority, hook.port))
    refused = await api.post(f'{CORE}/configmaps', configmap())
    assert refused.status == 500
    assert 'context deadline exceeded' in refused.json['message']


async def test_a_foreign_certificate_is_not_believed(api: Any, authority: Any, hook: Hook) -> None:
    body = configuration(authority, hook.port)
    body['webhooks'][0]['clientConfig']['url'] = f'https://127.0.0.2:{hook.port}/'
    await install(api, 'validating', body)
    assert (await api.post(f'{CORE}/configmaps', configmap())).status == 500


async def test_selectors_and_match_conditions_choose(api: Any, authority: Any, hook: Hook) -> None:
    hook.answer = lambda _: {'allowed': False}
    condition = {'name': 'x', 'expression': "object != null && object.data['k'] == 'bad'"}
    more = {
        'objectSelector': {'matchLabels': {'a': 'b'}}, 'matchConditions': [condition],
        'namespaceSelector': {'matchExpressions': [{'key': 'skip', 'operator': 'DoesNotExist'}]},
    }  # fmt: skip
    await install(api, 'validating', configuration(authority, hook.port, **more))
    assert (await api.post(f'{CORE}/configmaps', configmap('a'))).status == 201
    assert (await api.post(f'{CORE}/configmaps', configmap('b', labels={'a': 'b'}))).status == 201
    bad = {**configmap('c', labels={'a': 'b'}), 'data': {'k': 'bad'}}
    assert (await api.post(f'{CORE}/configmaps', bad)).status == 403
    await api.patch('/api/v1/namespaces/default', {'metadata': {'labels': {'skip': '1'}}})
    await api.get('/api/v1/namespaces/default')
    assert (await api.post(f'{CORE}/configmaps', bad)).status == 201


async def test_configurations_themselves_are_never_judged_and_bad_conditions_refused(
    api: Any, authority: Any, hook: Hook
) -> None:
    hook.answer = lambda _: {'allowed': False}
    everything = {'operations': ['*'], 'apiGroups': ['*'], 'apiVersions': ['*'], 'resources': ['*/*']}
    await install(api, 'validating', configuration(authority, hook.port, rules=[everything]))
    assert (await api.post(f'{CORE}/configmaps', configmap())).status == 403
    bad = configuration(authority, hook.port, 'bad', matchConditions=[{'name': 'x', 'expression': 'object.('}])
    refused = await api.post(f'{GROUP}/validatingwebhookconfigurations', bad)
    assert refused.status == 422
    assert 'compilation failed' in refused.json['message']
    assert (await api.delete(f'{GROUP}/validatingwebhookconfigurations/w')).status == 200


def policy(**spec: Any) -> dict[str, Any]:
    rule = {'operations': ['CREATE', 'UPDATE'], 'apiGroups': [''], 'apiVersions': ['v1'], 'resources': ['configmaps']}
    return {'metadata': {'name': 'p'}, 'spec': {'matchConstraints': {'resourceRules': [rule]}, **spec}}


def binding(*actions: str, **spec: Any) -> dict[str, Any]:
    return {'metadata': {'name': 'b'}, 'spec': {'policyName': 'p', 'validationActions': list(actions), **spec}}


async def enforce(api: Any, a: dict[str, Any], b: dict[str, Any]) -> None:
    for kind, body in (('policies', a), ('policybindings', b)):
        made = await api.post(f'{GROUP}/validatingadmission{kind}', body)
        assert made.status == 201, made.text
    await api.get(f'{GROUP}/validatingadmissionpolicies')


async def test_a_policy_refuses_with_its_expression_or_message(api: Any) -> None:
    rules = [
        {'expression': 'variables.size <= 2'},
        {'expression': "!('secret' in object.data)", 'messageExpression': "'no secret in ' + object.metadata.name"},
    ]
    variables = [{'name': 'size', 'expression': 'size(object.data)'}]
    await enforce(api, policy(validations=rules, variables=variables), binding('Deny'))
    assert (await api.post(f'{CORE}/configmaps', configmap())).status == 201
    big = {**configmap('big'), 'data': {'a': '', 'b': '', 'c': ''}}
    refused = await api.post(f'{CORE}/configmaps', big)
    assert refused.status == 422
    assert refused.json['message'] == (
        "configmaps \"big\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: "
        'failed expression: variables.size <= 2'
    )
    told = await api.post(f'{CORE}/configmaps', {**configmap('s'), 'data': {'secret': ''}})
    assert told.json['message'].endswith('denied request: no secret in s')


async def test_a_policy_may_only_warn_and_reads_its_parameters(api: Any) -> None:
    await api.post(f'{CORE}/configmaps', {'metadata': {'name': 'limits'}, 'data': {'max': '1'}})
    rules = [{'expression': 'size(object.data) <= int(params.data.max)', 'message': 'too many'}]
    kind = {'apiVersion': 'v1', 'kind': 'ConfigMap'}
    ref = {'name': 'limits', 'namespace': 'default', 'parameterNotFoundAction': 'Deny'}
    await enforce(api, policy(validations=rules, paramKind=kind), binding('Warn', paramRef=ref))
    made = await api.post(f'{CORE}/configmaps', {**configmap(), 'data': {'a': '', 'b': ''}})
    assert made.status == 201
    assert 'too many' in made.headers['Warning']


async def test_an_expression_that_fails_follows_the_failure_policy(api: Any) -> None:
    rules = [{'expression': 'object.data.missing == "x"'}]
    await enforce(api, policy(validations=rules), binding('Deny'))
    refused = await api.post(f'{CORE}/configmaps', configmap())
    assert refused.status == 422
    assert 'no such key: missing' in refused.json['message']
    await api.patch(f'{GROUP}/validatingadmissionpolicies/p', {'spec': {'failurePolicy': 'Ignore'}})
    await api.get(f'{GROUP}/validatingadmissionpolicies')
    assert (await api.post(f'{CORE}/configmaps', configmap())).status == 201
    broken = await api.post(f'{GROUP}/validatingadmissionpolicies', {**policy(validations=[{'expression': '1 +'}])})
    assert broken.status == 422
    assert 'compilation failed' in broken.json['message']
