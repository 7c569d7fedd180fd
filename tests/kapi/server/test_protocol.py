"""Discovery, OpenAPI, health, content negotiation, limits, refusals."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

CM = '/api/v1/namespaces/default/configmaps'
AGGREGATED = 'application/json;g=apidiscovery.k8s.io;v={};as=APIGroupDiscoveryList,application/json'


def config_map(name: str = 'x') -> dict[str, Any]:
    return {'apiVersion': 'v1', 'kind': 'ConfigMap', 'metadata': {'name': name}, 'data': {'a': 'b'}}


@pytest.mark.parametrize('path', ['/version', '/version/', '/api/', '/apis/', '/apis/apps/v1/', '/api/v1'])
async def test_a_trailing_slash_makes_no_difference(api: Any, path: str) -> None:
    assert (await api.get(path)).status == 200


async def test_the_version_is_made_of_plain_numbers(api: Any) -> None:
    version = (await api.get('/version')).json
    assert (version['major'], version['minor']) == ('1', '33')


async def test_legacy_discovery_names_foreign_subresources(api: Any) -> None:
    assert (await api.get('/api')).json['kind'] == 'APIVersions'
    resources = {r['name']: r for r in (await api.get('/apis/apps/v1')).json['resources']}
    assert resources['deployments']['shortNames'] == ['deploy']
    scale = resources['deployments/scale']
    assert (scale['group'], scale['version'], scale['kind']) == ('autoscaling', 'v1', 'Scale')


@pytest.mark.parametrize('version', ['v2', 'v2beta1'])
async def test_aggregated_discovery_answers_the_version_asked_and_revalidates(api: Any, version: str) -> None:
    headers = {'Accept': AGGREGATED.format(version)}
    found = await api.get('/apis', headers=headers)
    assert f'v={version}' in found.headers['Content-Type']
    assert orjson.loads(found.text)['apiVersion'] == f'apidiscovery.k8s.io/{version}'
    again = await api.get('/apis', headers={**headers, 'If-None-Match': found.headers['ETag']})
    assert (again.status, again.text) == (304, '')


async def test_openapi_tells_kubectl_what_it_looks_for(api: Any) -> None:
    index = (await api.get('/openapi/v3')).json['paths']
    url = index['apis/apps/v1']['serverRelativeURL']
    document = await api.get(url)
    assert 'immutable' in document.headers['Cache-Control'] or document.headers['ETag']
    patch = document.json['paths']['/apis/apps/v1/namespaces/{namespace}/deployments/{name}']['patch']
    assert patch['x-kubernetes-group-version-kind'] == {'group': 'apps', 'version': 'v1', 'kind': 'Deployment'}
    assert 'fieldValidation' in {p['name'] for p in patch['parameters']}
    assert 'application/strategic-merge-patch+json' in patch['requestBody']['content']
    assert (await api.get('/openapi/v2', headers={'Accept': 'text/html'})).status == 406
    swagger = (await api.get('/openapi/v2')).json
    assert swagger['definitions']['io.k8s.api.core.v1.PodSpec']['properties']['containers']['type'] == 'array'
    port = swagger['definitions']['io.k8s.api.core.v1.ServicePort']['properties']['targetPort']
    assert (port['type'], port['format']) == ('string', 'int-or-string')


async def test_health_answers_everybody(world: Any) -> None:
    anonymous = await world.user()
    assert (await anonymous.get('/readyz')).text == 'ok'
    assert '[+]storage ok' in (await anonymous.get('/readyz?verbose')).text
    assert (await anonymous.get('/readyz/storage')).text == 'ok'
    assert (await anonymous.get('/readyz/nonsense')).status == 404


async def test_metrics_carry_upstreams_names(api: Any) -> None:
    await api.get(CM)
    text = (await api.get('/metrics')).text
    assert 'apiserver_request_duration_seconds_bucket' in text
    assert 'apiserver_current_inflight_requests' in text


@pytest.mark.parametrize('path', ['/nope', '/apis/none/v1/things', '/api/v1/nodes/x/nope', '/api/v2/pods'])
async def test_an_unknown_path_is_plain_text(api: Any, path: str) -> None:
    missing = await api.get(path)
    assert (missing.status, missing.text.strip()) == (404, '404 page not found')


async def test_a_verb_that_is_not_served_is_405(api: Any) -> None:
    refused = await api.call('DELETE', '/api/v1/namespaces')
    assert (refused.status, refused.json['reason']) == (405, 'MethodNotAllowed')


@pytest.mark.parametrize(
    ('body', 'content_type', 'status'),
    [
        (b'{"metadata": ', 'application/json', 400),
        (b'[1]', 'application/json', 400),
        (b'a: [', 'application/yaml', 400),
        (b'a: &a [1]\nb: *a\nc: *b\n', 'application/yaml', 400),
        (b'{}', 'text/csv', 415),
        (b'k8s\x00\xff\xff', 'application/vnd.kubernetes.protobuf', 415),
        (b'{"kind":"Pod","apiVersion":"v1","metadata":{"name":"x"}}', 'application/json', 400),
        (b'{"metadata":{"name":"x"},"data":{"a":1}}', 'application/json', 400),
        (b'{"metadata":{}}', 'application/json', 422),
        (b'{"metadata":{"name":"x"},"data":"' + b'x' * (3 * 1024 * 1024) + b'"}', 'application/json', 413),
    ],
    ids=lambda v: str(v)[:40],
)
async def test_a_bad_body_gets_a_status_that_says_so(api: Any, body: bytes, content_type: str, status: int) -> None:
    refused = await api.post(CM, body, content_type=content_type)
    assert (refused.status, refused.json['kind']) == (status, 'Status'), refused.text
    assert refused.json['message']


async def test_an_alias_bomb_is_refused_quickly(api: Any) -> None:
    lines = ['a0: &a0 [x,x,x,x,x,x,x,x,x]']
    lines += [f'a{i}: &a{i} [{",".join([f"*a{i - 1}"] * 9)}]' for i in range(1, 12)]
    refused = await api.post(CM, '\n'.join(lines).encode(), content_type='application/yaml')
    assert refused.status == 400
    assert 'excessive aliasing' in refused.json['message']


async def test_unknown_fields_warn_or_refuse_as_asked(api: Any) -> None:
    body = {**config_map(), 'datax': {}}
    strict = await api.post(f'{CM}?fieldValidation=Strict', body)
    assert (strict.status, strict.json['reason']) == (400, 'BadRequest')
    assert 'strict decoding error: unknown field "datax"' in strict.json['message']
    warned = await api.post(CM, body)
    assert warned.status == 201
    assert warned.headers['Warning'] == '299 - "unknown field \\"datax\\""'
    ignored = await api.post(f'{CM}?fieldValidation=Ignore', {**body, 'metadata': {'name': 'y'}})
    assert 'Warning' not in ignored.headers


async def test_many_unknown_fields_are_told_in_part(api: Any) -> None:
    body = {'metadata': {'name': 'u'}, **{f'k{i}': i for i in range(50_000)}}
    warned = await api.post(f'{CM}?dryRun=All', body)
    assert warned.status == 201
    assert len(warned.headers.getall('Warning')) == 100
    long = {'metadata': {'name': 'u'}, **{'k' * 500 + str(i): i for i in range(300)}}
    cut = (await api.post(f'{CM}?dryRun=All', long)).headers.getall('Warning')
    assert len(cut) == 16
    assert {len(text) for text in cut} == {256 + len('299 - ""') + 1}  # the quote before a name is escaped
    strict = await api.post(f'{CM}?fieldValidation=Strict', body)
    assert strict.json['message'].count('unknown field') == 100


async def test_versions_are_plain_numbers_and_parameters_few(api: Any) -> None:
    for version, why in (('%D9%A1', 'invalid syntax'), ('1e3', 'invalid syntax'), ('9' * 20, 'value out of range')):
        refused = await api.get(f'{CM}?resourceVersion={version}')
        assert (refused.status, refused.json['reason']) == (422, 'Invalid')
        assert refused.json['message'].endswith(why)
    many = await api.get(f'{CM}?' + '&'.join(['a=1'] * 1_100))
    assert (many.status, many.json['kind'], many.json['message']) == (400, 'Status', 'too many query parameters')


async def test_a_refusal_tells_a_thousand_causes_at_most(api: Any) -> None:
    labels = {f'k_{i}!': 'v' for i in range(5_000)}
    refused = await api.post(CM, {'metadata': {'name': 'l', 'labels': labels}})
    assert (refused.status, len(refused.json['details']['causes'])) == (422, 1_000)
    assert refused.json['message'].count('metadata.labels: Invalid value') == 1_000


async def test_an_invalid_object_lists_its_causes(api: Any) -> None:
    pod = {'metadata': {'name': 'p'}, 'spec': {'containers': []}}
    refused = await api.post('/api/v1/namespaces/default/pods', pod)
    assert (refused.status, refused.json['details']['kind']) == (422, 'Pod')
    cause = refused.json['details']['causes'][0]
    assert (cause['field'], cause['reason']) == ('spec.containers', 'FieldValueRequired')


# — patches —


async def test_every_kind_of_patch(api: Any) -> None:
    await api.post(CM, config_map())
    merged = await api.patch(f'{CM}/x', {'data': {'b': '1', 'a': None}})
    assert merged.json['data'] == {'b': '1'}
    json = await api.patch(f'{CM}/x', [{'op': 'add', 'path': '/data/c', 'value': '2'}], 'json-patch')
    assert json.json['data'] == {'b': '1', 'c': '2'}
    strategic = await api.patch(f'{CM}/x', {'data': {'$patch': 'replace', 'd': '3'}}, 'strategic-merge-patch')
    assert strategic.json['data'] == {'d': '3'}
    failed = await api.patch(f'{CM}/x', [{'op': 'test', 'path': '/data/d', 'value': 'z'}], 'json-patch')
    assert failed.status == 422
    assert (await api.patch(f'{CM}/x', {}, 'unknown')).status == 415


async def test_apply_creates_merges_and_meets_conflicts(api: Any) -> None:
    mine, other = f'{CM}/x?fieldManager=me', f'{CM}/x?fieldManager=other'
    made = await api.patch(mine, config_map(), 'apply-patch')
    assert made.status == 201
    again = await api.patch(mine, config_map(), 'apply-patch')
    assert again.json['metadata']['resourceVersion'] == made.json['metadata']['resourceVersion']
    wanted = {**config_map(), 'data': {'a': 'c'}}
    refused = await api.patch(other, wanted, 'apply-patch')
    assert (refused.status, refused.json['reason']) == (409, 'Conflict')
    assert refused.json['details']['causes'][0]['reason'] == 'FieldManagerConflict'
    forced = await api.patch(f'{other}&force=true', wanted, 'apply-patch')
    assert forced.json['data'] == {'a': 'c'}
    dropped = await api.patch(other, {**config_map(), 'data': {}}, 'apply-patch')
    assert 'a' not in (dropped.json.get('data') or {})
    unnamed = await api.patch(f'{CM}/x', config_map(), 'apply-patch')
    assert unnamed.status == 422


async def test_updates_are_recorded_by_manager(api: Any) -> None:
    made = await api.post(f'{CM}?fieldManager=writer', config_map())
    entry = made.json['metadata']['managedFields'][0]
    assert (entry['manager'], entry['operation']) == ('writer', 'Update')
    assert 'f:a' in entry['fieldsV1']['f:data']


# — who may what —


async def test_strangers_are_refused_in_upstreams_words(world: Any) -> None:
    bob = await world.user('bob', 'dev')
    refused = await bob.post(CM, config_map())
    assert (refused.status, refused.json['message']) == (
        403, 'configmaps is forbidden: User "bob" cannot create resource "configmaps" in API group "" '
        'in the namespace "default"',
    )  # fmt: skip
    assert (await (await world.user()).get(CM)).status == 403
    assert (await bob.get('/metrics')).json['message'] == 'forbidden: User "bob" cannot get path "/metrics"'


async def test_a_bearer_token_that_nobody_knows_is_401(world: Any) -> None:
    refused = await (await world.user()).get(CM, headers={'Authorization': 'Bearer x'})
    assert (refused.status, refused.json['message']) == (401, 'Unauthorized')


async def test_impersonation_needs_permission_and_takes_effect(world: Any, api: Any) -> None:
    as_bob = {'Impersonate-User': 'bob'}
    assert 'User "bob"' in (await api.get(CM, headers=as_bob)).json['message']
    bob = await world.user('bob')
    assert 'cannot impersonate' in (await bob.get(CM, headers={'Impersonate-User': 'admin'})).json['message']


async def test_components_may_what_they_need(world: Any) -> None:
    manager = await world.user('system:kube-controller-manager')
    assert (await manager.post(CM, config_map())).status == 201
    scheduler = await world.user('system:kube-scheduler')
    assert (await scheduler.get('/api/v1/pods')).status == 200
    assert (await scheduler.delete(f'{CM}/x')).status == 403
    node = await world.user('system:node:n1', 'system:nodes')
    assert (await node.post('/api/v1/nodes', {'metadata': {'name': 'n1'}})).status == 201
    assert (await node.delete(f'{CM}/x')).status == 403


async def test_too_many_requests_are_told_to_come_back(serve: Any) -> None:
    async with serve(max_requests_inflight=1) as world:
        api = await world.user('admin', 'system:masters')
        world.server.in_flight.counts['readOnly'] = 1
        refused = await api.get(CM)
        assert (refused.status, refused.headers['Retry-After']) == (429, '1')
        assert (await api.get('/readyz')).status == 200


async def test_a_request_that_takes_too_long_is_504(serve: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr('kapi.storage.cache.FUTURE_WAIT_S', 5)
    async with serve(request_timeout_s=0.05) as world:
        api = await world.user('admin', 'system:masters')
        late = await api.get(f'{CM}?resourceVersion=100000')
        assert (late.status, late.json['reason']) == (504, 'Timeout')
