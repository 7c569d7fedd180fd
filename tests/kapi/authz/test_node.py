"""Nodes are kept apart: an agent sees and writes what belongs to its own pods."""

from __future__ import annotations

from typing import Any

import pytest

from tests.hush import hushed

CORE = '/api/v1/namespaces/default'


def pod(name: str, node: str, **spec: Any) -> dict[str, Any]:
    found = {'nodeName': node, 'serviceAccountName': 'app', 'containers': [{'name': 'c', 'image': 'i'}], **spec}
    return {'metadata': {'name': name}, 'spec': found}


def uses(kind: str, name: str) -> list[dict[str, Any]]:
    source = {'secret': {'secretName': name}} if kind == 'secret' else {kind: {'name': name}}
    return [{'name': 'v', **source}]


@pytest.fixture
async def nodes(world: Any, api: Any) -> Any:
    """Two agents; pod `a` on node n1 uses secret `sa` and configmap `ca`, pod `b` on n2 uses secret `sb`."""
    await api.post(f'{CORE}/serviceaccounts', {'metadata': {'name': 'app'}})
    for name in ('sa', 'sb', 'free'):
        await api.post(f'{CORE}/secrets', {'metadata': {'name': name}, 'stringData': {'k': hushed('v')}})
    await api.post(f'{CORE}/configmaps', {'metadata': {'name': 'ca'}, 'data': {'k': 'v'}})
    env = [{'name': 'X', 'valueFrom': {'configMapKeyRef': {'name': 'ca', 'key': 'k'}}}]
    containers = [{'name': 'c', 'image': 'i', 'env': env}]
    assert (
        await api.post(f'{CORE}/pods', pod('a', 'n1', volumes=uses('secret', 'sa'), containers=containers))
    ).status == 201
    assert (await api.post(f'{CORE}/pods', pod('b', 'n2', imagePullSecrets=[{'name': 'sb'}]))).status == 201
    agents = [await world.user(f'system:node:{n}', 'system:nodes') for n in ('n1', 'n2')]
    for n, agent in zip(('n1', 'n2'), agents, strict=True):
        assert (await agent.post('/api/v1/nodes', {'metadata': {'name': n}})).status == 201
    return agents


async def test_a_node_reads_what_its_pods_name_and_nothing_else(nodes: Any) -> None:
    one, two = nodes
    assert (await one.get(f'{CORE}/secrets/sa')).status == 200
    assert (await one.get(f'{CORE}/configmaps/ca')).status == 200
    refused = await two.get(f'{CORE}/secrets/sa')
    assert refused.status == 403
    assert "no relationship found between node 'n2' and this object" in refused.json['message']
    assert (await one.get(f'{CORE}/secrets/sb')).status == 403
    assert (await two.get(f'{CORE}/secrets/sb')).status == 200
    assert (await two.get(f'{CORE}/configmaps/ca')).status == 403
    for path in ('secrets/free', 'secrets', 'configmaps'):
        assert (await one.get(f'{CORE}/{path}')).status == 403, path
    assert (await one.get(f'{CORE}/secrets?fieldSelector=metadata.name%3Dsa')).status == 200
    assert (await one.put(f'{CORE}/secrets/sa', {'metadata': {'name': 'sa'}})).status == 403


async def test_the_permission_ends_with_the_pod(nodes: Any, api: Any) -> None:
    one, _ = nodes
    assert (await one.get(f'{CORE}/secrets/sa')).status == 200
    await api.delete(f'{CORE}/pods/a?gracePeriodSeconds=0')
    await api.get(f'{CORE}/pods')
    assert (await one.get(f'{CORE}/secrets/sa')).status == 403


async def test_pods_of_other_nodes_are_neither_listed_nor_read_nor_written(nodes: Any) -> None:
    one, _ = nodes
    own = await one.get('/api/v1/pods?fieldSelector=spec.nodeName%3Dn1')
    assert [p['metadata']['name'] for p in own.json['items']] == ['a']
    assert (await one.get('/api/v1/pods')).status == 403
    assert (await one.get('/api/v1/pods?fieldSelector=spec.nodeName%3Dn2')).status == 403
    assert (await one.get(f'{CORE}/pods/a')).status == 200
    assert (await one.get(f'{CORE}/pods/b')).status == 403
    status = {'status': {'phase': 'Failed'}}
    assert (await one.patch(f'{CORE}/pods/a/status', status)).status == 200
    assert (await one.patch(f'{CORE}/pods/b/status', status)).status == 403
    assert (await one.delete(f'{CORE}/pods/b')).status == 403
    assert (await one.post(f'{CORE}/pods', pod('c', 'n1'))).status == 403


async def test_tokens_are_given_for_own_pods_only(nodes: Any, api: Any) -> None:
    one, two = nodes
    made = (await api.get(f'{CORE}/pods/a')).json
    ref = {'apiVersion': 'v1', 'kind': 'Pod', 'name': 'a', 'uid': made['metadata']['uid']}
    path = f'{CORE}/serviceaccounts/app/token'
    assert (await one.post(path, {'spec': {'boundObjectRef': ref}})).status == 201
    assert (await two.post(path, {'spec': {'boundObjectRef': ref}})).status == 403
    unbound = await one.post(path, {'spec': {}})
    assert unbound.status == 403
    assert 'not bound to a pod' in unbound.json['message']
    no_uid = {k: v for k, v in ref.items() if k != 'uid'}
    assert (await one.post(path, {'spec': {'boundObjectRef': no_uid}})).status == 403
    await api.post(f'{CORE}/serviceaccounts', {'metadata': {'name': 'other'}})
    assert (await one.post(f'{CORE}/serviceaccounts/other/token', {'spec': {'boundObjectRef': ref}})).status == 403


async def test_a_node_gets_tokens_only_for_audiences_that_the_pod_wants_or_somebody_granted(
    nodes: Any, api: Any
) -> None:
    one, _ = nodes
    driver = {'metadata': {'name': 'd.example.com'}, 'spec': {'tokenRequests': [{'audience': 'storage'}]}}
    assert (await api.post('/apis/storage.k8s.io/v1/csidrivers', driver)).status == 201
    volumes = [
        {'name': 'v', 'projected': {'sources': [{'serviceAccountToken': {'path': 't', 'audience': 'vault'}}]}},
        {'name': 'w', 'csi': {'driver': 'd.example.com'}},
    ]  # fmt: skip
    made = (await api.post(f'{CORE}/pods', pod('t', 'n1', volumes=volumes))).json
    ref = {'apiVersion': 'v1', 'kind': 'Pod', 'name': 't', 'uid': made['metadata']['uid']}

    async def ask(*audiences: str) -> Any:
        spec = {'boundObjectRef': ref, 'audiences': list(audiences)}
        return await one.post(f'{CORE}/serviceaccounts/app/token', {'spec': spec})

    assert [(await ask(*audiences)).status for audiences in (('vault',), ('storage',), ())] == [201, 201, 201]
    assert (await ask('vault', 'storage')).status == 403
    refused = await ask('cloud')
    assert (refused.status, 'audience "cloud" not found in pod spec volume' in refused.json['message']) == (403, True)
    rbac, group = '/apis/rbac.authorization.k8s.io/v1', 'rbac.authorization.k8s.io'
    rule = {'verbs': ['request-serviceaccounts-token-audience'], 'apiGroups': [''], 'resources': ['cloud']}
    await api.post(f'{rbac}/clusterroles', {'metadata': {'name': 'cloud'}, 'rules': [rule]})
    subject = {'kind': 'Group', 'name': 'system:nodes', 'apiGroup': group}
    ref_role = {'kind': 'ClusterRole', 'name': 'cloud', 'apiGroup': group}
    await api.post(
        f'{rbac}/clusterrolebindings', {'metadata': {'name': 'c'}, 'roleRef': ref_role, 'subjects': [subject]}
    )
    await api.get(f'{rbac}/clusterrolebindings')
    assert (await ask('cloud')).status == 201


@pytest.mark.parametrize(
    ('patch', 'status'),
    [
        ({'metadata': {'labels': {'node-restriction.kubernetes.io/zone': 'secure'}}}, 403),
        ({'metadata': {'labels': {'node-role.kubernetes.io/control-plane': ''}}}, 403),
        ({'metadata': {'labels': {'topology.kubernetes.io/zone': 'a', 'mine': 'b'}}}, 200),
        ({'metadata': {'labels': {'node.kubernetes.io/x': 'a'}}}, 200),
        ({'spec': {'taints': [{'key': 'k', 'effect': 'NoSchedule'}]}}, 403),
        ({'metadata': {'annotations': {'a': 'b'}}}, 200),
    ],
)
async def test_of_its_own_node_an_agent_writes_only_what_it_may(nodes: Any, patch: Any, status: int) -> None:
    one, two = nodes
    assert (await one.patch('/api/v1/nodes/n1', patch)).status == status
    assert (await two.patch('/api/v1/nodes/n1', patch)).status == 403


async def test_leases_are_the_nodes_own(nodes: Any) -> None:
    one, _ = nodes
    leases = '/apis/coordination.k8s.io/v1/namespaces/{}/leases'
    assert (await one.post(leases.format('kube-node-lease'), {'metadata': {'name': 'n1'}, 'spec': {}})).status == 201
    assert (await one.post(leases.format('kube-node-lease'), {'metadata': {'name': 'n2'}, 'spec': {}})).status == 403
    assert (await one.post(leases.format('kube-system'), {'metadata': {'name': 'n1'}, 'spec': {}})).status == 403
    assert (await one.get(leases.format('kube-system') + '/kube-scheduler')).status == 403


@pytest.mark.parametrize(('change', 'why'), [
    ({}, ''),
    ({'owner': None}, 'with an owner reference set to itself'),
    ({'owner': {'name': 'n2'}}, 'with an owner reference set to itself'),
    ({'owner': {'kind': 'Pod'}}, 'with an owner reference set to itself'),
    ({'owner': {'controller': False}}, 'a controller owner reference'),
    ({'owner': {'blockOwnerDeletion': True}}, 'must not set blockOwnerDeletion'),
    ({'owner': {'uid': 'other'}}, 'UID mismatch'),
    ({'annotations': {}}, 'can only create mirror pods'),
    ({'spec': {'nodeName': 'n2'}}, 'can only create mirror pods bound to itself'),
    ({'spec': {'volumes': uses('secret', 'sb')}}, 'secrets'),
    ({'spec': {'volumes': uses('configMap', 'ca')}}, 'configmaps'),
    ({'spec': {'volumes': [{'name': 'v', 'persistentVolumeClaim': {'claimName': 'c'}}]}}, 'persistentvolumeclaims'),
    ({'spec': {'imagePullSecrets': [{'name': 'sb'}]}}, 'secrets'),
    ({'spec': {'serviceAccountName': 'app'}}, 'service account'),
    ({'spec': {'volumes': [{'name': 'v', 'cephfs': {'monitors': ['m'], 'secretRef': {'name': 'sb'}}}]}}, 'secrets'),
    ({'spec': {'volumes': [{'name': 'v', 'azureFile': {'secretName': 'sb', 'shareName': 's'}}]}}, 'secrets'),
])  # fmt: skip
async def test_a_pod_of_a_nodes_own_making_names_nothing_but_the_node(nodes: Any, change: Any, why: str) -> None:
    one, _ = nodes
    uid = (await one.get('/api/v1/nodes/n1')).json['metadata']['uid']
    owner = {'apiVersion': 'v1', 'kind': 'Node', 'name': 'n1', 'uid': uid, 'controller': True}
    given = change.get('owner', {})
    meta = {
        'name': 'm', 'annotations': change.get('annotations', {'kubernetes.io/config.mirror': 'x'}),
        'ownerReferences': [] if given is None else [{**owner, **given}],
    }  # fmt: skip
    spec = {'nodeName': 'n1', 'containers': [{'name': 'c', 'image': 'i'}], **change.get('spec', {})}
    made = await one.post(f'{CORE}/pods', {'metadata': meta, 'spec': spec})
    assert (made.status, why in made.text) == (403 if why else 201, True), made.text
