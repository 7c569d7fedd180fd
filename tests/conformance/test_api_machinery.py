"""Watches, pages, versions, discovery, Tables, field validation: behaviours behind upstream's tests of those names."""

from __future__ import annotations

import pytest

conformance = pytest.mark.conformance
MAPS = '/api/v1/namespaces/default/configmaps'


@conformance('Watchers should observe add, update, and delete watch notifications on configmaps')
async def test_watch_sees_every_change(api):
    async with api.watch(f'{MAPS}?watch=true&labelSelector=w%3Dy') as event:
        await api.post(MAPS, {'metadata': {'name': 'w', 'labels': {'w': 'y'}}})
        await api.patch(f'{MAPS}/w', {'data': {'a': '1'}})
        await api.delete(f'{MAPS}/w')
        assert [(await event())['type'] for _ in range(3)] == ['ADDED', 'MODIFIED', 'DELETED']


@conformance(
    'Watchers should be able to start watching from a specific resource version',
    'Watchers should be able to restart watching from the last resource version observed by the previous watch',
)
async def test_watch_goes_on_where_it_ended(api):
    first = (await api.post(MAPS, {'metadata': {'name': 'w'}})).json['metadata']['resourceVersion']
    second = (await api.patch(f'{MAPS}/w', {'data': {'a': '1'}})).json['metadata']['resourceVersion']
    await api.delete(f'{MAPS}/w')
    async with api.watch(f'{MAPS}?watch=true&resourceVersion={first}') as event:
        seen = await event()
        assert (seen['type'], seen['object']['metadata']['resourceVersion']) == ('MODIFIED', second)
    async with api.watch(f'{MAPS}?watch=true&resourceVersion={second}') as event:
        assert (await event())['type'] == 'DELETED'


@conformance('Watchers should observe an object deletion if it stops meeting the requirements of the selector')
async def test_leaving_the_selector_is_a_deletion(api):
    async with api.watch(f'{MAPS}?watch=true&labelSelector=w%3Dy') as event:
        await api.post(MAPS, {'metadata': {'name': 'w', 'labels': {'w': 'y'}}})
        await api.patch(f'{MAPS}/w', {'metadata': {'labels': {'w': 'n'}}})
        await api.patch(f'{MAPS}/w', {'metadata': {'labels': {'w': 'y'}}})
        assert [(await event())['type'] for _ in range(3)] == ['ADDED', 'DELETED', 'ADDED']


@conformance('Watchers should receive events on concurrent watches in same order')
async def test_all_watchers_see_one_order(api):
    orders = []
    start = (await api.get(MAPS)).json['metadata']['resourceVersion']
    for i in range(10):
        await api.post(MAPS, {'metadata': {'name': f'o{i % 3}-{i}'}})
    for _ in range(3):
        async with api.watch(f'{MAPS}?watch=true&resourceVersion={start}') as event:
            orders.append([(await event())['object']['metadata']['resourceVersion'] for _ in range(10)])
    assert orders[0] == orders[1] == orders[2] == sorted(orders[0], key=int)


@conformance('Servers with support for API chunking should return chunks of results for list calls')
async def test_pages_have_one_version_and_no_gaps(api):
    for i in range(23):
        await api.post('/api/v1/namespaces/default/podtemplates', {
            'metadata': {'name': f't{i:02}'}, 'template': {'spec': {'containers': [{'name': 'c', 'image': 'i'}]}},
        })  # fmt: skip
    path, token, names, versions = '/api/v1/namespaces/default/podtemplates?limit=5', '', [], set()
    while True:
        page = (await api.get(f'{path}&continue={token}')).json
        names += [o['metadata']['name'] for o in page['items']]
        versions.add(page['metadata']['resourceVersion'])
        token = page['metadata'].get('continue', '')
        if not token:
            break
        assert page['metadata']['remainingItemCount'] == 23 - len(names)
    assert names == [f't{i:02}' for i in range(23)]
    assert len(versions) == 1


@conformance(
    'Servers with support for API chunking should support continue listing from the last key if the original version '
    'has been compacted away, though the list is inconsistent [Slow]'
)
async def test_an_expired_list_goes_on_from_its_last_key(api, monkeypatch):
    path, wanted = f'{MAPS}?labelSelector=chunk%3Dyes', {f'c{i:02}' for i in range(12)}
    for name in sorted(wanted):
        await api.post(MAPS, {'metadata': {'name': name, 'labels': {'chunk': 'yes'}}})
    first = (await api.get(f'{path}&limit=4')).json
    monkeypatch.setattr('kapi.storage.memory.LOG_EVENTS_MAX', 4)
    for i in range(8):
        await api.patch(f'{MAPS}/c00', {'data': {'i': str(i)}})
    expired = await api.get(f'{path}&limit=4&continue={first["metadata"]["continue"]}')
    assert (expired.status, expired.json['reason'], expired.json['code']) == (410, 'Expired', 410)
    pages, token = [first], expired.json['metadata']['continue']
    while token:
        pages.append((await api.get(f'{path}&limit=4&continue={token}')).json)
        token = pages[-1]['metadata'].get('continue', '')
    assert {i['metadata']['name'] for page in pages for i in page['items']} == wanted
    versions = [page['metadata']['resourceVersion'] for page in pages]
    assert versions[0] != versions[1]
    assert len(set(versions[1:])) == 1


@conformance('server version should find the server version')
async def test_version_is_made_of_numbers(api):
    version = (await api.get('/version')).json
    assert version['major'].isdecimal()
    assert version['minor'].isdecimal()


@conformance(
    'Servers with support for Table transformation should return a 406 for a backend which does not implement metadata'
)
async def test_a_review_has_no_table(api):
    body = {'spec': {'nonResourceAttributes': {'path': '/', 'verb': 'get'}}}
    path = '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews'
    reply = await api.post(path, body, headers={'Accept': 'application/json;as=Table;v=v1;g=meta.k8s.io'})
    assert reply.status == 406


@conformance('Discovery should validate PreferredVersion for each APIGroup')
async def test_every_group_prefers_one_of_its_versions(api):
    for group in (await api.get('/apis')).json['groups']:
        assert group['preferredVersion'] in group['versions']
        assert (await api.get(f'/apis/{group["name"]}')).json['preferredVersion'] == group['preferredVersion']


@conformance('Discovery should locate the groupVersion and a resource within each APIGroup')
async def test_every_group_version_lists_resources(api):
    for group in (await api.get('/apis')).json['groups']:
        for version in group['versions']:
            found = (await api.get(f'/apis/{version["groupVersion"]}')).json
            assert found['groupVersion'] == version['groupVersion']
            assert found['resources']


@conformance(
    'AggregatedDiscovery should support aggregated discovery interface',
    'AggregatedDiscovery should support raw aggregated discovery endpoint Accept headers',
)
@pytest.mark.parametrize('version', ['v2', 'v2beta1'])
async def test_aggregated_discovery_lists_every_group(api, version):
    accept = f'application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList'
    reply = await api.get('/apis', headers={'Accept': accept})
    assert f'v={version}' in reply.headers['Content-Type']
    aggregated = {g['metadata']['name'] for g in reply.json['items']}
    assert aggregated == {g['name'] for g in (await api.get('/apis')).json['groups']}


DEPLOYMENT = (
    b'{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d"%b},"spec":{"unknownField":"foo","replicas":1,'
    b'"replicas":2,"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},'
    b'"spec":{"containers":[{"name":"c","image":"i"}]}}}}'
)
DEPLOYMENTS = '/apis/apps/v1/namespaces/default/deployments'


@conformance('FieldValidation should detect unknown and duplicate fields of a typed object')
async def test_unknown_and_duplicate_fields_are_told(api):
    strict = await api.post(f'{DEPLOYMENTS}?fieldValidation=Strict', DEPLOYMENT % b'')
    assert strict.status == 400
    assert 'unknown field "spec.unknownField"' in strict.json['message']
    assert 'duplicate field "spec.replicas"' in strict.json['message']
    warned = await api.post(f'{DEPLOYMENTS}?fieldValidation=Warn', DEPLOYMENT % b'')
    assert warned.status == 201
    assert len(warned.headers.getall('Warning')) == 2


@conformance('FieldValidation should detect unknown metadata fields of a typed object')
async def test_unknown_metadata_fields_are_told(api):
    strict = await api.post(f'{DEPLOYMENTS}?fieldValidation=Strict', DEPLOYMENT % b',"unknownMeta":"foo"')
    assert strict.status == 400
    assert 'unknown field "metadata.unknownMeta"' in strict.json['message']


@conformance('ConfigMap should fail to create ConfigMap with empty key')
async def test_an_empty_key_of_a_config_map_is_refused(api):
    assert (await api.post(MAPS, {'metadata': {'name': 'e'}, 'data': {'': 'x'}})).status == 422


@conformance('Secrets should fail to create secret due to empty secret key')
async def test_an_empty_key_of_a_secret_is_refused(api):
    body = {'metadata': {'name': 'e'}, 'data': {'': 'eA=='}}
    assert (await api.post('/api/v1/namespaces/default/secrets', body)).status == 422


@conformance(
    'ConfigMap should be immutable if `immutable` field is set',
    'Secrets should be immutable if `immutable` field is set',
)
@pytest.mark.parametrize('plural', ['configmaps', 'secrets'])
async def test_what_is_immutable_stays(api, plural):
    path = f'/api/v1/namespaces/default/{plural}'
    await api.post(path, {'metadata': {'name': 'i'}, 'data': {'a': 'eA=='}})
    assert (await api.patch(f'{path}/i', {'immutable': True})).status == 200
    for change in ({'immutable': None}, {'data': {'a': 'eQ=='}}):
        assert (await api.patch(f'{path}/i', change)).status == 422
    assert (await api.patch(f'{path}/i', {'metadata': {'labels': {'a': 'b'}}})).status == 200


@conformance(
    'Pods Extended Pods Set QOS Class should be set on Pods with matching resource requests and limits for memory '
    'and cpu'
)
async def test_a_pod_has_a_quality_of_service(api):
    await api.post('/api/v1/namespaces/default/serviceaccounts', {'metadata': {'name': 'default'}})
    amounts = {'cpu': '100m', 'memory': '100Mi'}
    container = {'name': 'c', 'image': 'i', 'resources': {'requests': amounts, 'limits': amounts}}
    made = await api.post(
        '/api/v1/namespaces/default/pods', {'metadata': {'name': 'q'}, 'spec': {'containers': [container]}}
    )
    assert made.json['status']['qosClass'] == 'Guaranteed'


@conformance('Services should provide secure master service')
async def test_the_servers_own_service_stands(api):
    assert (await api.get('/api/v1/namespaces/default/services/kubernetes')).json['spec']['ports'][0]['port'] == 443


@conformance('Services should find a service from listing all namespaces')
async def test_a_service_is_found_in_all_namespaces(api):
    names = {s['metadata']['name'] for s in (await api.get('/api/v1/services')).json['items']}
    assert 'kubernetes' in names
