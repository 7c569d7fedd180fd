"""Upstream's conformance tests of workloads beyond their basics: rollouts, status, collections, adoption, schedules.

Bodies are our own: what a test of upstream demands, said shorter. `scripts/conformance.py` counts the markers.
"""
# ruff: noqa: E501, PLR0917 — upstream's names are kept whole; fixtures are parameters

from __future__ import annotations

import pytest

from kcontrol.kinds import (
    CONTROLLERREVISIONS,
    DAEMONSETS,
    REPLICATIONCONTROLLERS,
    RESOURCEQUOTAS,
    STATEFULSETS,
)
from kcore.meta.gvk import DEPLOYMENTS, NODES, PODS, REPLICASETS
from kcore.meta.objects import condition_is, controller_of, get_condition, labels_of, name_of
from tests.conformance.controllers.workloads import (
    WORKLOADS,
    controller,
    image_of,
    scale,
    template,
    through_status,
    unversioned,
    workload,
)

conformance = pytest.mark.conformance
REVISION = 'deployment.kubernetes.io/revision'


def only(image: str):
    """An agent's rule: pods of other images never become ready."""
    return lambda pod: image_of(pod) == image


# --- Deployment --------------------------------------------------------------------------------------------------------


@conformance('[sig-apps] Deployment RollingUpdateDeployment should delete old pods and create new ones [Conformance]')
async def test_a_deployment_takes_over_a_replica_set_and_replaces_its_pods(
    admin, agent, controllers, until, pods, field
):
    await controllers(*WORKLOADS)
    old = workload('before', replicas=1)
    old['metadata']['annotations'] = {REVISION: '3546343826724305832'}
    await admin.create(REPLICASETS, old)
    await until(field(REPLICASETS, 'status.availableReplicas', 1, 'before'))
    await admin.create(DEPLOYMENTS, workload(replicas=1, template=template('two')))

    async def replaced() -> bool:
        return [image_of(p) for p in await pods()] == ['two']

    await until(replaced)
    await until(field(DEPLOYMENTS, 'status.availableReplicas', 1))
    web = await admin.get(DEPLOYMENTS, 'web', 'default')
    assert web['metadata']['annotations'][REVISION] == '3546343826724305833'
    before = await admin.get(REPLICASETS, 'before', 'default')
    assert controller_of(before)['uid'] == web['metadata']['uid']
    assert before['spec']['replicas'] == 0


@conformance('[sig-apps] Deployment deployment should support rollover [Conformance]')
async def test_a_deployment_rolls_over_from_a_template_that_never_gets_ready(admin, agent, controllers, until, field):
    agent.healthy = lambda pod: image_of(pod) != 'bad'
    await controllers(*WORKLOADS)
    await admin.create(REPLICASETS, workload('before', replicas=1))
    await until(field(REPLICASETS, 'status.availableReplicas', 1, 'before'))
    strategy = {'type': 'RollingUpdate', 'rollingUpdate': {'maxUnavailable': 0, 'maxSurge': 1}}
    await admin.create(DEPLOYMENTS, workload(replicas=1, template=template('bad'), strategy=strategy))
    await until(field(DEPLOYMENTS, 'status.updatedReplicas', 1))
    assert (await admin.get(DEPLOYMENTS, 'web', 'default'))['status'].get('availableReplicas') == 1
    await admin.patch(DEPLOYMENTS, 'web', {'spec': {'template': template('two')}}, 'default')

    async def rolled() -> bool:
        sets = (await admin.list(REPLICASETS, 'default')).items
        held = {image_of(s): ((s.get('status') or {}).get('replicas') or 0) for s in sets}
        return held == {'one': 0, 'bad': 0, 'two': 1}

    await until(rolled)
    await until(field(DEPLOYMENTS, 'status.availableReplicas', 1))


@conformance('[sig-apps] Deployment deployment should support proportional scaling [Conformance]')
async def test_a_half_done_rollout_is_scaled_in_proportion(admin, agent, controllers, until, field):
    agent.healthy = only('one')
    await controllers(*WORKLOADS)
    strategy = {'type': 'RollingUpdate', 'rollingUpdate': {'maxUnavailable': 2, 'maxSurge': 3}}
    await admin.create(DEPLOYMENTS, workload(replicas=10, strategy=strategy))
    await until(field(DEPLOYMENTS, 'status.availableReplicas', 10))
    await admin.patch(DEPLOYMENTS, 'web', {'spec': {'template': template('never')}}, 'default')

    def sizes(**wanted: int):
        async def same() -> bool:
            sets = (await admin.list(REPLICASETS, 'default')).items
            return {image_of(s): s['spec']['replicas'] for s in sets} == wanted

        return same

    await until(sizes(one=8, never=5))
    await until(field(DEPLOYMENTS, 'status.availableReplicas', 8))
    await scale(admin, DEPLOYMENTS, 30)
    await until(sizes(one=20, never=13))


@conformance('[sig-apps] Deployment should run the lifecycle of a Deployment [Conformance]')
@conformance('[sig-apps] Deployment should validate Deployment Status endpoints [Conformance]')
async def test_the_life_of_a_deployment(admin, agent, controllers, until, field, count):
    await controllers(*WORKLOADS)
    await admin.create(DEPLOYMENTS, workload(replicas=1))
    await until(field(DEPLOYMENTS, 'status.readyReplicas', 1))
    await admin.patch(
        DEPLOYMENTS, 'web', {'spec': {'replicas': 2, 'template': template('two')}}, 'default', kind='strategic'
    )
    await until(field(DEPLOYMENTS, 'status.updatedReplicas', 2))
    await until(field(DEPLOYMENTS, 'status.readyReplicas', 2))
    (found,) = (await admin.list(DEPLOYMENTS, label_selector='life=yes')).items
    found['spec']['template']['spec']['containers'][0]['image'] = 'three'
    await admin.update(DEPLOYMENTS, unversioned(found))
    await until(field(DEPLOYMENTS, 'status.observedGeneration', 3))
    await until(field(DEPLOYMENTS, 'status.readyReplicas', 2))
    await through_status(admin, DEPLOYMENTS, await admin.get(DEPLOYMENTS, 'web', 'default'))
    await admin.delete_collection(DEPLOYMENTS, 'default', label_selector='life=yes')
    for resource in (DEPLOYMENTS, REPLICASETS, PODS):
        await until(count(resource, 0))


# --- ReplicaSet and ReplicationController ------------------------------------------------------------------------------


@conformance('[sig-apps] ReplicaSet Replace and Patch tests [Conformance]')
@conformance('[sig-apps] ReplicaSet Replicaset should have a working scale subresource [Conformance]')
@conformance('[sig-apps] ReplicaSet should validate Replicaset Status endpoints [Conformance]')
@conformance('[sig-apps] ReplicaSet should list and delete a collection of ReplicaSets [Conformance]')
async def test_the_life_of_a_replica_set(admin, agent, controllers, until, field, count, pods):
    await controllers(*WORKLOADS)
    await admin.create(REPLICASETS, workload(replicas=1))
    await until(field(REPLICASETS, 'status.availableReplicas', 1))
    await scale(admin, REPLICASETS, 2)
    await until(field(REPLICASETS, 'status.availableReplicas', 2))
    body = {'metadata': {'labels': {'patched': 'yes'}}, 'spec': {'replicas': 3, 'template': template('two')}}
    await admin.patch(REPLICASETS, 'web', body, 'default', kind='strategic')
    await until(field(REPLICASETS, 'status.availableReplicas', 3))
    assert sorted(image_of(p) for p in await pods()) == ['one', 'one', 'two'], 'pods that exist are left alone'
    await through_status(admin, REPLICASETS, await admin.get(REPLICASETS, 'web', 'default'))
    found = (await admin.list(REPLICASETS, label_selector='life=yes')).items
    assert [name_of(s) for s in found] == ['web']
    await admin.delete_collection(REPLICASETS, 'default', label_selector='life=yes')
    await until(count(REPLICASETS, 0))


@conformance('[sig-apps] ReplicationController should test the lifecycle of a ReplicationController [Conformance]')
async def test_the_life_of_a_replication_controller(admin, agent, controllers, until, field, count):
    await controllers(*WORKLOADS)
    await admin.create(REPLICATIONCONTROLLERS, controller(replicas=1))
    await until(field(REPLICATIONCONTROLLERS, 'status.readyReplicas', 1))
    await admin.patch(REPLICATIONCONTROLLERS, 'web', {'metadata': {'labels': {'patched': 'yes'}}}, 'default')
    gone = {'status': {'readyReplicas': 0, 'availableReplicas': 0}}
    written = await admin.patch(REPLICATIONCONTROLLERS, 'web', gone, 'default', subresource='status')
    assert written['status'].get('readyReplicas', 0) == 0
    await until(field(REPLICATIONCONTROLLERS, 'status.readyReplicas', 1)), 'the controller knows better'
    await scale(admin, REPLICATIONCONTROLLERS, 2)
    await until(field(REPLICATIONCONTROLLERS, 'status.readyReplicas', 2))
    found = await admin.get(REPLICATIONCONTROLLERS, 'web', 'default')
    found['metadata']['annotations'] = {'updated': 'yes'}
    await admin.update(REPLICATIONCONTROLLERS, unversioned(found))
    (listed,) = (await admin.list(REPLICATIONCONTROLLERS, label_selector='patched=yes')).items
    assert listed['metadata']['annotations'] == {'updated': 'yes'}
    await admin.delete_collection(REPLICATIONCONTROLLERS, 'default', label_selector='patched=yes')
    await until(count(REPLICATIONCONTROLLERS, 0))


@conformance(
    '[sig-apps] ReplicationController should surface a failure condition on a common issue like exceeded quota [Conformance]'
)
async def test_a_quota_that_stops_a_controller_is_told_and_untold(admin, agent, controllers, until, field):
    await controllers(*WORKLOADS, 'resourcequota')
    await admin.create(
        RESOURCEQUOTAS, {'metadata': {'name': 'two', 'namespace': 'default'}, 'spec': {'hard': {'pods': '2'}}}
    )
    await until(field(RESOURCEQUOTAS, 'status.hard', {'pods': '2'}, 'two'))
    await admin.create(REPLICATIONCONTROLLERS, controller(replicas=3))

    async def failing(wanted: bool) -> bool:
        found = await admin.get(REPLICATIONCONTROLLERS, 'web', 'default')
        return condition_is(found, 'ReplicaFailure', 'True') == wanted and 'status' in found

    await until(lambda: failing(True))
    said = get_condition(await admin.get(REPLICATIONCONTROLLERS, 'web', 'default'), 'ReplicaFailure')
    assert said['reason'] == 'FailedCreate'
    assert 'exceeded quota' in said['message']
    await scale(admin, REPLICATIONCONTROLLERS, 2)
    await until(lambda: failing(False))


# --- DaemonSet ---------------------------------------------------------------------------------------------------------


@conformance('[sig-apps] Daemon set [Serial] should run and stop complex daemon [Conformance]')
async def test_a_daemon_follows_the_labels_of_nodes(admin, agent, controllers, until, pods, field):
    await controllers('daemonset')
    await admin.create(DAEMONSETS, workload(template=template(nodeSelector={'color': 'blue'})))
    await until(field(DAEMONSETS, 'status.observedGeneration', 1))
    assert await pods() == []

    async def running(wanted: int) -> bool:
        return len(await pods()) == wanted

    await admin.patch(NODES, 'node-1', {'metadata': {'labels': {'color': 'blue'}}})
    await until(lambda: running(1))
    await admin.patch(NODES, 'node-1', {'metadata': {'labels': {'color': 'green'}}})
    await until(lambda: running(0))
    change = {'template': template(nodeSelector={'color': 'green'}), 'updateStrategy': {'type': 'RollingUpdate'}}
    await admin.patch(DAEMONSETS, 'web', {'spec': change}, 'default')
    await until(lambda: running(1))


@conformance(
    '[sig-apps] Daemon set [Serial] should update pod when spec was updated and update strategy is RollingUpdate [Conformance]'
)
@conformance('[sig-apps] Daemon set [Serial] should rollback without unnecessary restarts [Conformance]')
async def test_daemons_roll_and_a_rollback_leaves_the_untouched_alone(admin, agent, controllers, until, pods, field):
    agent.healthy = lambda pod: image_of(pod) != 'bad'
    await agent.join('node-2', 'node-3')
    await controllers('daemonset')
    await admin.create(DAEMONSETS, workload())
    await until(field(DAEMONSETS, 'status.numberAvailable', 3))
    await admin.patch(DAEMONSETS, 'web', {'spec': {'template': template('two')}}, 'default')

    async def all_run(image: str) -> bool:
        status = (await admin.get(DAEMONSETS, 'web', 'default'))['status']
        return {image_of(p) for p in await pods()} == {image} and status.get('numberAvailable') == 3

    await until(lambda: all_run('two'))
    (newest,) = [r for r in (await admin.list(CONTROLLERREVISIONS, 'default')).items if r['revision'] == 2]
    named = {labels_of(p)['controller-revision-hash'] for p in await pods()}
    assert named == {labels_of(newest)['controller-revision-hash']}
    untouched = {p['metadata']['uid'] for p in await pods()}
    await admin.patch(DAEMONSETS, 'web', {'spec': {'template': template('bad')}}, 'default')

    async def stuck() -> bool:
        return sorted(image_of(p) for p in await pods()) == ['bad', 'two', 'two']

    await until(stuck)
    untouched &= {p['metadata']['uid'] for p in await pods()}
    await admin.patch(DAEMONSETS, 'web', {'spec': {'template': template('two')}}, 'default')
    await until(lambda: all_run('two'))
    assert len(untouched) == 2
    assert untouched < {p['metadata']['uid'] for p in await pods()}


@conformance('[sig-apps] Daemon set [Serial] should verify changes to a daemon set status [Conformance]')
@conformance('[sig-apps] Daemon set [Serial] should list and delete a collection of DaemonSets [Conformance]')
async def test_the_status_of_a_daemon_and_its_collection(admin, agent, controllers, until, field, count):
    await controllers('daemonset', 'gc')
    made = await admin.create(DAEMONSETS, workload())
    await until(field(DAEMONSETS, 'status.numberAvailable', 1))
    await through_status(admin, DAEMONSETS, made)
    found = (await admin.list(DAEMONSETS, label_selector='life=yes')).items
    assert [name_of(s) for s in found] == ['web']
    await admin.delete_collection(DAEMONSETS, 'default', label_selector='life=yes')
    for resource in (DAEMONSETS, PODS, CONTROLLERREVISIONS):
        await until(count(resource, 0))


# --- StatefulSet -------------------------------------------------------------------------------------------------------


@conformance(
    '[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should perform canary updates and phased rolling updates of template modifications [Conformance]'
)
async def test_a_partition_lets_a_canary_and_then_phases_through(admin, agent, controllers, until, pods, field):
    await controllers('statefulset')

    def partition(number: int) -> dict:
        return {'updateStrategy': {'type': 'RollingUpdate', 'rollingUpdate': {'partition': number}}}

    await admin.create(STATEFULSETS, workload(replicas=3, serviceName='web', **partition(3)))
    await until(field(STATEFULSETS, 'status.availableReplicas', 3))
    await admin.patch(STATEFULSETS, 'web', {'spec': {'template': template('two')}}, 'default')
    await until(field(STATEFULSETS, 'status.observedGeneration', 2))

    async def images(*wanted: str) -> bool:
        status = (await admin.get(STATEFULSETS, 'web', 'default'))['status']
        return [image_of(p) for p in await pods()] == [*wanted] and status.get('readyReplicas') == 3

    assert await images('one', 'one', 'one'), 'no pod is beyond the partition'
    for number, wanted in ((2, ('one', 'one', 'two')), (1, ('one', 'two', 'two')), (0, ('two', 'two', 'two'))):
        await admin.patch(STATEFULSETS, 'web', {'spec': partition(number)}, 'default')
        await until(lambda wanted=wanted: images(*wanted))
        victim = name_of((await pods())[-1])
        uid = (await admin.get(PODS, victim, 'default'))['metadata']['uid']
        await admin.delete(PODS, victim, 'default')

        async def back(victim: str = victim, uid: str = uid, wanted: tuple = wanted) -> bool:
            uids = {name_of(p): p['metadata']['uid'] for p in await pods()}
            return uids.get(victim, uid) != uid and await images(*wanted)

        await until(back)
    status = (await admin.get(STATEFULSETS, 'web', 'default'))['status']
    await until(field(STATEFULSETS, 'status.currentRevision', status['updateRevision']))


@conformance(
    '[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should perform rolling updates and roll backs of template modifications [Conformance]'
)
async def test_a_stateful_set_rolls_from_the_highest_ordinal_and_back(admin, agent, controllers, until, pods, field):
    await controllers('statefulset')
    await admin.create(STATEFULSETS, workload(replicas=3, serviceName='web'))
    await until(field(STATEFULSETS, 'status.availableReplicas', 3))
    first = (await admin.get(STATEFULSETS, 'web', 'default'))['status']['currentRevision']
    order: list[str] = []
    agent.pods.on_change(lambda old, new: order.append(name_of(old)) if new is None else None)

    async def settled(image: str) -> bool:
        status = (await admin.get(STATEFULSETS, 'web', 'default'))['status']
        whole = status['currentRevision'] == status['updateRevision'] and status.get('availableReplicas') == 3
        return whole and {image_of(p) for p in await pods()} == {image}

    for image in ('two', 'one'):
        order.clear()
        await admin.patch(STATEFULSETS, 'web', {'spec': {'template': template(image)}}, 'default')
        await until(lambda image=image: settled(image))
        assert order == ['web-2', 'web-1', 'web-0']
    assert (await admin.get(STATEFULSETS, 'web', 'default'))['status']['currentRevision'] == first


@conformance(
    '[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should list, patch and delete a collection of StatefulSets [Conformance]'
)
@conformance(
    '[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should validate Statefulset Status endpoints [Conformance]'
)
async def test_the_status_of_a_stateful_set_and_its_collection(admin, agent, controllers, until, field, count):
    await controllers('statefulset', 'gc')
    await admin.create(STATEFULSETS, workload(replicas=1, serviceName='web'))
    await until(field(STATEFULSETS, 'status.availableReplicas', 1))
    await admin.patch(
        STATEFULSETS, 'web', {'spec': {'replicas': 2, 'template': template('two')}}, 'default', kind='strategic'
    )
    await until(field(STATEFULSETS, 'status.updatedReplicas', 2))
    await until(field(STATEFULSETS, 'status.availableReplicas', 2))
    await through_status(admin, STATEFULSETS, await admin.get(STATEFULSETS, 'web', 'default'))
    found = (await admin.list(STATEFULSETS, label_selector='life=yes')).items
    assert [name_of(s) for s in found] == ['web']
    await admin.delete_collection(STATEFULSETS, 'default', label_selector='life=yes')
    for resource in (STATEFULSETS, PODS):
        await until(count(resource, 0))
