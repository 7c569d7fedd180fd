"""Upstream's conformance tests of controllers, on the real API server with a pretended node agent.

Bodies are our own: what a test of upstream demands, said shorter. `scripts/conformance.py` counts the markers.
"""
# ruff: noqa: E501, PLR0917 — upstream's names are kept whole; fixtures are parameters

from __future__ import annotations

import pytest

from kclient.errors import TooManyRequests
from kcontrol.kinds import (
    CONTROLLERREVISIONS,
    CRONJOBS,
    DAEMONSETS,
    JOBS,
    PODDISRUPTIONBUDGETS,
    REPLICATIONCONTROLLERS,
    RESOURCEQUOTAS,
    STATEFULSETS,
)
from kcore.meta.gvk import DEPLOYMENTS, NAMESPACES, PODS, REPLICASETS
from kcore.meta.objects import controller_of, name_of
from tests.conformance.controllers.workloads import WORKLOADS, bare_pod, controller, scale, template, workload

conformance = pytest.mark.conformance


@conformance('[sig-apps] Deployment Deployment should have a working scale subresource [Conformance]')
async def test_a_deployment_scales_by_its_subresource(admin, agent, controllers, until, field):
    await controllers(*WORKLOADS)
    await admin.create(DEPLOYMENTS, workload(replicas=1))
    await until(field(DEPLOYMENTS, 'status.availableReplicas', 1))
    await scale(admin, DEPLOYMENTS, 2)
    await until(field(DEPLOYMENTS, 'status.availableReplicas', 2))


@conformance('[sig-apps] Deployment RecreateDeployment should delete old pods and create new ones [Conformance]')
async def test_recreate_never_runs_two_versions(admin, agent, controllers, until, field):
    await controllers(*WORKLOADS)
    await admin.create(DEPLOYMENTS, workload(replicas=2, strategy={'type': 'Recreate'}))
    await until(field(DEPLOYMENTS, 'status.availableReplicas', 2))
    seen: list[set[str]] = []
    agent.pods.on_change(
        lambda _o, _n: seen.append({p['spec']['containers'][0]['image'] for p in agent.pods.store.list()})
    )
    await admin.patch(DEPLOYMENTS, 'web', {'spec': {'template': template('two')}}, 'default')
    await until(field(DEPLOYMENTS, 'status.observedGeneration', 2))
    await until(field(DEPLOYMENTS, 'status.updatedReplicas', 2))
    assert all(len(images) <= 1 for images in seen)


@conformance('[sig-apps] Deployment deployment should delete old replica sets [Conformance]')
async def test_history_beyond_the_limit_goes(admin, agent, controllers, until, count):
    await controllers(*WORKLOADS)
    await admin.create(DEPLOYMENTS, workload(replicas=1, revisionHistoryLimit=0))
    await until(count(REPLICASETS, 1))
    await admin.patch(DEPLOYMENTS, 'web', {'spec': {'template': template('two')}}, 'default')

    async def only_new() -> bool:
        sets = (await admin.list(REPLICASETS, 'default')).items
        return [s['spec']['template']['spec']['containers'][0]['image'] for s in sets] == ['two']

    await until(only_new)


@conformance(
    '[sig-apps] ReplicaSet should adopt matching pods on creation and release no longer matching pods [Conformance]'
)
async def test_a_replica_set_adopts_and_releases(admin, agent, controllers, until, exists):
    await controllers(*WORKLOADS)
    await admin.create(PODS, bare_pod('orphan', app='web'))
    await admin.create(REPLICASETS, workload(replicas=1))

    async def adopted(wanted: bool) -> bool:
        return (controller_of(await admin.get(PODS, 'orphan', 'default')) is not None) == wanted

    await until(lambda: adopted(True))
    await admin.patch(PODS, 'orphan', {'metadata': {'labels': {'app': 'other'}}}, 'default')
    await until(lambda: adopted(False))


@conformance('[sig-apps] ReplicationController should adopt matching pods on creation [Conformance]')
@conformance('[sig-apps] ReplicationController should release no longer matching pods [Conformance]')
async def test_a_replication_controller_adopts_and_releases(admin, agent, controllers, until):
    await controllers(*WORKLOADS)
    await admin.create(PODS, bare_pod('orphan', app='web'))
    await admin.create(REPLICATIONCONTROLLERS, controller(replicas=1))

    async def adopted(wanted: bool) -> bool:
        return (controller_of(await admin.get(PODS, 'orphan', 'default')) is not None) == wanted

    await until(lambda: adopted(True))
    await admin.patch(PODS, 'orphan', {'metadata': {'labels': {'app': 'other'}}}, 'default')
    await until(lambda: adopted(False))


@conformance('[sig-apps] ReplicationController should get and update a ReplicationController scale [Conformance]')
async def test_a_replication_controller_scales(admin, agent, controllers, until, field):
    await controllers(*WORKLOADS)
    await admin.create(REPLICATIONCONTROLLERS, controller(replicas=1))
    await until(field(REPLICATIONCONTROLLERS, 'status.availableReplicas', 1))
    await scale(admin, REPLICATIONCONTROLLERS, 2)
    await until(field(REPLICATIONCONTROLLERS, 'status.availableReplicas', 2))


@conformance('[sig-apps] Job should delete a job [Conformance]')
async def test_a_deleted_job_takes_its_pods(admin, agent, controllers, until, count, field):
    await controllers('job', 'gc')
    spec = {'parallelism': 2, 'completions': 4, 'template': template(restartPolicy='Never')}
    await admin.create(JOBS, {'metadata': {'name': 'web', 'namespace': 'default'}, 'spec': spec})
    await until(field(JOBS, 'status.active', 2))
    await admin.delete(JOBS, 'web', 'default', propagation='Foreground')
    await until(count(JOBS, 0))
    await until(count(PODS, 0))


@conformance('[sig-apps] CronJob should not schedule jobs when suspended [Slow] [Conformance]')
async def test_a_suspended_cron_job_starts_nothing(admin, controllers, until):
    await controllers('cronjob')
    job = {'spec': {'template': template(restartPolicy='Never')}}
    for name, suspend in (('asleep', True), ('awake', False)):
        spec = {'schedule': '@every 1s', 'suspend': suspend, 'jobTemplate': job}
        await admin.create(CRONJOBS, {'metadata': {'name': name, 'namespace': 'default'}, 'spec': spec})

    async def started() -> list[str]:
        return [controller_of(j)['name'] for j in (await admin.list(JOBS, 'default')).items]

    assert set(await until(started)) == {'awake'}


@conformance('[sig-apps] Daemon set [Serial] should run and stop simple daemon [Conformance]')
@conformance('[sig-apps] Daemon set [Serial] should retry creating failed daemon pods [Conformance]')
async def test_a_daemon_pod_that_goes_or_fails_comes_back(admin, agent, controllers, until, count, field):
    await agent.join('node-2')
    await controllers('daemonset', 'gc')
    await admin.create(DAEMONSETS, workload())
    await until(field(DAEMONSETS, 'status.numberAvailable', 2))
    first, second = sorted((await admin.list(PODS, 'default')).items, key=name_of)
    await admin.delete(PODS, name_of(first), 'default')
    await admin.patch(PODS, name_of(second), {'status': {'phase': 'Failed'}}, 'default', subresource='status')

    async def replaced() -> bool:
        names = {name_of(p) for p in (await admin.list(PODS, 'default')).items}
        return len(names) == 2 and not names & {name_of(first), name_of(second)}

    await until(replaced)
    await admin.delete(DAEMONSETS, 'web', 'default', propagation='Background')
    await until(count(PODS, 0))


@conformance('[sig-apps] ControllerRevision [Serial] should manage the lifecycle of a ControllerRevision [Conformance]')
async def test_a_deleted_revision_is_written_again(admin, agent, controllers, until, count):
    await controllers('daemonset', 'gc')
    await admin.create(DAEMONSETS, workload())
    await until(count(CONTROLLERREVISIONS, 1))
    (first,) = (await admin.list(CONTROLLERREVISIONS, 'default')).items
    await admin.delete(CONTROLLERREVISIONS, name_of(first), 'default')

    async def again() -> bool:
        found = (await admin.list(CONTROLLERREVISIONS, 'default')).items
        return bool(found) and found[0]['metadata']['uid'] != first['metadata']['uid']

    await until(again)


@conformance(
    '[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] Should recreate evicted statefulset [Conformance]'
)
@conformance(
    '[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should have a working scale subresource [Conformance]'
)
async def test_a_stateful_pod_that_failed_comes_back_and_the_set_scales(admin, agent, controllers, until, field):
    await controllers('statefulset')
    await admin.create(STATEFULSETS, workload(replicas=1, serviceName='web'))
    await until(field(STATEFULSETS, 'status.availableReplicas', 1))
    uid = (await admin.get(PODS, 'web-0', 'default'))['metadata']['uid']
    await admin.patch(PODS, 'web-0', {'status': {'phase': 'Failed'}}, 'default', subresource='status')

    async def recreated() -> bool:
        found = {name_of(p): p['metadata']['uid'] for p in (await admin.list(PODS, 'default')).items}
        return found.get('web-0', uid) != uid

    await until(recreated)
    await scale(admin, STATEFULSETS, 2)
    await until(field(STATEFULSETS, 'status.availableReplicas', 2))


@conformance(
    '[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] Burst scaling should run to completion even with unhealthy pods [Slow] [Conformance]'
)
async def test_a_parallel_set_does_not_wait_for_unhealthy_pods(admin, agent, controllers, until, count, field):
    await controllers('statefulset')
    agent.ready = False
    await admin.create(STATEFULSETS, workload(replicas=3, serviceName='web', podManagementPolicy='Parallel'))
    await until(count(PODS, 3))
    await admin.patch(STATEFULSETS, 'web', {'spec': {'replicas': 0}}, 'default')
    await until(count(PODS, 0))


@conformance(
    '[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] Scaling should happen in predictable order and halt if any stateful pod is unhealthy [Slow] [Conformance]'
)
async def test_an_ordered_set_halts_at_an_unhealthy_pod(admin, agent, controllers, until, count, field):
    runner = await controllers('statefulset')
    agent.ready = False
    await admin.create(STATEFULSETS, workload(replicas=3, serviceName='web'))
    await until(count(PODS, 1))
    await until(field(STATEFULSETS, 'status.replicas', 1))
    await until(lambda: runner.idle)
    assert [name_of(p) for p in (await admin.list(PODS, 'default')).items] == ['web-0']
    agent.ready = True
    agent.poke()
    await until(field(STATEFULSETS, 'status.availableReplicas', 3))


@conformance(
    '[sig-apps] DisruptionController should block an eviction until the PDB is updated to allow it [Conformance]'
)
async def test_an_eviction_waits_for_its_budget(admin, agent, controllers, until, field, monkeypatch):
    await controllers(*WORKLOADS, 'disruption')
    await admin.create(REPLICASETS, workload(replicas=2))
    await until(field(REPLICASETS, 'status.availableReplicas', 2))
    spec = {'minAvailable': 2, 'selector': {'matchLabels': {'app': 'web'}}}
    await admin.create(PODDISRUPTIONBUDGETS, {'metadata': {'name': 'web', 'namespace': 'default'}, 'spec': spec})
    await until(field(PODDISRUPTIONBUDGETS, 'status.currentHealthy', 2))
    name = name_of((await admin.list(PODS, 'default')).items[0])
    body = {'apiVersion': 'policy/v1', 'kind': 'Eviction', 'metadata': {'name': name, 'namespace': 'default'}}
    monkeypatch.setattr('kclient.transport.RETRIES_MAX', 0)
    with pytest.raises(TooManyRequests):
        await admin.create(PODS, body, subresource='eviction', name=name)
    await admin.patch(PODDISRUPTIONBUDGETS, 'web', {'spec': {'minAvailable': 1}}, 'default')
    await until(field(PODDISRUPTIONBUDGETS, 'status.disruptionsAllowed', 1))
    await admin.create(PODS, body, subresource='eviction', name=name)


@conformance(
    '[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a pod. [Conformance]'
)
@conformance(
    '[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a replica set. [Conformance]'
)
@conformance(
    '[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a replication controller. [Conformance]'
)
async def test_a_quota_follows_the_life_of_what_it_counts(admin, controllers, until, field):
    await controllers('resourcequota')
    hard = {'pods': '5', 'count/replicasets.apps': '5', 'replicationcontrollers': '5'}
    await admin.create(RESOURCEQUOTAS, {'metadata': {'name': 'web', 'namespace': 'default'}, 'spec': {'hard': hard}})
    await until(field(RESOURCEQUOTAS, 'status.used', dict.fromkeys(hard, '0')))
    await admin.create(PODS, bare_pod('p'))
    await admin.create(REPLICASETS, workload(replicas=0))
    await admin.create(REPLICATIONCONTROLLERS, controller(replicas=0))
    await until(field(RESOURCEQUOTAS, 'status.used', dict.fromkeys(hard, '1')))
    await admin.delete(PODS, 'p', 'default', grace_period_s=0)
    await admin.delete(REPLICASETS, 'web', 'default', propagation='Background')
    await admin.delete(REPLICATIONCONTROLLERS, 'web', 'default', propagation='Background')
    await until(field(RESOURCEQUOTAS, 'status.used', dict.fromkeys(hard, '0')))


@conformance(
    '[sig-api-machinery] Garbage collector should delete RS created by deployment when not orphaning [Conformance]'
)
@conformance(
    '[sig-api-machinery] Garbage collector should orphan RS created by deployment when deleteOptions.PropagationPolicy is Orphan [Conformance]'
)
@pytest.mark.parametrize(('policy', 'left'), [('Background', 0), ('Orphan', 1)])
async def test_replica_sets_go_with_their_deployment_or_stay(admin, agent, controllers, until, count, policy, left):
    await controllers(*WORKLOADS)
    await admin.create(DEPLOYMENTS, workload(replicas=1))
    await until(count(REPLICASETS, 1))
    await admin.delete(DEPLOYMENTS, 'web', 'default', propagation=policy)
    await until(count(DEPLOYMENTS, 0))
    await until(count(REPLICASETS, left))


@conformance('[sig-api-machinery] Garbage collector should not be blocked by dependency circle [Conformance]')
async def test_a_circle_of_owners_does_not_block(admin, agent, controllers, until, count):
    await controllers('gc')
    made = [await admin.create(PODS, bare_pod(f'pod{i}', app='circle')) for i in range(3)]
    for number, pod in enumerate(made):
        above = made[number - 1]['metadata']
        ref = {
            'apiVersion': 'v1',
            'kind': 'Pod',
            'name': above['name'],
            'uid': above['uid'],
            'blockOwnerDeletion': True,
        }
        await admin.patch(
            PODS, name_of(pod), {'metadata': {'ownerReferences': [{**ref, 'controller': True}]}}, 'default'
        )
    await admin.delete(PODS, 'pod0', 'default', propagation='Foreground')
    await until(count(PODS, 0))


@conformance(
    '[sig-api-machinery] Namespaces [Serial] should ensure that all pods are removed when a namespace is deleted [Conformance]'
)
async def test_a_deleted_namespace_takes_its_pods(admin, agent, controllers, until, exists):
    await controllers('namespace')
    await admin.create(NAMESPACES, {'metadata': {'name': 'team'}})
    pod = bare_pod('p')
    await admin.create(PODS, {**pod, 'metadata': {**pod['metadata'], 'namespace': 'team'}})
    await admin.delete(NAMESPACES, 'team')

    async def gone() -> bool:
        return await exists(admin, NAMESPACES, 'team') is None

    await until(gone)
    assert (await admin.list(PODS, 'team')).items == []
