"""Deployments and ReplicaSets end to end: controllers on an API, with a pretended node agent."""

from __future__ import annotations

import pytest

from kcontrol.controller import Controller
from kcore.meta.gvk import DEPLOYMENTS, EVENTS, PODS, REPLICASETS
from kcore.meta.objects import deleting

NAMES = ('deployment', 'replicaset', 'gc')


def deployment(replicas: int = 3, image: str = 'one', **spec) -> dict:
    return {
        'metadata': {'name': 'web', 'namespace': 'default'},
        'spec': {
            'replicas': replicas,
            'selector': {'matchLabels': {'app': 'web'}},
            'strategy': {'type': 'RollingUpdate', 'rollingUpdate': {'maxSurge': 1, 'maxUnavailable': 1}},
            'revisionHistoryLimit': 10,
            'progressDeadlineSeconds': 600,
            'template': {
                'metadata': {'labels': {'app': 'web'}},
                'spec': {'containers': [{'name': 'c', 'image': image}]},
            },
            **spec,
        },
    }


def image(name: str) -> dict:
    return {'spec': {'template': {'spec': {'containers': [{'name': 'c', 'image': name}]}}}}


@pytest.fixture
def done(admin):
    async def ask(image: str, replicas: int):
        d = await admin.get(DEPLOYMENTS, 'web', 'default')
        status = d.get('status') or {}
        if d['spec']['template']['spec']['containers'][0]['image'] != image:
            return None
        if status.get('observedGeneration') != d['metadata'].get('generation'):
            return None
        fields = ('replicas', 'updatedReplicas', 'availableReplicas')
        return d if all((status.get(f) or 0) == replicas for f in fields) else None

    return ask


async def test_a_deployment_rolls_to_a_new_template_and_back(admin, agent, controllers, until, done):
    await controllers(*NAMES)
    await admin.create(DEPLOYMENTS, deployment())
    first = await until(lambda: done('one', 3))
    assert first['metadata']['annotations']['deployment.kubernetes.io/revision'] == '1'
    await admin.patch(DEPLOYMENTS, 'web', image('two'), 'default')
    second = await until(lambda: done('two', 3))
    assert second['metadata']['annotations']['deployment.kubernetes.io/revision'] == '2'
    sets = (await admin.list(REPLICASETS, 'default')).items
    assert sorted(rs['spec']['replicas'] for rs in sets) == [0, 3]
    await admin.patch(DEPLOYMENTS, 'web', image('one'), 'default')
    third = await until(lambda: done('one', 3))
    assert third['metadata']['annotations']['deployment.kubernetes.io/revision'] == '3'
    sets = (await admin.list(REPLICASETS, 'default')).items
    assert len(sets) == 2, 'a roll back uses the old ReplicaSet'
    current = next(rs for rs in sets if rs['spec']['replicas'])
    assert current['metadata']['annotations']['deployment.kubernetes.io/revision-history'] == '1'

    async def conditions() -> bool:
        d = await admin.get(DEPLOYMENTS, 'web', 'default')
        held = {c['type']: (c['status'], c['reason']) for c in d['status']['conditions']}
        return held == {
            'Available': ('True', 'MinimumReplicasAvailable'),
            'Progressing': ('True', 'NewReplicaSetAvailable'),
        }

    await until(conditions)


async def test_scaling_and_self_healing(admin, agent, controllers, until, done):
    await controllers(*NAMES)
    await admin.create(DEPLOYMENTS, deployment(2))
    await until(lambda: done('one', 2))
    await admin.patch(DEPLOYMENTS, 'web', {'spec': {'replicas': 7}}, 'default')
    await until(lambda: done('one', 7))
    victim = (await admin.list(PODS, 'default')).items[0]
    await admin.delete(PODS, victim['metadata']['name'], 'default', grace_period_s=0)

    async def healed() -> bool:
        pods = (await admin.list(PODS, 'default')).items
        names = {p['metadata']['name'] for p in pods if not deleting(p)}
        return len(names) == 7 and victim['metadata']['name'] not in names

    await until(healed)
    await admin.patch(DEPLOYMENTS, 'web', {'spec': {'replicas': 1}}, 'default')
    await until(lambda: done('one', 1))

    async def reasons() -> bool:
        found = {e['reason'] for e in (await admin.list(EVENTS, 'default')).items}
        return found >= {'ScalingReplicaSet', 'SuccessfulCreate', 'SuccessfulDelete'}

    await until(reasons)


async def test_recreate_waits_for_the_old_pods_to_end(admin, agent, controllers, until, done):
    await controllers(*NAMES)
    await admin.create(DEPLOYMENTS, deployment(2, strategy={'type': 'Recreate'}))
    await until(lambda: done('one', 2))
    agent.alive = False  # deleted pods stay, terminating
    await admin.patch(DEPLOYMENTS, 'web', image('two'), 'default')

    async def ending() -> bool:
        return all(deleting(p) for p in (await admin.list(PODS, 'default')).items)

    await until(ending)
    images = {p['spec']['containers'][0]['image'] for p in (await admin.list(PODS, 'default')).items}
    assert images == {'one'}
    agent.alive = True
    agent.poke()
    await until(lambda: done('two', 2))


async def test_a_paused_deployment_keeps_its_template_until_resumed(admin, agent, controllers, until, done):
    await controllers(*NAMES)
    await admin.create(DEPLOYMENTS, deployment(2))
    await until(lambda: done('one', 2))
    await admin.patch(DEPLOYMENTS, 'web', {'spec': {'paused': True}}, 'default')
    await admin.patch(DEPLOYMENTS, 'web', {**image('two'), 'metadata': {'annotations': {'x': 'y'}}}, 'default')
    await admin.patch(DEPLOYMENTS, 'web', {'spec': {'replicas': 4}}, 'default')

    async def grown() -> bool:
        pods = [p for p in (await admin.list(PODS, 'default')).items if not deleting(p)]
        return len(pods) == 4 and {p['spec']['containers'][0]['image'] for p in pods} == {'one'}

    await until(grown)
    await admin.patch(DEPLOYMENTS, 'web', {'spec': {'paused': False}}, 'default')
    await until(lambda: done('two', 4))


async def test_deleting_a_deployment_takes_everything_with_it(admin, agent, controllers, until, done):
    await controllers(*NAMES)
    await admin.create(DEPLOYMENTS, deployment(2))
    await until(lambda: done('one', 2))
    await admin.delete(DEPLOYMENTS, 'web', 'default', propagation='Background')

    async def nothing_left() -> bool:
        return not (await admin.list(REPLICASETS, 'default')).items and not (await admin.list(PODS, 'default')).items

    await until(nothing_left)


async def test_a_foreground_deletion_ends_from_the_leaves(admin, agent, controllers, until, done):
    await controllers(*NAMES)
    await admin.create(DEPLOYMENTS, deployment(2))
    await until(lambda: done('one', 2))
    agent.alive = False  # pods end only when the agent says so
    await admin.delete(DEPLOYMENTS, 'web', 'default', propagation='Foreground')

    async def sets_go() -> bool:
        return all(deleting(p) for p in (await admin.list(PODS, 'default')).items)

    await until(sets_go)
    assert len((await admin.list(DEPLOYMENTS, 'default')).items) == 1
    assert len((await admin.list(REPLICASETS, 'default')).items) == 1
    agent.alive = True
    agent.poke()

    async def gone() -> bool:
        return not (await admin.list(DEPLOYMENTS, 'default')).items

    await until(gone)


async def test_an_orphaning_deletion_leaves_the_dependents(admin, agent, controllers, until, done):
    await controllers(*NAMES)
    await admin.create(DEPLOYMENTS, deployment(2))
    await until(lambda: done('one', 2))
    await admin.delete(DEPLOYMENTS, 'web', 'default', propagation='Orphan')

    async def orphaned() -> bool:
        sets = (await admin.list(REPLICASETS, 'default')).items
        gone = not (await admin.list(DEPLOYMENTS, 'default')).items
        return gone and len(sets) == 1 and not sets[0]['metadata'].get('ownerReferences')

    await until(orphaned)
    assert len((await admin.list(PODS, 'default')).items) == 2


async def test_a_matching_orphan_is_adopted_and_a_relabelled_pod_released(admin, agent, controllers, until):
    await controllers(*NAMES)
    orphan = {
        'metadata': {'name': 'orphan', 'namespace': 'default', 'labels': {'app': 'web'}},
        'spec': {'containers': [{'name': 'c', 'image': 'one'}]},
    }
    await admin.create(PODS, orphan)
    spec = deployment(2)['spec']
    rs = {'metadata': {'name': 'web', 'namespace': 'default'},
          'spec': {k: spec[k] for k in ('replicas', 'selector', 'template')}}  # fmt: skip
    await admin.create(REPLICASETS, rs)

    async def adopted() -> bool:
        pods = (await admin.list(PODS, 'default')).items
        return len(pods) == 2 and all(p['metadata'].get('ownerReferences') for p in pods)

    await until(adopted)
    await admin.patch(PODS, 'orphan', {'metadata': {'labels': {'app': 'other'}}}, 'default')

    async def released() -> bool:
        pods = {p['metadata']['name']: p for p in (await admin.list(PODS, 'default')).items}
        return len(pods) == 3 and not pods['orphan']['metadata'].get('ownerReferences')

    await until(released)


async def test_an_owner_that_never_existed_takes_its_dependent_along(admin, controllers, until, exists):
    await controllers('gc')
    ref = {'apiVersion': 'apps/v1', 'kind': 'ReplicaSet', 'name': 'ghost', 'uid': 'no-such-uid'}
    pod = {
        'metadata': {'name': 'lost', 'namespace': 'default', 'ownerReferences': [ref]},
        'spec': {'containers': [{'name': 'c', 'image': 'one'}]},
    }
    await admin.create(PODS, pod)

    async def collected() -> bool:
        return await exists(admin, PODS, 'lost', 'default') is None

    await until(collected)


@pytest.mark.parametrize('config_of', ['fake'], indirect=True)
@pytest.mark.usefixtures('agent')
async def test_writes_settle_to_zero(admin, controllers, until, done, fake):
    runner = await controllers()
    await admin.create(DEPLOYMENTS, deployment(3))
    await until(lambda: done('one', 3))
    await until(lambda: runner.idle)
    before = None
    while before != (before := (fake.revision, sum(fake.writes.values()))):
        await until(lambda: runner.idle)
    # Waking every controller for every object must write nothing.
    for declared, ctx in runner._running:
        if isinstance(declared, Controller):
            for key in ctx.informer(declared.primary).store:
                ctx.queue.add(key)
    await until(lambda: runner.idle)
    assert (fake.revision, sum(fake.writes.values())) == before
