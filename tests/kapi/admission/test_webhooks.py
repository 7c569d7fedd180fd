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
        self.agents: set[str] = set()
        self.answer: Callable[[dict[str, Any]], dict[str, Any]] = lambda _: {'allowed': True}
        self.hold: asyncio.Event | None = None
        self.port = 0

    async def handle(self, request: web.Request) -> web.Response:
        review = orjson.loads(await request.read())
        self.seen.append(review['request'])
        self.agents.add(request.headers['User-Agent'])
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
    assert hook.agents == {'kube-apiserver-admission'}


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


AUTOSCALERS = '/apis/autoscaling/{}/namespaces/default/horizontalpodautoscalers'
CPU = {'type': 'Resource', 'resource': {'name': 'cpu', 'target': {'type': 'Utilization', 'averageUtilization': 50}}}
AUTOSCALER = {'metadata': {'name': 'a'}, 'spec': {
    'scaleTargetRef': {'kind': 'Deployment', 'name': 'd', 'apiVersion': 'apps/v1'}, 'maxReplicas': 3,
}}  # fmt: skip


def autoscalers(version: str, **more: Any) -> dict[str, Any]:
    rule = {'operations': ['*'], 'apiGroups': ['autoscaling'], 'apiVersions': [version],
            'resources': ['horizontalpodautoscalers']}  # fmt: skip
    return {'rules': [rule], **more}


async def test_a_webhook_whose_rule_names_another_version_sees_and_changes_that_one(
    api: Any, authority: Any, hook: Hook
) -> None:
    hook.answer = lambda r: (
        patch({'op': 'replace', 'path': '/spec/targetCPUUtilizationPercentage', 'value': 70})
        if r['object']['spec']['targetCPUUtilizationPercentage'] == 50 else {'allowed': True}
    )  # fmt: skip
    await install(api, 'mutating', configuration(authority, hook.port, **autoscalers('v1')))
    body = {**AUTOSCALER, 'spec': {**AUTOSCALER['spec'], 'metrics': [CPU]}}
    made = await api.post(AUTOSCALERS.format('v2'), body)
    assert made.json['spec']['metrics'][0]['resource']['target']['averageUtilization'] == 70, made.text
    old = {'group': 'autoscaling', 'version': 'v1'}
    request = hook.seen[0]
    assert request['kind'] == {**old, 'kind': 'HorizontalPodAutoscaler'}
    assert request['resource'] == {**old, 'resource': 'horizontalpodautoscalers'}
    assert request['requestKind'] == {**old, 'version': 'v2', 'kind': 'HorizontalPodAutoscaler'}
    assert request['requestResource'] == {**old, 'version': 'v2', 'resource': 'horizontalpodautoscalers'}
    assert request['object']['apiVersion'] == 'autoscaling/v1'
    made.json['metadata']['labels'] = {'a': 'b'}
    assert (await api.put(f'{AUTOSCALERS.format("v2")}/a', made.json)).status == 200
    assert [hook.seen[-1][o]['spec']['targetCPUUtilizationPercentage'] for o in ('object', 'oldObject')] == [70, 70]


async def test_a_webhook_gets_the_version_of_the_request_if_its_rules_name_that_and_exact_ones_only_then(
    api: Any, authority: Any, hook: Hook
) -> None:
    await install(api, 'validating', configuration(authority, hook.port, 'exact',
                                                   **autoscalers('v2', matchPolicy='Exact')))  # fmt: skip
    body = {**AUTOSCALER, 'spec': {**AUTOSCALER['spec'], 'targetCPUUtilizationPercentage': 50}}
    assert (await api.post(AUTOSCALERS.format('v1'), body)).status == 201
    assert hook.seen == []
    await install(api, 'validating', configuration(authority, hook.port, 'any', **autoscalers('*')))
    assert (await api.delete(f'{AUTOSCALERS.format("v1")}/a')).status == 200
    (request,) = hook.seen
    assert (request['kind']['version'], request['requestKind']['version']) == ('v1', 'v1')
    assert request['oldObject']['spec']['targetCPUUtilizationPercentage'] == 50


async def test_an_event_of_the_newer_group_is_told_to_a_webhook_for_the_older(
    api: Any, authority: Any, hook: Hook
) -> None:
    await install(api, 'validating', configuration(authority, hook.port, rules=[{**RULE, 'resources': ['events']}]))
    about = {'kind': 'Pod', 'name': 'p', 'namespace': 'default'}
    body = {
        'metadata': {'name': 'e'}, 'regarding': about, 'reason': 'r', 'note': 'n', 'action': 'a', 'type': 'Normal',
        'eventTime': '2026-01-01T00:00:00.000000Z', 'reportingController': 'c', 'reportingInstance': 'i',
    }  # fmt: skip
    made = await api.post('/apis/events.k8s.io/v1/namespaces/default/events', body)
    assert made.status == 201, made.text
    (request,) = hook.seen
    assert (request['kind']['group'], request['requestKind']['group']) == ('', 'events.k8s.io')
    assert (request['object']['involvedObject'], request['object']['message']) == (about, 'n')


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
    assert (await api.post(f'{CORE}/configmaps', bad)).status == 400
    await api.patch('/api/v1/namespaces/default', {'metadata': {'labels': {'skip': '1'}}})
    await api.get('/api/v1/namespaces/default')
    assert (await api.post(f'{CORE}/configmaps', bad)).status == 201


async def test_configurations_themselves_are_never_judged_and_bad_conditions_refused(
    api: Any, authority: Any, hook: Hook
) -> None:
    hook.answer = lambda _: {'allowed': False}
    everything = {'operations': ['*'], 'apiGroups': ['*'], 'apiVersions': ['*'], 'resources': ['*/*']}
    await install(api, 'validating', configuration(authority, hook.port, rules=[everything]))
    assert (await api.post(f'{CORE}/configmaps', configmap())).status == 400
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
    assert refused.json['details']['causes'] == [{'message': refused.json['message'].partition('forbidden: ')[2]}]
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


@pytest.mark.parametrize(('told', 'expected'), [
    (None, (400, None, ' without explanation')), ({'code': 200}, (400, None, ' without explanation')),
    ({'reason': 'Conflict', 'code': 409}, (409, 'Conflict', ': Conflict')),
    ({'message': 'no', 'details': {'name': 'x'}}, (400, None, ': no')),
])  # fmt: skip
async def test_a_denial_is_told_as_the_webhook_says_it(
    api: Any, authority: Any, hook: Hook, told: Any, expected: tuple[int, Any, str]
) -> None:
    status, reason, message = expected
    hook.answer = lambda _: {'allowed': False, 'status': told}
    await install(api, 'validating', configuration(authority, hook.port))
    refused = await api.post(f'{CORE}/configmaps', configmap())
    assert (refused.status, refused.json.get('reason')) == (status, reason)
    assert refused.json['message'] == f'admission webhook "w.example.com" denied the request{message}'
    assert refused.json.get('details') == (told or {}).get('details')


def raw(patch: Any, **more: Any) -> dict[str, Any]:
    return {'allowed': True, 'patchType': 'JSONPatch', 'patch': base64.b64encode(patch).decode(), **more}


@pytest.mark.parametrize('row', [
    (raw(b'nonsense'), 201, 'received undecodable patch in webhook response'),
    (raw(b'[]', patchType=''), 201, 'received invalid webhook response: webhook returned response.patch but not'),
    (raw(b'[]', patchType='Merge'), 201, 'webhook returned invalid response.patchType of "Merge"'),
    (raw(b'[]', uid='other'), 201, 'received invalid webhook response: expected response.uid='),
    ({'allowed': True, 'patch': '!', 'patchType': 'JSONPatch'}, 201, 'response.patch is not base64'),
    (raw(b'[{"op": "remove", "path": "/data/none"}]'), 500, 'cannot be applied'),
    (raw(b'[{"op": "replace", "path": "", "value": 1}]'), 500, 'cannot be applied'),
    (raw(b'[{"op": "add", "path": "/data/n", "value": 7}]'), 500, 'cannot be applied'),
])  # fmt: skip
async def test_a_bad_answer_is_a_failure_and_a_bad_patch_an_error_that_nobody_may_pass_over(
    api: Any, authority: Any, hook: Hook, row: tuple[Any, int, str]
) -> None:
    answer, fails, why = row
    hook.answer = lambda _: answer
    await install(api, 'mutating', configuration(authority, hook.port))
    refused = await api.post(f'{CORE}/configmaps', configmap())
    assert refused.status == 500
    assert why in refused.json['message']
    path = f'{GROUP}/mutatingwebhookconfigurations/w'
    await api.patch(path, [{'op': 'replace', 'path': '/webhooks/0/failurePolicy', 'value': 'Ignore'}], 'json-patch')
    await api.get(path)
    assert (await api.post(f'{CORE}/configmaps', configmap())).status == fails


async def test_a_webhook_of_v1beta1_gets_and_gives_that_version(api: Any, authority: Any, hook: Hook) -> None:
    answer = patch({'op': 'add', 'path': '/data/x', 'value': 'y'})
    del answer['patchType']
    hook.answer = lambda _: {**answer, 'uid': ''}
    await install(api, 'mutating', configuration(authority, hook.port, admissionReviewVersions=['v9', 'v1beta1', 'v1']))
    assert (await api.post(f'{CORE}/configmaps', configmap())).json['data'] == {'k': 'v', 'x': 'y'}


async def test_a_patch_of_a_deletion_is_refused(api: Any, authority: Any, hook: Hook) -> None:
    await api.post(f'{CORE}/configmaps', configmap())
    hook.answer = lambda _: patch({'op': 'add', 'path': '/data/x', 'value': 'y'})
    await install(api, 'mutating', configuration(authority, hook.port))
    refused = await api.delete(f'{CORE}/configmaps/c?propagationPolicy=Foreground&gracePeriodSeconds=3')
    assert (refused.status, 'not supported for this operation' in refused.json['message']) == (500, True)
    assert hook.seen[0]['options'] == {
        'kind': 'DeleteOptions', 'apiVersion': 'meta.k8s.io/v1', 'propagationPolicy': 'Foreground',
        'gracePeriodSeconds': 3,
    }  # fmt: skip


TOKENS = 'authentication.k8s.io'
EVERYTHING = {'operations': ['*'], 'apiGroups': ['*'], 'apiVersions': ['*'], 'resources': ['*/*']}
POD = {'metadata': {'name': 'p'}, 'spec': {'containers': [{'name': 'c', 'image': 'i'}]}}


async def test_a_subresource_shows_the_body_of_the_request_and_not_the_object(
    api: Any, authority: Any, hook: Hook
) -> None:
    apps = '/apis/apps/v1/namespaces/default/deployments'
    template = {'metadata': {'labels': {'a': 'b'}}, 'spec': POD['spec']}
    spec = {'replicas': 0, 'selector': {'matchLabels': {'a': 'b'}}, 'template': template}
    await api.post(apps, {'metadata': {'name': 'd'}, 'spec': spec})
    await api.post(f'{CORE}/serviceaccounts', {'metadata': {'name': 's'}})
    await api.post(f'{CORE}/pods', POD)
    only = {**EVERYTHING, 'resources': ['*/scale', '*/token', '*/binding', '*/eviction', 'pods', 'deployments']}
    await install(api, 'validating', configuration(authority, hook.port, rules=[only]))
    assert (await api.patch(f'{apps}/d/scale', {'spec': {'replicas': 2}})).status == 200
    assert (await api.post(f'{CORE}/serviceaccounts/s/token?fieldManager=m', {'spec': {}})).status == 201
    assert (await api.post(f'{CORE}/pods/p/binding', {'metadata': {}, 'target': {'name': 'n'}})).status == 201
    assert (await api.post(f'{CORE}/pods/p/eviction', {'metadata': {'name': 'p'}})).status == 201
    shown = [(r['operation'], r['resource']['resource'], r['subResource'], r['kind']['group'], r['kind']['kind'],
              r['object']['kind'], r['options']['kind']) for r in hook.seen]  # fmt: skip
    assert shown == [
        ('UPDATE', 'deployments', 'scale', 'autoscaling', 'Scale', 'Scale', 'UpdateOptions'),
        ('CREATE', 'serviceaccounts', 'token', TOKENS, 'TokenRequest', 'TokenRequest', 'CreateOptions'),
        ('CREATE', 'pods', 'binding', '', 'Binding', 'Binding', 'CreateOptions'),
        ('CREATE', 'pods', 'eviction', 'policy', 'Eviction', 'Eviction', 'CreateOptions'),
    ]  # fmt: skip
    assert (hook.seen[0]['object']['spec'], hook.seen[0]['oldObject']['spec']) == ({'replicas': 2}, {'replicas': 0})
    assert hook.seen[1]['options']['fieldManager'] == 'm'


@pytest.mark.parametrize('row', [
    ('pods/p/exec?command=ls&command=-l&stdin=1&container=c', 'PodExecOptions',
     {'command': ['ls', '-l'], 'stdin': True, 'stdout': True, 'stderr': True, 'container': 'c'}),
    ('pods/p/attach?tty=true', 'PodAttachOptions', {'tty': True, 'stdout': True, 'stderr': True}),
    ('pods/p/portforward?ports=80,81', 'PodPortForwardOptions', {'ports': [80, 81]}),
    ('pods/p/proxy/a/b', 'PodProxyOptions', {'path': '/a/b'}),
    ('services/s/proxy/', 'ServiceProxyOptions', {}),
])  # fmt: skip
async def test_a_connection_shows_its_options_and_warnings_reach_the_client(
    api: Any, authority: Any, hook: Hook, row: tuple[str, str, Any]
) -> None:
    path, kind, options = row
    await api.post(f'{CORE}/pods', POD)
    hook.answer = lambda _: {'allowed': False, 'status': {'message': 'no'}, 'warnings': ['mind the gap']}
    rule = {**EVERYTHING, 'operations': ['CONNECT']}
    await install(api, 'validating', configuration(authority, hook.port, rules=[rule]))
    refused = await api.get(f'{CORE}/{path}', headers={'Upgrade': 'SPDY/3.1', 'Connection': 'Upgrade'})
    assert (refused.status, 'mind the gap' in refused.headers['Warning']) == (400, True)
    request = hook.seen[0]
    assert (request['kind'], request['operation']) == ({'group': '', 'version': 'v1', 'kind': kind}, 'CONNECT')
    assert request['object'] == {'apiVersion': 'v1', 'kind': kind, **options}


AUTHORIZER = [
    ("authorizer.group('').resource('pods').namespace('default').check('list').allowed()", True),
    ("authorizer.group('').resource('pods').namespace('other').check('list').allowed()", False),
    ("authorizer.group('').resource('secrets').namespace('default').check('get').allowed()", False),
    ("authorizer.group('').resource('pods').subresource('log').namespace('default').check('get').allowed()", True),
    ("authorizer.group('').resource('configmaps').name('only').namespace('default').check('get').allowed()", True),
    ("authorizer.group('').resource('configmaps').name('else').namespace('default').check('get').allowed()", False),
    ("authorizer.path('/healthz').check('get').allowed()", True),
    ("authorizer.path('/metrics').check('get').allowed()", False),
    ("authorizer.requestResource.check('create').allowed()", True),
    ("authorizer.requestResource.check('delete').allowed() || authorizer.path('/apis').check('get').allowed()", True),
    ("authorizer.serviceAccount('default', 'robot').group('').resource('pods').namespace('default')"
     ".check('list').allowed()", False),
    ("authorizer.serviceAccount('default', 'robot').path('/apis').check('get').allowed()", True),
    ("authorizer.group('').resource('secrets').check('get').reason() == ''", True),
    ("authorizer.path('/x').check('get').errored()", False),
    ("authorizer.path('/x').check('get').error() == ''", True),
]  # fmt: skip


async def allow_eve(api: Any) -> None:
    rbac = '/apis/rbac.authorization.k8s.io/v1/namespaces/default'
    rules = [
        {'apiGroups': [''], 'resources': ['pods', 'pods/log'], 'verbs': ['get', 'list']},
        {'apiGroups': [''], 'resources': ['configmaps'], 'verbs': ['create', 'update']},
        {'apiGroups': [''], 'resources': ['configmaps'], 'resourceNames': ['only'], 'verbs': ['get']},
    ]
    await api.post(f'{rbac}/roles', {'metadata': {'name': 'r'}, 'rules': rules})
    ref = {'apiGroup': 'rbac.authorization.k8s.io', 'kind': 'Role', 'name': 'r'}
    subjects = [{'apiGroup': 'rbac.authorization.k8s.io', 'kind': 'User', 'name': 'eve'}]
    await api.post(f'{rbac}/rolebindings', {'metadata': {'name': 'b'}, 'roleRef': ref, 'subjects': subjects})
    await api.get(f'{rbac}/rolebindings')


async def test_a_policy_asks_what_the_requester_may_do(world: Any, api: Any) -> None:
    await allow_eve(api)
    eve = await world.user('eve')
    rules = [{'expression': f'variables.v{n} == {str(v).lower()}'} for n, (_, v) in enumerate(AUTHORIZER)]
    variables = [{'name': f'v{n}', 'expression': text} for n, (text, _) in enumerate(AUTHORIZER)]
    await enforce(api, policy(validations=rules, variables=variables), binding('Deny', 'Audit'))
    made = await eve.post(f'{CORE}/configmaps', configmap())
    assert made.status == 201, made.text
    assert (await api.post(f'{CORE}/configmaps', configmap('d'))).status == 422  # who may do all of it


async def test_match_conditions_ask_the_authorizer_too(world: Any, api: Any, authority: Any, hook: Hook) -> None:
    await allow_eve(api)
    eve = await world.user('eve')
    breakglass = {'name': 'x', 'expression': "!authorizer.group('').resource('secrets').check('get').allowed()"}
    hook.answer = lambda _: {'allowed': False}
    await install(api, 'validating', configuration(authority, hook.port, matchConditions=[breakglass]))
    assert (await eve.post(f'{CORE}/configmaps', configmap('a'))).status == 400
    assert (await api.post(f'{CORE}/configmaps', configmap('b'))).status == 201


async def test_what_webhooks_did_is_in_the_audit_log(serve: Any, authority: Any, hook: Hook, tmp_path: Any) -> None:
    log, rules = tmp_path / 'audit.log', tmp_path / 'policy.yaml'
    rules.write_text('rules: [{level: Request, resources: [{resources: [configmaps]}]}, {level: Metadata}]')
    hook.answer = lambda _: patch({'op': 'add', 'path': '/metadata/labels', 'value': {'a': 'b'}})
    async with serve(audit_log_path=log, audit_policy_file=rules) as world:
        api = await world.user('admin', 'system:masters')
        resources = [{**RULE, 'resources': ['configmaps', 'serviceaccounts']}]
        await install(api, 'mutating', configuration(authority, hook.port, rules=resources))
        await install(api, 'validating', configuration(authority, 1, failurePolicy='Ignore', rules=resources))
        await api.post(f'{CORE}/configmaps', configmap())
        await api.post(f'{CORE}/serviceaccounts', {'metadata': {'name': 's'}})
    config, account = (orjson.loads(line)['annotations'] for line in log.read_bytes().splitlines()[-3::2])
    where, place = {'configuration': 'w', 'webhook': 'w.example.com'}, 'round_0_index_0'
    for notes in (config, account):
        assert orjson.loads(notes[f'mutation.webhook.admission.k8s.io/{place}']) == {**where, 'mutated': True}
        assert notes[f'failed-open.validating.webhook.admission.k8s.io/{place}'] == 'w.example.com'
    told = orjson.loads(config[f'patch.webhook.admission.k8s.io/{place}'])
    assert told == {**where, 'patchType': 'JSONPatch',
                    'patch': [{'op': 'add', 'path': '/metadata/labels', 'value': {'a': 'b'}}]}  # fmt: skip
    assert f'patch.webhook.admission.k8s.io/{place}' not in account


async def test_what_a_policy_did_not_like_is_in_the_audit_log(serve: Any, tmp_path: Any) -> None:
    log = tmp_path / 'audit.log'
    async with serve(audit_log_path=log) as world:
        api = await world.user('admin', 'system:masters')
        rules = [{'expression': 'true'}, {'expression': 'object.data.k == "w"', 'message': 'no w'}]
        await enforce(api, policy(validations=rules), binding('Audit'))
        assert (await api.post(f'{CORE}/configmaps', configmap())).status == 201
    notes = orjson.loads(log.read_bytes().splitlines()[-1])['annotations']
    assert orjson.loads(notes['validation.policy.admission.k8s.io/validation_failure']) == [{
        'message': 'no w', 'policy': 'p', 'binding': 'b', 'expressionIndex': 1, 'validationActions': ['Audit'],
    }]  # fmt: skip


async def test_what_is_empty_is_not_in_a_review(api: Any, hook: Hook, authority: Any) -> None:
    rule = {**RULE, 'apiGroups': ['apps'], 'resources': ['deployments', 'deployments/scale']}
    await install(api, 'validating', configuration(authority, hook.port, rules=[rule, RULE]))
    await api.post(f'{CORE}/configmaps', {'metadata': {'generateName': 'g-'}, 'data': {}})
    template = {'metadata': {'labels': {'a': 'b'}}, 'spec': {'containers': [{'name': 'c', 'image': 'i'}]}}
    deployment = {'metadata': {'name': 'd'}, 'spec': {'selector': {'matchLabels': {'a': 'b'}}, 'template': template}}
    path = '/apis/apps/v1/namespaces/default/deployments'
    assert (await api.post(path, deployment)).status == 201
    assert (await api.patch(f'{path}/d/scale', {'spec': {'replicas': 2}})).status == 200
    assert len(hook.seen) == 3
    for request in hook.seen[:2]:
        assert not {'subResource', 'requestSubResource'} & set(request)
        assert request['oldObject'] is None
        assert request['dryRun'] is False
    assert (hook.seen[2]['subResource'], hook.seen[2]['requestSubResource']) == ('scale', 'scale')
