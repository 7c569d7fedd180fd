"""Upstream's conformance tests of the garbage collector and of the manager of NoExecute taints, on the real API server.

Bodies are our own: what a test of upstream demands, said shorter. `scripts/conformance.py` counts the markers.
"""
# ruff: noqa: E501, PLR0917 — upstream's names are kept whole; fixtures are parameters

from __future__ import annotations

import pytest

from kcontrol.kinds import REPLICATIONCONTROLLERS
from kcore.meta.gvk import EVENTS, NODES, PODS
from kcore.meta.objects import controller_of, deleting, get_condition, name_of
from tests.conformance.controllers.workloads import WORKLOADS, bare_pod, controller

conformance = pytest.mark.conformance


@conformance('[sig-api-machinery] Garbage collector should delete pods created by rc when not orphaning [Conformance]')
@conformance(
    '[sig-api-machinery] Garbage collector should keep the rc around until all its pods are deleted if the deleteOptions says so [Conformance]'
)
@pytest.mark.parametrize('policy', ['Background', 'Foreground'])
async def test_pods_go_with_their_controller_and_it_may_wait_for_them(
    admin, agent, controllers, until, field, count, exists, policy
):
    await controllers(*WORKLOADS)
    await admin.create(REPLICATIONCONTROLLERS, controller(replicas=3))
    await until(field(REPLICATIONCONTROLLERS, 'status.readyReplicas', 3))
    agent.alive = False  # pods stay, terminating
    await admin.delete(REPLICATIONCONTROLLERS, 'web', 'default', propagation=policy)
    await until(count(PODS, 0))
    left = await exists(admin, REPLICATIONCONTROLLERS, 'web', 'default')
    assert (left is not None) == (policy == 'Foreground')
    assert left is None or left['metadata']['finalizers'] == ['foregroundDeletion']
    agent.alive = True
    agent.poke()

    async def empty() -> bool:
        gone = await exists(admin, REPLICATIONCONTROLLERS, 'web', 'default') is None
        return gone and not (await admin.list(PODS, 'default')).items

    await until(empty)


@conformance(
    '[sig-api-machinery] Garbage collector should orphan pods created by rc if delete options say so [Conformance]'
)
async def test_pods_may_be_left_as_orphans(admin, agent, controllers, until, field, pods, exists):
    await controllers(*WORKLOADS)
    await admin.create(REPLICATIONCONTROLLERS, controller(replicas=3))
    await until(field(REPLICATIONCONTROLLERS, 'status.readyReplicas', 3))
    await admin.delete(REPLICATIONCONTROLLERS, 'web', 'default', propagation='Orphan')

    async def gone() -> bool:
        return await exists(admin, REPLICATIONCONTROLLERS, 'web', 'default') is None

    await until(gone)
    left = await pods()
    assert len(left) == 3
    assert all(controller_of(p) is None for p in left)


@conformance(
    "[sig-api-machinery] Garbage collector should not delete dependents that have both valid owner and owner that's waiting for dependents to be deleted [Conformance]"
)
async def test_a_pod_with_another_owner_survives_and_loses_the_one_that_goes(
    admin, agent, controllers, until, field, pods, exists
):
    await controllers(*WORKLOADS)
    await admin.create(REPLICATIONCONTROLLERS, controller(replicas=4))
    await until(field(REPLICATIONCONTROLLERS, 'status.readyReplicas', 4))
    other = controller(replicas=0, selector={'app': 'other'})
    other['metadata']['name'], other['spec']['template']['metadata']['labels'] = 'stays', {'app': 'other'}
    stays = await admin.create(REPLICATIONCONTROLLERS, other)
    ref = {'apiVersion': 'v1', 'kind': 'ReplicationController', 'name': 'stays', 'uid': stays['metadata']['uid']}
    shared = [name_of(p) for p in await pods()][:2]
    for pod in await pods():
        if name_of(pod) in shared:
            refs = [*pod['metadata']['ownerReferences'], ref]
            await admin.patch(PODS, name_of(pod), {'metadata': {'ownerReferences': refs}}, 'default')
    await admin.delete(REPLICATIONCONTROLLERS, 'web', 'default', propagation='Foreground')

    async def gone() -> bool:
        return await exists(admin, REPLICATIONCONTROLLERS, 'web', 'default') is None

    await until(gone)
    left = await pods()
    assert [name_of(p) for p in left] == shared
    assert all([r['name'] for r in p['metadata']['ownerReferences']] == ['stays'] for p in left)


def tolerant(name: str, node: str, seconds: int) -> dict:
    toleration = {'key': 'kubernetes.io/e2e-evict-taint-key', 'operator': 'Exists', 'effect': 'NoExecute'}
    pod = bare_pod(name, app='web')
    return {
        **pod,
        'spec': {**pod['spec'], 'nodeName': node, 'tolerations': [{**toleration, 'tolerationSeconds': seconds}]},
    }


EVICTS = {'key': 'kubernetes.io/e2e-evict-taint-key', 'value': 'evictTaintVal', 'effect': 'NoExecute'}


@conformance(
    '[sig-node] NoExecuteTaintManager Multiple Pods [Serial] evicts pods with minTolerationSeconds [Disruptive] [Conformance]'
)
@conformance(
    '[sig-node] NoExecuteTaintManager Single Pod [Serial] removing taint cancels eviction [Disruptive] [Conformance]'
)
async def test_a_taint_evicts_after_the_tolerated_seconds_unless_it_goes_before(
    admin, agent, controllers, until, clock
):
    agent.alive = False
    await agent.join('node-2')
    runner = await controllers('tainteviction')
    for name, node, seconds in (('soon', 'node-1', 0), ('later', 'node-1', 60), ('spared', 'node-2', 60)):
        await admin.create(PODS, tolerant(name, node, seconds))
    for node in ('node-1', 'node-2'):
        await admin.patch(NODES, node, {'spec': {'taints': [EVICTS]}})

    async def evicted(*names: str) -> bool:
        found = (await admin.list(PODS, 'default')).items
        return {name_of(p) for p in found if deleting(p)} == {*names}

    await until(lambda: evicted('soon'))
    await until(lambda: runner.debug()['tainteviction']['delayed'] == 2)
    await admin.patch(NODES, 'node-2', {'spec': {'taints': None}})

    async def cancelled() -> bool:
        told = (await admin.list(EVENTS, 'default')).items
        return any(e.get('message') == 'Cancelling deletion of Pod default/spared' for e in told)

    await until(cancelled)
    clock.ahead_s = 61
    for name in ('later', 'spared'):  # timers run on the real clock: a new toleration makes the manager look again
        found = await admin.get(PODS, name, 'default')
        tolerations = [*found['spec']['tolerations'], {'key': 'look-again', 'operator': 'Exists'}]
        await admin.patch(PODS, name, {'spec': {'tolerations': tolerations}}, 'default')
    await until(lambda: evicted('soon', 'later'))
    await until(lambda: runner.idle)
    assert await evicted('soon', 'later')
    found = await admin.get(PODS, 'later', 'default')
    assert get_condition(found, 'DisruptionTarget')['reason'] == 'DeletionByTaintManager'
