"""Roles, bindings, reviews and the admission that guards them, through the API."""

from __future__ import annotations

from typing import Any

RBAC = '/apis/rbac.authorization.k8s.io/v1'
PODS = '/api/v1/namespaces/default/pods'


def role(*verbs: str, resource: str = 'pods') -> dict[str, Any]:
    return {'metadata': {'name': 'r'}, 'rules': [{'verbs': list(verbs), 'apiGroups': [''], 'resources': [resource]}]}


def binding(user: str, name: str = 'r', kind: str = 'Role') -> dict[str, Any]:
    subject = {'kind': 'User', 'name': user, 'apiGroup': 'rbac.authorization.k8s.io'}
    ref = {'kind': kind, 'name': name, 'apiGroup': 'rbac.authorization.k8s.io'}
    return {'metadata': {'name': f'{user}-{name}'}, 'roleRef': ref, 'subjects': [subject]}


def pod(name: str = 'p') -> dict[str, Any]:
    return {'metadata': {'name': name}, 'spec': {'containers': [{'name': 'c', 'image': 'i'}]}}


async def test_a_binding_opens_and_its_removal_closes(world: Any, api: Any) -> None:
    bob = await world.user('bob')
    assert (await bob.get(PODS)).status == 403
    await api.post(f'{RBAC}/namespaces/default/roles', role('list'))
    made = await api.post(f'{RBAC}/namespaces/default/rolebindings', binding('bob'))
    assert made.status == 201, made.text
    await api.get('/api/v1/pods')
    assert (await bob.get(PODS)).status == 200
    assert (await bob.get('/api/v1/pods')).status == 403
    await api.delete(f'{RBAC}/namespaces/default/rolebindings/bob-r')
    await api.get('/api/v1/pods')
    assert (await bob.get(PODS)).status == 403


async def test_the_default_roles_are_there_and_aggregate(world: Any, api: Any) -> None:
    await api.post(f'{RBAC}/namespaces/default/rolebindings', binding('eve', 'edit', 'ClusterRole'))
    await api.get('/api/v1/pods')
    eve = await world.user('eve')
    assert (await eve.post(PODS, pod())).status == 201
    assert (await eve.get(f'{RBAC}/namespaces/default/roles')).status == 403


async def test_nobody_grants_what_they_do_not_hold(world: Any, api: Any) -> None:
    await api.post(f'{RBAC}/namespaces/default/rolebindings', binding('adm', 'admin', 'ClusterRole'))
    await api.get('/api/v1/pods')
    adm = await world.user('adm')
    assert (await adm.post(f'{RBAC}/namespaces/default/roles', role('get'))).status == 201
    too_much = await adm.post(
        f'{RBAC}/namespaces/default/roles', {**role('get', resource='nodes'), 'metadata': {'name': 'n'}}
    )
    assert too_much.status == 403
    assert 'is attempting to grant RBAC permissions not currently held' in too_much.json['message']
    bound = await adm.post(f'{RBAC}/namespaces/default/rolebindings', binding('adm', 'cluster-admin', 'ClusterRole'))
    assert bound.status == 403


async def test_reviews_answer_what_the_authorizers_say(world: Any, api: Any) -> None:
    url = '/apis/authorization.k8s.io/v1/subjectaccessreviews'
    attributes = {'verb': 'list', 'resource': 'pods', 'namespace': 'default'}
    asked = {'spec': {'user': 'bob', 'resourceAttributes': attributes}}
    assert (await api.post(url, asked)).json['status']['allowed'] is False
    mine = '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews'
    assert (await api.post(mine, {'spec': {'resourceAttributes': attributes}})).json['status']['allowed'] is True
    both = {'spec': {'resourceAttributes': attributes, 'nonResourceAttributes': {'path': '/', 'verb': 'get'}}}
    assert (await api.post(mine, both)).status == 422
    bob = await world.user('bob', 'dev')
    for version in ('v1', 'v1beta1'):  # kubectl 1.27 knows the older one only
        who = (await bob.post(f'/apis/authentication.k8s.io/{version}/selfsubjectreviews', {})).json
        assert who['status']['userInfo'] == {'username': 'bob', 'groups': ['dev', 'system:authenticated']}
        assert who['apiVersion'] == f'authentication.k8s.io/{version}'
    table = {'Accept': 'application/json;as=Table;v=v1;g=meta.k8s.io'}
    assert (await api.post(mine, {'spec': {'resourceAttributes': attributes}}, headers=table)).status == 406


async def test_a_node_agent_writes_only_what_is_its_own(world: Any, api: Any) -> None:
    node = await world.user('system:node:n1', 'system:nodes')
    assert (await node.post('/api/v1/nodes', {'metadata': {'name': 'n1'}})).status == 201
    assert (await node.post('/api/v1/nodes', {'metadata': {'name': 'n2'}})).status == 403
    for name, target in (('mine', 'n1'), ('other', 'n2')):
        await api.post(PODS, pod(name))
        await api.post(f'{PODS}/{name}/binding', {'metadata': {'name': name}, 'target': {'name': target}})
    status = {'status': {'phase': 'Running'}}
    assert (await node.patch(f'{PODS}/mine/status', status)).status == 200
    assert (await node.patch(f'{PODS}/other/status', status)).status == 403
    lease = '/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases'
    assert (await node.post(lease, {'metadata': {'name': 'n1'}})).status == 201
    assert (await node.post(lease, {'metadata': {'name': 'n2'}})).status == 403
    assert (await node.delete(f'{PODS}/other', {'gracePeriodSeconds': 0})).status == 403
    assert (await node.delete(f'{PODS}/mine', {'gracePeriodSeconds': 0})).status == 200


async def test_pods_get_what_admission_fills_in(api: Any) -> None:
    made = (await api.post(PODS, pod())).json['spec']
    assert made['serviceAccountName'] == 'default'
    assert {t['key'] for t in made['tolerations']} == {'node.kubernetes.io/not-ready', 'node.kubernetes.io/unreachable'}
    assert made['priority'] == 0
    named = pod('q')
    named['spec']['priorityClassName'] = 'nope'
    refused = await api.post(PODS, named)
    assert (refused.status, 'no PriorityClass with name nope was found' in refused.json['message']) == (403, True)
    named['spec']['priorityClassName'] = 'system-node-critical'
    assert (await api.post(PODS, named)).json['spec']['priority'] == 2_000_001_000


async def test_an_eviction_respects_the_budget(api: Any) -> None:
    labelled = pod()
    labelled['metadata']['labels'] = {'app': 'x'}
    await api.post(PODS, labelled)
    await api.patch(f'{PODS}/p/status', {'status': {'phase': 'Running'}})
    budgets = '/apis/policy/v1/namespaces/default/poddisruptionbudgets'
    spec = {'minAvailable': 1, 'selector': {'matchLabels': {'app': 'x'}}}
    await api.post(budgets, {'metadata': {'name': 'b'}, 'spec': spec})
    eviction = {'apiVersion': 'policy/v1', 'kind': 'Eviction', 'metadata': {'name': 'p'}}
    status = {
        'observedGeneration': 1,
        'disruptionsAllowed': 0,
        'currentHealthy': 1,
        'desiredHealthy': 1,
        'expectedPods': 1,
    }
    done = await api.patch(f'{budgets}/b/status', {'status': status})
    assert done.status == 200, done.text
    refused = await api.post(f'{PODS}/p/eviction', eviction)
    assert (refused.status, refused.json['details']['causes'][0]['reason']) == (429, 'DisruptionBudget')
    await api.patch(f'{budgets}/b/status', {'status': {'disruptionsAllowed': 1}})
    assert (await api.post(f'{PODS}/p/eviction', eviction)).status == 201
    left = (await api.get(f'{budgets}/b')).json['status']
    assert left['disruptionsAllowed'] == 0
    assert 'p' in left['disruptedPods']
