"""Small things by which a client could tell us from Kubernetes."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from kapi.kinds import KINDS
from kapi.registry.options import ListOptions
from kapi.server.handlers import watch as watches
from kapi.storage.codec import encode
from kapi.storage.entries import CacheEvent, Entry
from kapi.storage.watchers import Watcher
from tests.kapi import protobuf

Obj = dict[str, Any]
CM = '/api/v1/namespaces/default/configmaps'
DEPLOYMENTS = '/apis/apps/v1/namespaces/default/deployments'
PROTOBUF = 'application/vnd.kubernetes.protobuf'


async def _config_maps(api: Any, count: int) -> None:
    for i in range(count):
        await api.post(CM, {'metadata': {'name': f'c{i}', 'labels': {'n': str(i)}}})


async def _deployment(api: Any) -> None:
    template = {'metadata': {'labels': {'a': 'b'}}, 'spec': {'containers': [{'name': 'c', 'image': 'i'}]}}
    spec = {'selector': {'matchLabels': {'a': 'b'}}, 'template': template}
    assert (await api.post(DEPLOYMENTS, {'metadata': {'name': 'd'}, 'spec': spec})).status == 201


# — writes —


async def test_the_same_object_in_another_order_is_no_change(api):
    made = (await api.post(CM, {'metadata': {'name': 'a', 'labels': {'x': 'y'}}, 'data': {'b': 'c'}})).json
    again = await api.put(f'{CM}/a', protobuf.encode(made), content_type=PROTOBUF)
    assert (again.status, again.json) == (200, made)
    turned = {'data': made['data'], 'metadata': dict(reversed(made['metadata'].items())), 'kind': 'ConfigMap'}
    assert (await api.put(f'{CM}/a', turned)).json == made


async def test_a_collection_is_deleted_a_page_at_a_time_when_a_limit_is_given(api):
    await _config_maps(api, 5)
    page = (await api.delete(f'{CM}?limit=2')).json
    assert [c['metadata']['name'] for c in page['items']] == ['c0', 'c1']
    assert page['metadata']['remainingItemCount'] == 3
    rest = (await api.delete(f'{CM}?limit=2&continue={page["metadata"]["continue"]}')).json
    assert [c['metadata']['name'] for c in rest['items']] == ['c2', 'c3']
    assert [c['metadata']['name'] for c in (await api.get(CM)).json['items']] == ['c4']
    assert (await api.delete(f'{CM}?resourceVersionMatch=Exact')).status == 422


@pytest.mark.parametrize(('body', 'why'), [
    (b'', '(<empty>)'), (b'{"a":', '({"a":)'), (b'[]', '(5b5d)'), (b'{"a"' + b' ' * 40, '...)'),
])  # fmt: skip
async def test_a_body_that_nobody_can_read_is_named_and_shown(api, body, why):
    reply = await api.post(CM, body, content_type='application/json')
    assert reply.status == 400
    said = reply.json['message']
    assert said.startswith(
        "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind;"
    )
    assert said.endswith(why)


async def test_a_body_of_another_kind_is_called_by_its_own_name(api):
    reply = await api.post(CM, {'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {'name': 'a'}})
    assert reply.json['message'].startswith('Pod in version "v1" cannot be handled as a ConfigMap: ')


async def test_an_apply_without_a_version_is_told_which_one_is_expected(api):
    reply = await api.patch(f'{CM}/a?fieldManager=m', {'metadata': {'name': 'a'}}, 'apply-patch')
    assert reply.json['message'].endswith('Specified patch version: , expected: v1')


async def test_an_item_without_its_merge_key_is_shown(api):
    await _deployment(api)
    change = {'spec': {'template': {'spec': {'containers': [{'image': 'x'}]}}}}
    reply = await api.patch(f'{DEPLOYMENTS}/d', change, 'strategic-merge-patch')
    assert (reply.status, reply.json['message']) == (
        400, 'map: map[image:x] does not contain declared merge key: name',
    )  # fmt: skip


async def test_an_eviction_in_its_old_version_is_taken(api):
    await api.post('/api/v1/namespaces/default/serviceaccounts', {'metadata': {'name': 'default'}})
    pod = {'metadata': {'name': 'p'}, 'spec': {'containers': [{'name': 'c', 'image': 'i'}]}}
    path = '/api/v1/namespaces/default/pods'
    assert (await api.post(path, pod)).status == 201
    old = {'apiVersion': 'policy/v1beta1', 'kind': 'Eviction', 'metadata': {'name': 'p'}}
    assert (await api.post(f'{path}/p/eviction', old)).status == 201
    assert (await api.get(f'{path}/p')).status == 404


# — scale —


def _managers(obj: Obj) -> set[tuple[str, str, str]]:
    return {(e['manager'], e['operation'], e.get('subresource', '')) for e in obj['metadata']['managedFields']}


async def test_replicas_belong_to_who_set_them_by_scale_and_an_apply_of_scale_may_conflict(api):
    await _deployment(api)
    scaled = await api.patch(f'{DEPLOYMENTS}/d/scale?fieldManager=hand', {'spec': {'replicas': 3}})
    assert scaled.json['spec'] == {'replicas': 3}
    assert ('hand', 'Update', 'scale') in _managers((await api.get(f'{DEPLOYMENTS}/d')).json)
    wanted = {'apiVersion': 'autoscaling/v1', 'kind': 'Scale', 'metadata': {'name': 'd'}, 'spec': {'replicas': 5}}
    path = f'{DEPLOYMENTS}/d/scale?fieldManager=other'
    refused = await api.patch(path, wanted, 'apply-patch')
    assert (refused.status, refused.json['details']['causes'][0]['field']) == (409, '.spec.replicas')
    assert 'with subresource "scale"' in refused.json['message']
    assert (await api.patch(f'{path}&force=true', wanted, 'apply-patch')).json['spec'] == {'replicas': 5}
    found = (await api.get(f'{DEPLOYMENTS}/d')).json
    assert found['spec']['replicas'] == 5
    assert ('other', 'Apply', 'scale') in _managers(found)
    assert ('hand', 'Update', 'scale') not in _managers(found)
    stale = {**wanted, 'metadata': {'name': 'd', 'resourceVersion': '1'}}
    assert (await api.patch(f'{path}&force=true', stale, 'apply-patch')).status == 409


async def test_admission_sees_a_scale_where_a_scale_is_written(api):
    await _deployment(api)
    rule = {'apiGroups': ['apps'], 'apiVersions': ['v1'], 'operations': ['UPDATE'], 'resources': ['deployments/scale']}
    group = '/apis/admissionregistration.k8s.io/v1'
    said = "request.kind.kind + ' ' + request.subResource + ' ' + string(object.spec.replicas)"
    policy = {
        'metadata': {'name': 'few'},
        'spec': {
            'matchConstraints': {'resourceRules': [rule]},
            'validations': [{'expression': 'object.spec.replicas <= 2', 'messageExpression': said}],
        },
    }
    assert (await api.post(f'{group}/validatingadmissionpolicies', policy)).status == 201
    bound = {'metadata': {'name': 'few'}, 'spec': {'policyName': 'few', 'validationActions': ['Deny']}}
    assert (await api.post(f'{group}/validatingadmissionpolicybindings', bound)).status == 201
    refused = await api.patch(f'{DEPLOYMENTS}/d/scale', {'spec': {'replicas': 3}})
    assert refused.status == 422
    assert 'Scale scale 3' in refused.json['message']
    assert (await api.patch(f'{DEPLOYMENTS}/d/scale', {'spec': {'replicas': 2}})).status == 200
    assert (await api.patch(f'{DEPLOYMENTS}/d', {'spec': {'replicas': 3}})).status == 200, 'the object itself is free'


# — reads —


@pytest.mark.parametrize(('path', 'field', 'known'), [
    ('/api/v1/pods', 'status.podIPs', True), ('/api/v1/pods', 'spec.host', True), ('/api/v1/nodes', 'spec.x', False),
    ('/api/v1/namespaces', 'metadata.namespace', False), ('/api/v1/nodes', 'metadata.namespace', False),
    ('/api/v1/services', 'spec.type', True), ('/api/v1/secrets', 'data', False),
])  # fmt: skip
async def test_kinds_with_labels_of_their_own_select_by_those_alone(api, path, field, known):
    reply = await api.get(f'{path}?fieldSelector={field}=x')
    assert reply.status == (200 if known else 400)
    if not known:
        assert reply.json['message'] == f'field label not supported: {field}'


@pytest.mark.parametrize('path', ['/api/v1/persistentvolumes', '/api/v1/persistentvolumeclaims', CM])
async def test_other_kinds_select_by_name_and_namespace_alone(api, path):
    assert (await api.get(f'{path}?fieldSelector=metadata.namespace=x,metadata.name=y')).status == 200
    reply = await api.get(f'{path}?fieldSelector=name=x')
    only = 'only "metadata.name", "metadata.namespace"'
    assert (reply.status, reply.json['message']) == (400, f'"name" is not a known field selector: {only}')


async def test_a_watch_cannot_be_had_as_yaml(api):
    refused = await api.get(f'{CM}?watch=true', headers={'Accept': 'application/yaml'})
    assert refused.status == 406
    assert 'application/json;stream=watch' in refused.json['message']
    headers = {'Accept': 'application/yaml, application/json'}
    assert (await api.get(f'{CM}?watch=true&timeoutSeconds=1', headers=headers)).status == 200


async def test_a_check_that_is_left_out_says_so(api):
    said = (await api.get('/readyz?verbose&exclude=ping&exclude=none')).text.splitlines()
    assert said[0] == '[+]ping excluded: ok'
    assert said[-2:] == ['warn: some health checks cannot be excluded: no matches for "none"', 'readyz check passed']


class _SlowSink:
    """Its first write takes until the watch's time is up."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.stream: Any = None

    async def write(self, data: bytes) -> None:
        self.lines += data.splitlines()
        loop = asyncio.get_running_loop()
        over = loop.create_future()
        loop.call_at(self.stream.end + 0.01, over.set_result, None)
        await over


async def test_a_watch_whose_bell_rang_while_it_wrote_ends_all_the_same(env):
    kind = next(k for k in KINDS if k.resource.plural == 'configmaps')
    obj = {'apiVersion': 'v1', 'kind': 'ConfigMap', 'metadata': {'name': 'a'}}
    metrics = SimpleNamespace(watch_events=SimpleNamespace(labels=lambda _: SimpleNamespace(inc=lambda _: None)))
    fairness = SimpleNamespace(turns=SimpleNamespace(pieces=None))  # nothing is written in pieces here
    server = SimpleNamespace(env=env, metrics=metrics, cache=SimpleNamespace(revision=9), fairness=fairness)
    transport = SimpleNamespace(abort=lambda: None, is_closing=lambda: False)
    ctx: Any = SimpleNamespace(server=server, raw=SimpleNamespace(transport=transport), form=watches.Form(), seat=None)
    watcher, sink = Watcher(None), _SlowSink()
    options = ListOptions(watch=True, bookmarks=True, timeout_s=1)
    stream = watches._Stream(ctx, kind, options, view=watches.View('', None), watcher=watcher, response=sink)
    sink.stream = stream
    stream.end = asyncio.get_running_loop().time() + 0.02
    watcher.offer(CacheEvent('ADDED', Entry('/registry/configmaps/default/a', encode(obj), 8), None))
    async with asyncio.timeout(5):
        await stream.run([])
    assert [line[:12] for line in sink.lines] == [b'{"type":"ADD', b'{"type":"BOO']
    assert b'"resourceVersion":"9"' in sink.lines[1]


# — documents —


async def test_documents_say_what_operations_answer_and_which_parameters_they_take(api):
    document = (await api.get('/openapi/v3/api/v1')).json
    schemas = document['components']['schemas']

    def answer(path: str, method: str) -> str:
        shape = document['paths'][path][method]['responses']['200']['content']['application/json']['schema']
        return shape.get('$ref', '').rpartition('/')[2]

    listed = '/api/v1/namespaces/{namespace}/configmaps'
    assert answer(listed, 'get') == answer(listed, 'delete') == 'io.k8s.api.core.v1.ConfigMapList'
    assert answer('/api/v1/configmaps', 'get') in schemas
    assert answer(f'{listed}/{{name}}', 'get') == answer(listed, 'post') == 'io.k8s.api.core.v1.ConfigMap'
    assert not answer(f'{listed}/{{name}}', 'delete'), 'a Status or the object'
    assert answer('/api/v1/namespaces/{namespace}/pods/{name}', 'delete') == 'io.k8s.api.core.v1.Pod'
    assert {'200', '201', '202'} <= set(document['paths'][listed]['post']['responses'])
    types = {p['name']: p['schema']['type'] for p in document['paths'][listed]['get']['parameters']}
    assert (types['limit'], types['watch'], types['labelSelector']) == ('integer', 'boolean', 'string')
    second = (await api.get('/openapi/v2')).json['paths'][listed]['get']
    assert second['responses']['200']['schema'] == {'$ref': '#/definitions/io.k8s.api.core.v1.ConfigMapList'}
