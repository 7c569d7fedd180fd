"""Create, read, update and delete through real sockets, as clients see it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

CM = '/api/v1/namespaces/default/configmaps'


def config_map(name: str = 'x', **extra: Any) -> dict[str, Any]:
    return {'apiVersion': 'v1', 'kind': 'ConfigMap', 'metadata': {'name': name, **extra}, 'data': {'a': 'b'}}


def deployment(name: str = 'web') -> dict[str, Any]:
    labels = {'app': name}
    template = {'metadata': {'labels': labels}, 'spec': {'containers': [{'name': 'c', 'image': 'i'}]}}
    spec = {'replicas': 2, 'selector': {'matchLabels': labels}, 'template': template}
    return {'apiVersion': 'apps/v1', 'kind': 'Deployment', 'metadata': {'name': name}, 'spec': spec}


DEPLOY = '/apis/apps/v1/namespaces/default/deployments'


async def test_a_created_object_has_the_fields_that_the_server_sets(api: Any) -> None:
    made = await api.post(CM, config_map())
    assert made.status == 201
    meta = made.json['metadata']
    assert meta['namespace'] == 'default'
    assert {'uid', 'resourceVersion', 'creationTimestamp'} <= meta.keys()
    assert (await api.get(f'{CM}/x')).json == made.json


async def test_generate_name_appends_five_letters(api: Any) -> None:
    body = config_map()
    body['metadata'] = {'generateName': 'job-'}
    names = {(await api.post(CM, body)).json['metadata']['name'] for _ in range(5)}
    assert len(names) == 5
    assert all(len(n) == 9 and n.startswith('job-') for n in names)


async def test_creating_twice_is_409_already_exists(api: Any) -> None:
    await api.post(CM, config_map())
    again = await api.post(CM, config_map())
    assert (again.status, again.json['reason']) == (409, 'AlreadyExists')
    assert again.json['message'] == 'configmaps "x" already exists'
    assert again.json['details'] == {'name': 'x', 'kind': 'configmaps'}


async def test_a_missing_object_is_404_with_details(api: Any) -> None:
    missing = await api.get(f'{DEPLOY}/none')
    assert missing.json['message'] == 'deployments.apps "none" not found'
    assert missing.json['details'] == {'name': 'none', 'group': 'apps', 'kind': 'deployments'}


async def test_a_stale_update_is_409_conflict(api: Any) -> None:
    made = (await api.post(CM, config_map())).json
    await api.put(f'{CM}/x', {**made, 'data': {'a': 'c'}})
    stale = await api.put(f'{CM}/x', {**made, 'data': {'a': 'd'}})
    assert (stale.status, stale.json['reason']) == (409, 'Conflict')
    assert 'the object has been modified' in stale.json['message']


async def test_an_update_without_a_version_overwrites(api: Any) -> None:
    await api.post(CM, config_map())
    done = await api.put(f'{CM}/x', {**config_map(), 'data': {'z': '1'}})
    assert done.json['data'] == {'z': '1'}


async def test_a_write_that_changes_nothing_keeps_the_version(api: Any) -> None:
    made = (await api.post(CM, config_map())).json
    again = await api.put(f'{CM}/x', made)
    assert again.json['metadata']['resourceVersion'] == made['metadata']['resourceVersion']


async def test_the_body_must_agree_with_the_url(api: Any) -> None:
    wrong_namespace = await api.post(CM, config_map(namespace='kube-system'))
    assert wrong_namespace.status == 400
    assert 'the namespace of the provided object does not match' in wrong_namespace.json['message']
    await api.post(CM, config_map())
    wrong_name = await api.put(f'{CM}/x', config_map('y'))
    assert wrong_name.json['message'] == 'the name of the object (y) does not match the name on the URL (x)'
    wrong_version = await api.post(CM, {**config_map('z'), 'apiVersion': 'v2'})
    assert wrong_version.status == 400


async def test_generation_counts_changes_of_spec_only(api: Any) -> None:
    made = (await api.post(DEPLOY, deployment())).json
    assert made['metadata']['generation'] == 1
    labelled = await api.patch(f'{DEPLOY}/web', {'metadata': {'labels': {'k': 'v'}}})
    assert labelled.json['metadata']['generation'] == 1
    scaled = await api.patch(f'{DEPLOY}/web', {'spec': {'replicas': 3}})
    assert scaled.json['metadata']['generation'] == 2
    status = await api.patch(f'{DEPLOY}/web/status', {'status': {'replicas': 1}})
    assert status.json['metadata']['generation'] == 2


async def test_status_and_spec_are_written_apart(api: Any) -> None:
    await api.post(DEPLOY, {**deployment(), 'status': {'replicas': 9}})
    both = {'spec': {'replicas': 7}, 'status': {'replicas': 1}}
    through_status = (await api.patch(f'{DEPLOY}/web/status', both)).json
    assert (through_status['spec']['replicas'], through_status['status']['replicas']) == (2, 1)
    through_main = (await api.patch(f'{DEPLOY}/web', {**both, 'status': {'replicas': 5}})).json
    assert (through_main['spec']['replicas'], through_main['status']['replicas']) == (7, 1)


async def test_a_new_object_has_a_status_because_clients_look_into_it(api: Any) -> None:
    containers = [{'name': 'c', 'image': 'i'}]
    template = {'metadata': {'labels': {'a': 'b'}}, 'spec': {'containers': containers}}
    spec = {'selector': {'matchLabels': {'a': 'b'}}, 'template': template}
    expected = {
        'deployments': {},
        'statefulsets': {'replicas': 0, 'availableReplicas': 0},
        'replicasets': {'replicas': 0},
    }
    for plural, status in expected.items():
        made = await api.post(f'/apis/apps/v1/namespaces/default/{plural}', {
            'metadata': {'name': 'd'}, 'spec': spec, 'status': {'replicas': 9},
        })  # fmt: skip
        assert made.json['status'] == status


async def test_scale_reads_and_writes_replicas(api: Any) -> None:
    await api.post(DEPLOY, deployment())
    scale = (await api.get(f'{DEPLOY}/web/scale')).json
    assert (scale['kind'], scale['spec'], scale['status']['selector']) == ('Scale', {'replicas': 2}, 'app=web')
    assert (await api.patch(f'{DEPLOY}/web/scale', {'spec': {'replicas': 5}})).json['spec']['replicas'] == 5
    assert (await api.get(f'{DEPLOY}/web')).json['spec']['replicas'] == 5
    scale['spec']['replicas'] = 6
    assert (await api.put(f'{DEPLOY}/web/scale', scale)).status == 409


async def test_dry_run_stores_nothing(api: Any) -> None:
    made = await api.post(f'{CM}?dryRun=All', config_map())
    assert made.status == 201
    assert made.json['metadata']['uid']
    assert (await api.get(f'{CM}/x')).status == 404
    assert (await api.post(f'{CM}?dryRun=maybe', config_map())).status == 422


async def test_delete_answers_with_a_status_that_names_the_object(api: Any) -> None:
    made = (await api.post(CM, config_map())).json
    gone = await api.delete(f'{CM}/x')
    assert gone.json['status'] == 'Success'
    assert gone.json['details'] == {'name': 'x', 'kind': 'configmaps', 'uid': made['metadata']['uid']}
    assert (await api.get(f'{CM}/x')).status == 404


async def test_a_finalizer_holds_the_object_until_it_is_taken_away(api: Any) -> None:
    await api.post(CM, config_map(finalizers=['example.com/hold']))
    marked = (await api.delete(f'{CM}/x')).json
    assert marked['metadata']['deletionTimestamp']
    added = await api.patch(f'{CM}/x', {'metadata': {'finalizers': ['example.com/hold', 'example.com/more']}})
    assert added.status == 422
    assert 'no new finalizers can be added if the object is being deleted' in added.json['message']
    freed = await api.patch(f'{CM}/x', {'metadata': {'finalizers': None}})
    assert freed.status == 200
    assert (await api.get(f'{CM}/x')).status == 404


@pytest.mark.parametrize(('policy', 'finalizer'), [('Foreground', 'foregroundDeletion'), ('Orphan', 'orphan')])
async def test_propagation_leaves_a_finalizer_for_the_collector(api: Any, policy: str, finalizer: str) -> None:
    await api.post(DEPLOY, deployment())
    marked = await api.delete(f'{DEPLOY}/web', {'propagationPolicy': policy})
    assert marked.json['metadata']['finalizers'] == [finalizer]


async def test_who_deletes_a_job_is_told_that_its_pods_stay(api: Any) -> None:
    pod = {'restartPolicy': 'Never', 'containers': [{'name': 'c', 'image': 'i'}]}
    path = '/apis/batch/v1/namespaces/default/jobs'
    told = []
    for query in ('', '?propagationPolicy=Background', '?propagationPolicy=Orphan'):
        await api.post(path, {'metadata': {'generateName': 'j'}, 'spec': {'template': {'spec': pod}}})
        [name, *_] = (
            i['metadata']['name']
            for i in (await api.get(path)).json['items']
            if 'deletionTimestamp' not in i['metadata']
        )
        told.append((await api.delete(f'{path}/{name}{query}')).headers.get('Warning', ''))
    assert told[0].startswith('299 - "child pods are preserved by default when jobs are deleted')
    assert told[1:] == ['', '']


async def test_preconditions_protect_a_successor(api: Any) -> None:
    await api.post(CM, config_map())
    refused = await api.delete(f'{CM}/x', {'preconditions': {'uid': 'another'}})
    assert (refused.status, refused.json['reason']) == (409, 'Conflict')
    assert (await api.get(f'{CM}/x')).status == 200


async def test_a_pod_on_a_node_is_deleted_gracefully(api: Any) -> None:
    pods = '/api/v1/namespaces/default/pods'
    pod = {'metadata': {'name': 'p'}, 'spec': {'containers': [{'name': 'c', 'image': 'i'}]}}
    await api.post(pods, pod)
    binding = {'metadata': {'name': 'p'}, 'target': {'kind': 'Node', 'name': 'n1'}}
    assert (await api.post(f'{pods}/p/binding', binding)).status == 201
    bound = (await api.get(f'{pods}/p')).json
    assert bound['spec']['nodeName'] == 'n1'
    assert bound['status']['conditions'][0]['type'] == 'PodScheduled'
    assert (await api.post(f'{pods}/p/binding', binding)).status == 409
    marked = (await api.delete(f'{pods}/p')).json['metadata']
    assert marked['deletionGracePeriodSeconds'] == 30
    again = (await api.delete(f'{pods}/p', {'gracePeriodSeconds': 5})).json['metadata']
    assert again['deletionGracePeriodSeconds'] == 5
    await api.delete(f'{pods}/p', {'gracePeriodSeconds': 0})
    assert (await api.get(f'{pods}/p')).status == 404


async def test_deletecollection_takes_what_the_selector_matches(api: Any) -> None:
    for name, tier in (('a', 'x'), ('b', 'y'), ('c', 'x')):
        await api.post(CM, config_map(name, labels={'tier': tier}))
    deleted = await api.delete(f'{CM}?labelSelector=tier%3Dx')
    assert [i['metadata']['name'] for i in deleted.json['items']] == ['a', 'c']
    left = (await api.get(CM)).json['items']
    assert [i['metadata']['name'] for i in left] == ['b']


async def test_a_namespace_waits_for_finalize_and_takes_nothing_new(api: Any) -> None:
    await api.post('/api/v1/namespaces', {'metadata': {'name': 'n'}})
    going = (await api.delete('/api/v1/namespaces/n')).json
    assert going['status']['phase'] == 'Terminating'
    refused = await api.post('/api/v1/namespaces/n/configmaps', config_map())
    assert refused.status == 403
    assert refused.json['details']['causes'][0]['reason'] == 'NamespaceTerminating'
    going['spec']['finalizers'] = []
    assert (await api.put('/api/v1/namespaces/n/finalize', going)).status == 200
    assert (await api.get('/api/v1/namespaces/n')).status == 404


async def test_a_missing_namespace_is_404_and_protected_ones_stay(api: Any) -> None:
    missing = await api.post('/api/v1/namespaces/nope/configmaps', config_map())
    assert (missing.status, missing.json['message']) == (404, 'namespaces "nope" not found')
    assert (await api.delete('/api/v1/namespaces/kube-system')).status == 403


async def test_concurrent_patches_of_different_fields_all_arrive(api: Any) -> None:
    await api.post(CM, config_map())
    await asyncio.gather(*(api.patch(f'{CM}/x', {'data': {f'k{i}': str(i)}}) for i in range(20)))
    data = (await api.get(f'{CM}/x')).json['data']
    assert {f'k{i}' for i in range(20)} <= data.keys()


async def test_a_service_gets_an_address_of_its_own_and_gives_it_back(api: Any, world: Any) -> None:
    services = '/api/v1/namespaces/default/services'

    def service(name: str, **spec: Any) -> dict[str, Any]:
        return {'metadata': {'name': name}, 'spec': {'ports': [{'port': 80}], **spec}}

    replies = await asyncio.gather(*(api.post(services, service(f's{i}')) for i in range(10)))
    ips = {r.json['spec']['clusterIP'] for r in replies}
    assert len(ips) == 10
    taken = ips.pop()
    clash = await api.post(services, service('clash', clusterIP=taken))
    assert clash.status == 422
    assert 'provided IP is already allocated' in clash.json['message']
    owner = next(r.json['metadata']['name'] for r in replies if r.json['spec']['clusterIP'] == taken)
    await api.delete(f'{services}/{owner}')
    assert (await api.post(services, service('again', clusterIP=taken))).status == 201
    node_port = (await api.post(services, service('np', type='NodePort'))).json['spec']['ports'][0]['nodePort']
    assert 30000 <= node_port <= 32767
    local = {'type': 'LoadBalancer', 'externalTrafficPolicy': 'Local'}
    health = (await api.post(services, service('lb', **local))).json['spec']['healthCheckNodePort']
    assert 30000 <= health <= 32767
    clash = await api.post(services, service('clash', **local, healthCheckNodePort=health))
    assert 'provided port is already allocated' in clash.json['message']
    await api.patch(f'{services}/lb', {'spec': {'externalTrafficPolicy': 'Cluster'}})
    assert (await api.post(services, service('again2', **local, healthCheckNodePort=health))).status == 201


async def test_two_servers_on_one_store_never_give_out_one_address_twice(serve: Any, env: Any) -> None:
    from kapi.storage.urls import open_storage

    storage = open_storage('memory://', env)
    small = {'service_cidr': '10.9.0.0/26'}
    async with serve(storage, **small) as one, serve(storage, **small) as two:
        clients = [await w.user('admin', 'system:masters') for w in (one, two)]
        body = {'spec': {'ports': [{'port': 80}]}}
        replies = await asyncio.gather(*(
            clients[i % 2].post('/api/v1/namespaces/default/services', {**body, 'metadata': {'name': f's{i}'}})
            for i in range(40)
        ))  # fmt: skip
        assert [r.status for r in replies] == [201] * 40
        assert len({r.json['spec']['clusterIP'] for r in replies}) == 40
