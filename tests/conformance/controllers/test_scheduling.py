"""Upstream's conformance tests of the scheduler, on the real API server with two pretended nodes.

Bodies are our own: what a test of upstream demands, said shorter. `scripts/conformance.py` counts the markers.
"""
# ruff: noqa: E501, PLR0917 — upstream's names are kept whole; fixtures are parameters

from __future__ import annotations

import pytest

from kclient.api import Client
from kcontrol.scheduler.cycle import run_scheduler
from kcore.meta.gvk import EVENTS, NODES, PODS, REPLICASETS, Resource
from kcore.meta.objects import condition_is, deleting, get_condition, name_of
from tests.conformance.controllers.workloads import bare_pod, workload

conformance = pytest.mark.conformance
PRIORITYCLASSES = Resource('scheduling.k8s.io', 'v1', 'priorityclasses', 'PriorityClass', namespaced=False)
THING = 'example.com/thing'
NODE_NAMES = ('node-1', 'node-2')


@pytest.fixture
async def scheduler(admin, agent, config_of, env, background):
    """The scheduler at work on two nodes that hold ten things each."""
    agent.binds = False
    await agent.join('node-2')
    for name in NODE_NAMES:
        amounts = {'cpu': '8', 'memory': '8Gi', 'pods': '110', THING: '10'}
        await admin.patch(NODES, name, {'metadata': {'labels': {'kubernetes.io/hostname': name}}})
        await admin.patch(NODES, name, {'status': {'allocatable': amounts, 'capacity': amounts}}, subresource='status')
    async with Client(config_of('scheduler'), env, user_agent='scheduler') as client:
        background(run_scheduler(client, env))
        yield


def wanting(name: str, things: int = 0, namespace: str = 'default', **spec) -> dict:
    pod = bare_pod(name, app=name)
    amounts = {THING: str(things)}
    container = {
        **pod['spec']['containers'][0],
        **({'resources': {'requests': amounts, 'limits': amounts}} if things else {}),
    }
    return {'metadata': {**pod['metadata'], 'namespace': namespace}, 'spec': {'containers': [container], **spec}}


@pytest.fixture
def bound(admin):
    def ask(name: str, node: str = '', namespace: str = 'default'):
        async def there() -> bool:
            found = (await admin.get(PODS, name, namespace))['spec'].get('nodeName')
            return bool(found) and (not node or found == node)

        return there

    return ask


@pytest.fixture
def refused(admin):
    """Wait for the reason why a pod has no node."""

    def ask(name: str):
        async def said() -> str:
            pod = await admin.get(PODS, name, 'default')
            assert not pod['spec'].get('nodeName')
            found = get_condition(pod, 'PodScheduled') or {}
            return found.get('message') if found.get('reason') == 'Unschedulable' else ''

        return said

    return ask


@conformance(
    '[sig-scheduling] SchedulerPredicates [Serial] validates resource limits of pods that are allowed to run [Conformance]'
)
async def test_a_pod_waits_where_its_requests_do_not_fit(admin, scheduler, until, bound, refused):
    for number in range(2):
        await admin.create(PODS, wanting(f'filler-{number}', 7))
        await until(bound(f'filler-{number}'))
    await admin.create(PODS, wanting('extra', 5))
    message = await until(refused('extra'))
    assert message.startswith(f'0/2 nodes are available: 2 Insufficient {THING}.')

    async def told() -> bool:
        found = (await admin.list(EVENTS, 'default')).items
        return any(e['reason'] == 'FailedScheduling' and e['message'].startswith(message[:40]) for e in found)

    await until(told)
    await admin.delete(PODS, 'filler-0', 'default')
    await until(bound('extra'))


@conformance(
    '[sig-scheduling] SchedulerPredicates [Serial] validates that NodeSelector is respected if matching [Conformance]'
)
@conformance(
    '[sig-scheduling] SchedulerPredicates [Serial] validates that NodeSelector is respected if not matching [Conformance]'
)
async def test_a_pod_waits_for_a_node_that_it_selects(admin, scheduler, until, bound, refused):
    await admin.create(PODS, wanting('choosy', nodeSelector={'label': 'nonempty'}))
    message = await until(refused('choosy'))
    assert message.startswith("0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.")
    await admin.patch(NODES, 'node-2', {'metadata': {'labels': {'label': 'nonempty'}}})
    await until(bound('choosy', 'node-2'))


@conformance(
    '[sig-scheduling] SchedulerPredicates [Serial] validates that there exists conflict between pods with same hostPort and protocol but one using 0.0.0.0 hostIP [Conformance]'
)
async def test_a_port_of_all_addresses_collides_with_one_of_a_single_address(admin, scheduler, until, bound, refused):
    def on_port(name: str, **port) -> dict:
        pod = wanting(name, nodeSelector={'kubernetes.io/hostname': 'node-1'})
        pod['spec']['containers'][0]['ports'] = [{'containerPort': 80, 'hostPort': 54322, **port}]
        return pod

    await admin.create(PODS, on_port('any', hostIP=''))
    await until(bound('any', 'node-1'))
    await admin.create(PODS, on_port('one', hostIP='127.0.0.1'))
    assert "1 node(s) didn't have free ports for the requested pod ports" in await until(refused('one'))
    await admin.create(PODS, on_port('other', hostIP='127.0.0.1', protocol='UDP'))
    await until(bound('other', 'node-1'))


@conformance('[sig-scheduling] SchedulerPreemption [Serial] validates basic preemption works [Conformance]')
@conformance(
    '[sig-scheduling] SchedulerPreemption [Serial] validates lower priority pod preemption by critical pod [Conformance]'
)
@conformance(
    '[sig-scheduling] SchedulerPreemption [Serial] validates pod disruption condition is added to the preempted pod [Conformance]'
)
@pytest.mark.parametrize('critical', [False, True])
async def test_the_least_important_pod_makes_room(admin, agent, scheduler, until, bound, critical):
    for name, value in (('low', 1), ('medium', 100), ('high', 1000)):
        await admin.create(PRIORITYCLASSES, {'metadata': {'name': name}, 'value': value})
    await admin.create(PODS, wanting('least', 6, priorityClassName='low'))
    await until(bound('least'))
    await admin.patch(PODS, 'least', {'metadata': {'finalizers': ['example.com/test-finalizer']}}, 'default')
    await admin.create(PODS, wanting('more', 6, priorityClassName='medium'))
    await until(bound('more'))
    namespace, name = ('kube-system', 'system-cluster-critical') if critical else ('default', 'high')
    await admin.create(PODS, wanting('preemptor', 6, namespace, priorityClassName=name))

    async def preempted() -> bool:
        return deleting(await admin.get(PODS, 'least', 'default'))

    await until(preempted)
    victim = await admin.get(PODS, 'least', 'default')
    assert condition_is(victim, 'DisruptionTarget', 'True')
    assert get_condition(victim, 'DisruptionTarget')['reason'] == 'PreemptionByScheduler'
    waiting = await admin.get(PODS, 'preemptor', namespace)
    assert waiting['status']['nominatedNodeName'] == victim['spec']['nodeName']
    await admin.patch(PODS, 'least', {'metadata': {'finalizers': None}}, 'default')
    await until(bound('preemptor', victim['spec']['nodeName'], namespace))
    assert not deleting(await admin.get(PODS, 'more', 'default'))


@conformance(
    '[sig-scheduling] SchedulerPreemption [Serial] PreemptionExecutionPath runs ReplicaSets to verify preemption running path [Conformance]'
)
async def test_replica_sets_are_preempted_from_the_lowest_priority_up(
    admin, agent, scheduler, controllers, until, field
):
    await controllers('replicaset')
    await admin.patch(NODES, 'node-2', {'spec': {'unschedulable': True}})
    for number, things in ((1, 2), (2, 3), (3, 4), (4, 5)):
        await admin.create(PRIORITYCLASSES, {'metadata': {'name': f'p{number}'}, 'value': number})
        labels = {'app': f'rs{number}'}
        template = {
            'metadata': {'labels': labels},
            'spec': wanting('x', things, priorityClassName=f'p{number}')['spec'],
        }
        made = workload(f'rs{number}', replicas=1, selector={'matchLabels': labels}, template=template)
        await admin.create(REPLICASETS, made)
        await until(field(REPLICASETS, 'status.availableReplicas', 1, f'rs{number}'))

    async def placed() -> bool:
        found = (await admin.list(PODS, 'default')).items
        on_node = sorted(name_of(p)[:3] for p in found if p['spec'].get('nodeName') and not deleting(p))
        waiting = sorted(name_of(p)[:3] for p in found if not p['spec'].get('nodeName'))
        return (on_node, waiting) == (['rs3', 'rs4'], ['rs1', 'rs2'])

    await until(placed)

    async def told() -> bool:
        found = (await admin.list(EVENTS, 'default')).items
        return sorted({e['involvedObject']['name'][:3] for e in found if e['reason'] == 'Preempted'}) == ['rs1', 'rs2']

    await until(told)
