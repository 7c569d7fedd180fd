"""Roles, bindings, reviews and the admission that guards them, through the API."""

from __future__ import annotations

from typing import Any

import pytest

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
    await api.post(f'{RBAC}/clusterrolebindings', binding('ann', 'view', 'ClusterRole'))
    await api.get('/api/v1/pods')
    ann = (await api.post(url, {'spec': {'user': 'ann', 'resourceAttributes': attributes}})).json['status']
    reason = 'RBAC: allowed by ClusterRoleBinding "ann-view" of ClusterRole "view" to User "ann"'
    assert ann == {'allowed': True, 'reason': reason}
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
    early = await api.post(f'{PODS}/p/eviction', eviction)
    assert (early.status, early.headers['Retry-After']) == (429, '10')
    assert early.json['details']['causes'][0]['message'].endswith('is still being processed by the server.')
    done = await api.patch(f'{budgets}/b/status', {'status': status})
    assert done.status == 200, done.text
    refused = await api.post(f'{PODS}/p/eviction', eviction)
    assert (refused.status, refused.json['details']['causes'][0]['reason']) == (429, 'DisruptionBudget')
    assert 'Retry-After' not in refused.headers, 'kubectl drain says what it waits for, instead of retrying in silence'
    await api.patch(f'{budgets}/b/status', {'status': {'disruptionsAllowed': 1}})
    assert (await api.post(f'{PODS}/p/eviction', eviction)).status == 201
    left = (await api.get(f'{budgets}/b')).json['status']
    assert left['disruptionsAllowed'] == 0
    assert 'p' in left['disruptedPods']


READER = {'verbs': ['get'], 'apiGroups': [''], 'resources': ['pods']}
ALL = {'verbs': ['*'], 'apiGroups': ['*'], 'resources': ['*']}
WRITES = {'verbs': ['create', 'update', 'patch', 'delete'], 'apiGroups': ['rbac.authorization.k8s.io'], 'resources': [
    'roles', 'clusterroles', 'rolebindings', 'clusterrolebindings']}  # fmt: skip
SPACE = f'{RBAC}/namespaces/default'


def cluster_role(name: str, *rules: Any, **more: Any) -> dict[str, Any]:
    return {'metadata': {'name': name}, 'rules': list(rules), **more}


def grant(name: str, role: str, *subjects: dict[str, str], kind: str = 'ClusterRole') -> dict[str, Any]:
    ref = {'apiGroup': 'rbac.authorization.k8s.io', 'kind': kind, 'name': role}
    listed = [{'apiGroup': 'rbac.authorization.k8s.io', **s} for s in subjects or ({'kind': 'User', 'name': 'eve'},)]
    return {'metadata': {'name': name}, 'roleRef': ref, 'subjects': listed}


GATHER = {'aggregationRule': {'clusterRoleSelectors': [{'matchLabels': {'gather': 'me'}}]}}
ATTEMPTS: list[tuple[str, str, Any]] = [
    ('POST', f'{RBAC}/clusterroles', cluster_role('x', ALL)),
    ('POST', f'{RBAC}/clusterroles', cluster_role('x', {'verbs': ['get'], 'nonResourceURLs': ['/metrics']})),
    ('POST', f'{RBAC}/clusterroles', cluster_role('x', **GATHER)),
    ('POST', f'{SPACE}/roles', cluster_role('x', {**READER, 'verbs': ['get', 'list']})),
    ('POST', f'{SPACE}/roles', cluster_role('x', {**READER, 'resources': ['pods', 'secrets']})),
    ('POST', f'{SPACE}/roles', cluster_role('x', {**WRITES, 'verbs': ['escalate', 'bind']})),
    ('POST', f'{SPACE}/roles', cluster_role('x', {**READER, 'verbs': ['impersonate'], 'resources': ['users']})),
    ('PUT', f'{RBAC}/clusterroles/mine', cluster_role('mine', READER, WRITES, ALL)),
    ('PUT', f'{RBAC}/clusterroles/mine', cluster_role('mine', READER, WRITES, **GATHER)),
    ('PATCH', f'{RBAC}/clusterroles/mine', GATHER),
    ('PATCH', f'{RBAC}/clusterroles/mine', {'rules': [ALL]}),
    ('APPLY', f'{RBAC}/clusterroles/new?fieldManager=m', cluster_role('new', ALL)),
    ('APPLY', f'{RBAC}/clusterroles/mine?fieldManager=m&force=true', cluster_role('mine', ALL)),
    ('PATCH', f'{RBAC}/clusterroles/strong', {'metadata': {'labels': {'gather': 'me'}}}),
    ('PATCH', f'{RBAC}/clusterroles/gatherer', {'aggregationRule': None}),
    ('POST', f'{RBAC}/clusterrolebindings', grant('x', 'strong')),
    ('POST', f'{RBAC}/clusterrolebindings', grant('x', 'cluster-admin')),
    ('POST', f'{RBAC}/clusterrolebindings', grant('x', 'gatherer')),
    ('POST', f'{RBAC}/clusterrolebindings', grant('x', 'later')),
    ('POST', f'{SPACE}/rolebindings', grant('x', 'strong')),
    ('POST', f'{SPACE}/rolebindings', grant('x', 'later', kind='Role')),
    ('PATCH', f'{RBAC}/clusterrolebindings/others', {'subjects': grant('x', 'x')['subjects']}),
    ('APPLY', f'{RBAC}/clusterrolebindings/x?fieldManager=m', grant('x', 'strong')),
    ('POST', '/api/v1/namespaces/default/serviceaccounts/robot/token', {'spec': {}}),
    ('POST', '/apis/certificates.k8s.io/v1/certificatesigningrequests', {'metadata': {'name': 'c'}}),
    ('POST', '/apis/authorization.k8s.io/v1/subjectaccessreviews', {'spec': {'user': 'admin'}}),
    ('GET', '/api/v1/namespaces/default/pods', {'Impersonate-User': 'admin', 'Impersonate-Group': 'system:masters'}),
    ('GET', '/api/v1/namespaces/default/pods', {'Impersonate-User': 'system:serviceaccount:default:robot'}),
    ('GET', '/api/v1/namespaces/default/pods', {'Impersonate-User': 'eve', 'Impersonate-Group': 'system:masters'}),
    ('GET', '/api/v1/namespaces/default/pods', {'Impersonate-User': 'eve', 'Impersonate-Uid': '7'}),
    ('GET', '/api/v1/namespaces/default/pods', {'Impersonate-User': 'eve', 'Impersonate-Extra-Scopes': 'all'}),
]


async def attempt(client: Any, method: str, path: str, body: Any) -> Any:
    if method == 'GET':
        return await client.get(path, headers=body)
    if method in {'PATCH', 'APPLY'}:
        kind = 'apply-patch' if method == 'APPLY' else 'merge-patch'
        stem = {'apiVersion': 'rbac.authorization.k8s.io/v1',
                'kind': 'ClusterRoleBinding' if 'bindings' in path else 'ClusterRole'}  # fmt: skip
        return await client.patch(path, {**stem, **body} if method == 'APPLY' else body, kind)
    return await client.call(method, path, body)


async def test_no_way_leads_to_more_than_one_holds(world: Any, api: Any) -> None:
    """Eve may write all roles and bindings, and read pods."""
    await api.post('/api/v1/namespaces/default/serviceaccounts', {'metadata': {'name': 'robot'}})
    for role in (cluster_role('mine', READER, WRITES), cluster_role('strong', ALL), cluster_role('gatherer', **GATHER)):
        assert (await api.post(f'{RBAC}/clusterroles', role)).status == 201
    labelled = {'metadata': {'name': 'part', 'labels': {'gather': 'me'}}, 'rules': [ALL]}
    await api.post(f'{RBAC}/clusterroles', labelled)
    await api.post(f'{RBAC}/clusterrolebindings', grant('mine', 'mine'))
    await api.post(f'{RBAC}/clusterrolebindings', grant('others', 'strong', {'kind': 'User', 'name': 'root'}))
    await api.get(f'{RBAC}/clusterrolebindings')
    eve = await world.user('eve')
    ends = [(method, path, body, (await attempt(eve, method, path, body)).status) for method, path, body in ATTEMPTS]
    later = [e for e in ends if e[3] == 404]
    assert [e for e in ends if e[3] not in {403, 404}] == []
    assert [e[2]['roleRef']['name'] for e in later] == ['later', 'later']
    for url, body in ((f'{SPACE}/roles', cluster_role('ok', READER)), (f'{SPACE}/rolebindings', grant('ok', 'mine'))):
        assert (await eve.post(url, body)).status == 201
    owned = {'metadata': {'finalizers': ['example.com/x']}}
    assert (await eve.patch(f'{RBAC}/clusterroles/strong', owned)).status == 200  # what the collector may do
    assert (await eve.get('/api/v1/namespaces/default/secrets')).status == 403


async def test_escalate_and_bind_lift_the_limit_by_name(world: Any, api: Any) -> None:
    lifted = [
        {'verbs': ['escalate'], 'apiGroups': ['rbac.authorization.k8s.io'], 'resources': ['clusterroles'],
         'resourceNames': ['named']},
        {'verbs': ['bind'], 'apiGroups': ['rbac.authorization.k8s.io'], 'resources': ['clusterroles'],
         'resourceNames': ['named']},
    ]  # fmt: skip
    await api.post(f'{RBAC}/clusterroles', cluster_role('mine', WRITES, *lifted))
    await api.post(f'{RBAC}/clusterrolebindings', grant('mine', 'mine'))
    await api.get(f'{RBAC}/clusterrolebindings')
    eve = await world.user('eve')
    assert (await eve.post(f'{RBAC}/clusterroles', cluster_role('unnamed', ALL))).status == 403
    assert (await eve.post(f'{RBAC}/clusterroles', cluster_role('named', ALL))).status == 201
    assert (await eve.post(f'{RBAC}/clusterrolebindings', grant('x', 'named'))).status == 201
    await eve.get(f'{RBAC}/clusterrolebindings')
    assert (await eve.get('/api/v1/namespaces/default/secrets')).status == 200


@pytest.mark.parametrize(('headers', 'user', 'groups'), [
    ({'Impersonate-User': 'bob'}, 'bob', ['system:authenticated']),
    ({'Impersonate-User': 'bob', 'Impersonate-Group': 'dev'}, 'bob', ['dev', 'system:authenticated']),
    ({'Impersonate-User': 'bob', 'Impersonate-Group': 'system:unauthenticated'}, 'bob', ['system:unauthenticated']),
    ({'Impersonate-User': 'system:anonymous'}, 'system:anonymous', ['system:unauthenticated']),
    ({'Impersonate-User': 'system:serviceaccount:a:b'}, 'system:serviceaccount:a:b',
     ['system:serviceaccounts', 'system:serviceaccounts:a', 'system:authenticated']),
    ({'Impersonate-User': 'system:serviceaccount:a:b', 'Impersonate-Group': 'dev'}, 'system:serviceaccount:a:b',
     ['dev', 'system:authenticated']),
])  # fmt: skip
async def test_an_impersonated_user_has_the_groups_that_such_a_user_has(
    api: Any, headers: dict[str, str], user: str, groups: list[str]
) -> None:
    more = {'Impersonate-Uid': '7', 'Impersonate-Extra-Example.com%2Fscope': 'all'}
    who = await api.post('/apis/authentication.k8s.io/v1/selfsubjectreviews', {}, headers={**headers, **more})
    if 'system:authenticated' not in groups:
        assert who.status == 403  # only the authenticated may ask
        return
    extra = {'example.com/scope': ['all']}
    assert who.json['status']['userInfo'] == {'username': user, 'groups': groups, 'uid': '7', 'extra': extra}
