"""DaemonSets, StatefulSets, CronJobs, budgets and quotas end to end, on the real API with a pretended node agent."""

from __future__ import annotations

import pytest

from kcontrol.kinds import (
    CONTROLLERREVISIONS,
    CRONJOBS,
    DAEMONSETS,
    JOBS,
    PODDISRUPTIONBUDGETS,
    RESOURCEQUOTAS,
    STATEFULSETS,
)
from kcore.meta.gvk import CONFIGMAPS, DEPLOYMENTS, NODES, PERSISTENTVOLUMECLAIMS, PODS
from kcore.meta.objects import condition_is, deleting, get_condition, name_of

pytestmark = pytest.mark.parametrize('config_of', ['kapi'], indirect=True)


def template(image: str = 'one') -> dict:
    return {'metadata': {'labels': {'app': 'web'}}, 'spec': {'containers': [{'name': 'c', 'image': image}]}}


def workload(kind: str, **spec) -> dict:
    base = {'selector': {'matchLabels': {'app': 'web'}}, 'template': template()}
    return {'apiVersion': 'apps/v1', 'kind': kind, 'metadata': {'name': 'web', 'namespace': 'default'},
            'spec': {**base, **spec}}  # fmt: skip


@pytest.fixture
def pods(admin):
    async def ask(selector: str = 'app=web') -> list[dict]:
        found = (await admin.list(PODS, 'default', label_selector=selector)).items
        return sorted((p for p in found if not deleting(p)), key=name_of)

    return ask


def image_of(pod: dict) -> str:
    return pod['spec']['containers'][0]['image']


async def test_a_daemon_runs_on_every_fit_node_and_rolls_over(admin, agent, controllers, until, pods):
    await agent.join('node-2', 'node-3')
    taint = {'key': 'only', 'value': 'x', 'effect': 'NoSchedule'}
    await admin.patch(NODES, 'node-3', {'spec': {'taints': [taint]}})
    await controllers('daemonset')
    await admin.create(DAEMONSETS, workload('DaemonSet'))

    def status(image: str, count: int):
        async def ask():
            ds = await admin.get(DAEMONSETS, 'web', 'default')
            found = ds.get('status') or {}
            figures = [
                found.get(k) or 0 for k in ('desiredNumberScheduled', 'updatedNumberScheduled', 'numberAvailable')
            ]
            return figures == [count] * 3 and {image_of(p) for p in await pods()} == {image}

        return ask

    await until(status('one', 2))
    assert {p['spec']['nodeName'] for p in await pods()} == {'node-1', 'node-2'}
    await admin.patch(NODES, 'node-3', {'spec': {'taints': None, 'unschedulable': True}})
    await until(status('one', 3))
    await admin.patch(DAEMONSETS, 'web', {'spec': {'template': template('two')}}, 'default')
    await until(status('two', 3))
    revisions = (await admin.list(CONTROLLERREVISIONS, 'default')).items
    assert sorted(r['revision'] for r in revisions) == [1, 2]
    await admin.patch(DAEMONSETS, 'web', {'spec': {'template': template('one')}}, 'default')
    await until(status('one', 3))
    revisions = (await admin.list(CONTROLLERREVISIONS, 'default')).items
    assert sorted(r['revision'] for r in revisions) == [2, 3], 'a template that comes back takes up its revision'


async def test_a_stateful_set_keeps_order_names_and_claims(admin, agent, controllers, until, pods):
    await controllers('statefulset', 'gc')
    claim = {'metadata': {'name': 'data'}, 'spec': {
        'accessModes': ['ReadWriteOnce'], 'resources': {'requests': {'storage': '1Gi'}}}}  # fmt: skip
    policy = {'whenDeleted': 'Delete', 'whenScaled': 'Delete'}
    await admin.create(STATEFULSETS, workload(
        'StatefulSet', replicas=3, serviceName='web', volumeClaimTemplates=[claim],
        persistentVolumeClaimRetentionPolicy=policy, revisionHistoryLimit=1,
    ))  # fmt: skip

    def names(*wanted: str):
        async def ask() -> bool:
            status = (await admin.get(STATEFULSETS, 'web', 'default')).get('status') or {}
            return [name_of(p) for p in await pods()] == [*wanted] and status.get('availableReplicas') == len(wanted)

        return ask

    await until(names('web-0', 'web-1', 'web-2'))
    made = sorted(await pods(), key=lambda p: int(p['metadata']['resourceVersion']))
    first = (await pods())[0]
    assert first['spec']['hostname'] == 'web-0'
    assert first['spec']['subdomain'] == 'web'
    assert first['spec']['volumes'][0]['persistentVolumeClaim']['claimName'] == 'data-web-0'
    assert len({p['metadata']['uid'] for p in made}) == 3
    await admin.patch(STATEFULSETS, 'web', {'spec': {'updateStrategy': {'rollingUpdate': {'partition': 1}}}}, 'default')
    await admin.patch(STATEFULSETS, 'web', {'spec': {'template': template('two')}}, 'default')

    async def partly() -> bool:
        status = (await admin.get(STATEFULSETS, 'web', 'default'))['status']
        return [image_of(p) for p in await pods()] == ['one', 'two', 'two'] and status['updatedReplicas'] == 2

    await until(partly)
    await admin.patch(STATEFULSETS, 'web', {'spec': {'updateStrategy': {'rollingUpdate': {'partition': 0}}}}, 'default')

    async def wholly() -> bool:
        status = (await admin.get(STATEFULSETS, 'web', 'default'))['status']
        return status['currentRevision'] == status['updateRevision'] and status.get('currentReplicas') == 3

    await until(wholly)
    await admin.patch(STATEFULSETS, 'web', {'spec': {'replicas': 1}}, 'default')
    await until(names('web-0'))

    async def claims() -> bool:
        return [name_of(p) for p in (await admin.list(PERSISTENTVOLUMECLAIMS, 'default')).items] == ['data-web-0']

    await until(claims)
    held = (await admin.get(PERSISTENTVOLUMECLAIMS, 'data-web-0', 'default'))['metadata']['ownerReferences']
    assert [r['kind'] for r in held] == ['StatefulSet']


async def test_a_cron_job_starts_its_job_and_remembers_it(admin, controllers, until):
    await controllers('cronjob')
    spec = {'schedule': '@every 1s', 'concurrencyPolicy': 'Forbid', 'jobTemplate': {'spec': {
        'template': {'spec': {'restartPolicy': 'Never', 'containers': [{'name': 'c', 'image': 'x'}]}}}}}  # fmt: skip
    await admin.create(CRONJOBS, {'metadata': {'name': 'tick', 'namespace': 'default'}, 'spec': spec})

    async def active():
        return (await admin.get(CRONJOBS, 'tick', 'default')).get('status', {}).get('active')

    first = await until(active)
    await admin.patch(CRONJOBS, 'tick', {'spec': {'suspend': True}}, 'default')
    jobs = (await admin.list(JOBS, 'default')).items
    assert [name_of(j) for j in jobs] == [first[0]['name']]
    done = {'type': 'Complete', 'status': 'True', 'lastTransitionTime': '2026-01-02T03:04:05Z'}
    met = {**done, 'type': 'SuccessCriteriaMet'}
    status = {'conditions': [met, done], 'startTime': '2026-01-02T03:04:00Z', 'completionTime': '2026-01-02T03:04:05Z'}
    await admin.patch(JOBS, first[0]['name'], {'status': status}, 'default', subresource='status')

    async def over() -> bool:
        found = (await admin.get(CRONJOBS, 'tick', 'default'))['status']
        return not found.get('active') and found.get('lastSuccessfulTime') == '2026-01-02T03:04:05Z'

    await until(over)


async def test_a_budget_follows_its_pods_and_an_eviction_takes_from_it(admin, agent, controllers, until, pods):
    await controllers('disruption', 'deployment', 'replicaset')
    await admin.create(DEPLOYMENTS, workload('Deployment', replicas=3))
    budget = {'minAvailable': '60%', 'selector': {'matchLabels': {'app': 'web'}}}
    await admin.create(PODDISRUPTIONBUDGETS, {'metadata': {'name': 'b', 'namespace': 'default'}, 'spec': budget})

    async def allowed():
        status = (await admin.get(PODDISRUPTIONBUDGETS, 'b', 'default')).get('status') or {}
        return status if status.get('disruptionsAllowed') == 1 else None

    status = await until(allowed)
    assert (status['expectedPods'], status['desiredHealthy'], status['currentHealthy']) == (3, 2, 3)
    agent.ready = False
    victim = (await pods())[0]
    eviction = {'apiVersion': 'policy/v1', 'kind': 'Eviction',
                'metadata': {'name': name_of(victim), 'namespace': 'default'}}  # fmt: skip
    await admin.create(PODS, eviction, subresource='eviction')

    async def spent() -> bool:
        b = await admin.get(PODDISRUPTIONBUDGETS, 'b', 'default')
        return b['status']['disruptionsAllowed'] == 0 and b['status']['currentHealthy'] == 2 and condition_is(
            b, 'DisruptionAllowed', 'False'
        )  # fmt: skip

    await until(spent)
    assert get_condition(await admin.get(PODDISRUPTIONBUDGETS, 'b', 'default'), 'DisruptionAllowed')['reason'] == (
        'InsufficientPods'
    )


async def test_a_quota_counts_what_is_there(admin, controllers, until):
    await controllers('resourcequota')
    hard = {
        'pods': '4',
        'requests.cpu': '2',
        'requests.memory': '1Gi',
        'count/configmaps': '9',
        'services.nodeports': '1',
    }
    quota = {'metadata': {'name': 'q', 'namespace': 'default'}, 'spec': {'hard': hard}}
    await admin.create(RESOURCEQUOTAS, quota)

    def used(**wanted: str):
        async def ask() -> bool:
            status = (await admin.get(RESOURCEQUOTAS, 'q', 'default')).get('status') or {}
            return wanted.items() <= status.get('used', {}).items() and status.get('hard') == hard

        return ask

    await until(used(pods='0', **{'requests.cpu': '0'}))
    asked = {'requests': {'cpu': '300m', 'memory': '64Mi'}}
    for name in ('a', 'b'):
        spec = {'containers': [{'name': 'c', 'image': 'x', 'resources': asked}]}
        await admin.create(PODS, {'metadata': {'name': name, 'namespace': 'default'}, 'spec': spec})
    await admin.create(CONFIGMAPS, {'metadata': {'name': 'm', 'namespace': 'default'}})
    await until(used(pods='2', **{'requests.cpu': '600m', 'requests.memory': '128Mi', 'count/configmaps': '1'}))
    await admin.delete(PODS, 'a', 'default', grace_period_s=0)
    await until(used(pods='1', **{'requests.cpu': '300m', 'requests.memory': '64Mi'}))
