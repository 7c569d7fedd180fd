"""Namespaces, nodes, accounts and endpoints end to end."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

import pytest

from kclient.discovery import discover
from kclient.errors import AlreadyExists, NotFound
from kcore.meta.gvk import (
    CONFIGMAPS,
    ENDPOINTS,
    ENDPOINTSLICES,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    SERVICEACCOUNTS,
    SERVICES,
)
from kcore.meta.objects import deleting, get_condition
from kcore.meta.times import format_micro, format_time


def namespace(name: str) -> dict:
    return {'metadata': {'name': name}, 'spec': {'finalizers': ['kubernetes']}}


def pod(name: str, ns: str = 'default', **spec) -> dict:
    return {
        'metadata': {'name': name, 'namespace': ns, 'labels': {'app': 'web'}},
        'spec': {'containers': [{'name': 'c', 'image': 'x', 'ports': [{'name': 'http', 'containerPort': 80}]}], **spec},
    }


async def node(admin, name: str, ready: str = 'True') -> None:
    await admin.create(NODES, {'metadata': {'name': name}})
    stamp = format_time(datetime.now(UTC))
    condition = {'type': 'Ready', 'status': ready, 'lastHeartbeatTime': stamp, 'lastTransitionTime': stamp}
    await admin.patch(NODES, name, {'status': {'conditions': [condition]}}, subresource='status')


async def test_a_namespace_gets_its_account_and_authority_again_and_again(admin, controllers, until, exists):
    await controllers('serviceaccount', 'rootca')
    await admin.create(NAMESPACES, namespace('team'))
    await until(lambda: exists(admin, SERVICEACCOUNTS, 'default', 'team'))
    root = await until(lambda: exists(admin, CONFIGMAPS, 'kube-root-ca.crt', 'team'))
    await admin.delete(SERVICEACCOUNTS, 'default', 'team')
    await until(lambda: exists(admin, SERVICEACCOUNTS, 'default', 'team'))
    await admin.patch(CONFIGMAPS, 'kube-root-ca.crt', {'data': {'ca.crt': 'forged', 'more': 'x'}}, 'team')

    async def repaired() -> bool:
        return (await admin.get(CONFIGMAPS, 'kube-root-ca.crt', 'team'))['data'] == root['data']

    await until(repaired)


async def test_a_namespace_is_emptied_before_it_goes_and_says_what_is_left(admin, agent, controllers, until, exists):
    await controllers('namespace', 'serviceaccount', 'rootca')
    await admin.create(NAMESPACES, namespace('team'))
    await admin.create(PODS, pod('p', 'team'))
    held = {'metadata': {'name': 'held', 'namespace': 'team', 'finalizers': ['example.com/hold']}, 'data': {}}
    await admin.create(CONFIGMAPS, held)

    async def running() -> bool:
        return bool((await admin.get(PODS, 'p', 'team'))['spec'].get('nodeName'))

    await until(running)
    await admin.delete(NAMESPACES, 'team')

    async def explained() -> bool:
        ns = await admin.get(NAMESPACES, 'team')
        left = get_condition(ns, 'NamespaceFinalizersRemaining')
        return left is not None and 'example.com/hold in 1 resource instances' in left['message']

    await until(explained)
    ns = await admin.get(NAMESPACES, 'team')
    assert 'configmaps. has 1 resource instances' in get_condition(ns, 'NamespaceContentRemaining')['message']
    await admin.patch(CONFIGMAPS, 'held', {'metadata': {'finalizers': None}}, 'team')

    async def gone() -> bool:
        return await exists(admin, NAMESPACES, 'team') is None

    await until(gone)
    with pytest.raises(NotFound):
        await admin.get(PODS, 'p', 'team')


async def test_each_node_gets_a_network_of_its_own(admin, controllers, until):
    await controllers('nodeipam')
    for name in ('a', 'b', 'c'):
        await node(admin, name)

    async def networks() -> set[str]:
        nodes = (await admin.list(NODES)).items
        found = {n['spec'].get('podCIDR') for n in nodes if n.get('spec')}
        return found if len(found) == 3 and None not in found else set()

    assert await until(networks) == {'127.64.0.0/24', '127.64.1.0/24', '127.64.2.0/24'}
    n = await admin.get(NODES, 'a')
    assert n['spec']['podCIDRs'] == [n['spec']['podCIDR']]


async def test_a_silent_node_becomes_unknown_and_its_pods_move_on(admin, controllers, until, background):
    short = {'node_monitor_period_s': 0.05, 'node_monitor_grace_period_s': 0.5, 'node_startup_grace_period_s': 5.0}
    await node(admin, 'dead')
    await node(admin, 'live')
    seconds = {'key': 'node.kubernetes.io/unreachable', 'operator': 'Exists', 'effect': 'NoExecute'}
    forever = {'operator': 'Exists'}
    await admin.create(PODS, pod('moves', nodeName='dead', tolerations=[{**seconds, 'tolerationSeconds': 1}]))
    await admin.create(PODS, pod('stays', nodeName='dead', tolerations=[forever]))
    stamp = format_time(datetime.now(UTC))
    ready = {'phase': 'Running', 'conditions': [{'type': 'Ready', 'status': 'True', 'lastTransitionTime': stamp}]}
    await admin.patch(PODS, 'stays', {'status': ready}, 'default', subresource='status')
    with contextlib.suppress(AlreadyExists):
        await admin.create(NAMESPACES, namespace('kube-node-lease'))
    lease = {'metadata': {'name': 'live', 'namespace': 'kube-node-lease'}, 'spec': {'holderIdentity': 'live'}}
    await admin.create(LEASES, lease)

    async def beat() -> None:
        import asyncio

        while True:
            spec = {'renewTime': format_micro(datetime.now(UTC))}
            await admin.patch(LEASES, 'live', {'spec': spec}, 'kube-node-lease')
            await asyncio.sleep(0.1)

    background(beat())
    await controllers('nodelifecycle', 'tainteviction', **short)

    async def unknown() -> bool:
        n = await admin.get(NODES, 'dead')
        taints = {(t['key'], t['effect']) for t in n.get('spec', {}).get('taints') or ()}
        wanted = {('node.kubernetes.io/unreachable', e) for e in ('NoSchedule', 'NoExecute')}
        return get_condition(n, 'Ready')['status'] == 'Unknown' and wanted <= taints

    await until(unknown)

    async def evicted() -> bool:
        return deleting(await admin.get(PODS, 'moves', 'default'))

    await until(evicted)
    stays = await admin.get(PODS, 'stays', 'default')
    assert not deleting(stays)
    assert get_condition(stays, 'Ready')['status'] == 'False'
    live = await admin.get(NODES, 'live')
    assert get_condition(live, 'Ready')['status'] == 'True'
    assert not live.get('spec', {}).get('taints')
    # The agent comes back: conditions are its own, taints are ours to remove.
    condition = {'type': 'Ready', 'status': 'True', 'lastHeartbeatTime': format_time(datetime.now(UTC))}
    await admin.patch(NODES, 'dead', {'status': {'conditions': [condition]}}, subresource='status')

    async def healed() -> bool:
        n = await admin.get(NODES, 'dead')
        return get_condition(n, 'Ready')['status'] != 'True' or not n.get('spec', {}).get('taints')

    await until(healed)


async def test_endpoints_follow_readiness(admin, agent, controllers, until):
    await controllers('endpoints', 'endpointslice', 'gc')
    service = {
        'metadata': {'name': 'web', 'namespace': 'default'},
        'spec': {'selector': {'app': 'web'}, 'ports': [{'name': 'http', 'port': 8080, 'targetPort': 'http'}]},
    }
    await admin.create(SERVICES, service)
    await admin.create(PODS, pod('a'))
    await admin.create(PODS, pod('b'))

    async def both() -> bool:
        subsets = (await admin.get(ENDPOINTS, 'web', 'default')).get('subsets') or []
        return len(subsets) == 1 and len(subsets[0].get('addresses') or ()) == 2

    async def created() -> bool:
        return any(e['metadata']['name'] == 'web' for e in (await admin.list(ENDPOINTS, 'default')).items)

    await until(created)
    await until(both)
    subset = (await admin.get(ENDPOINTS, 'web', 'default'))['subsets'][0]
    assert subset['ports'] == [{'name': 'http', 'port': 80, 'protocol': 'TCP'}]
    a = await admin.get(PODS, 'a', 'default')
    unready = {'conditions': [{'type': 'Ready', 'status': 'False'}]}
    await admin.patch(PODS, 'a', {'status': {**a['status'], **unready}}, 'default', subresource='status')

    sliced = (await discover(admin)).serves(ENDPOINTSLICES)

    async def slices() -> list[dict]:
        return sliced and [
            s for s in (await admin.list(ENDPOINTSLICES, 'default')).items
            if s['metadata'].get('labels', {}).get('kubernetes.io/service-name') == 'web'
        ]  # fmt: skip

    async def moved() -> bool:
        subset = (await admin.get(ENDPOINTS, 'web', 'default'))['subsets'][0]
        pieces = await slices() or []
        ready = sorted(e['conditions']['ready'] for s in pieces for e in s.get('endpoints') or ()) if sliced else [0, 1]
        return (
            len(subset.get('addresses', ())) == 1
            and len(subset.get('notReadyAddresses', ())) == 1
            and ready == [False, True]
        )

    await until(moved)
    await admin.delete(SERVICES, 'web', 'default')

    async def gone() -> bool:
        named = [e for e in (await admin.list(ENDPOINTS, 'default')).items if e['metadata']['name'] == 'web']
        return not named and not await slices()

    await until(gone)


@pytest.mark.parametrize('config_of', ['fake'], indirect=True)
async def test_pods_of_vanished_nodes_are_removed(admin, fake, controllers, until, monkeypatch):
    from kcontrol.controllers.podgc import reconcile as podgc

    monkeypatch.setattr(podgc, 'QUARANTINE_S', 0.0)
    monkeypatch.setattr(podgc, 'PERIOD_S', 0.05)
    await admin.create(NODES, {'metadata': {'name': 'here'}})
    await admin.create(PODS, pod('lost', nodeName='nowhere'))
    await admin.create(PODS, pod('fine', nodeName='here'))
    await controllers('podgc')
    await until(lambda: fake.one('pods', 'lost') is None)
    assert fake.one('pods', 'fine') is not None
