"""Rollouts while pods crash and the leading manager is killed: bounds hold, order holds, everything converges."""

from __future__ import annotations

import asyncio
import random

import pytest

from kclient.api import Client
from kclient.errors import ApiError
from kclient.informer import Informer
from kcontrol.controllers import CONTROLLERS
from kcontrol.kinds import STATEFULSETS
from kcontrol.runner import Runner
from kcore.meta.gvk import DEPLOYMENTS, PODS
from kcore.meta.objects import deleting, is_pod_ready, name_of

pytestmark = [pytest.mark.e2e, pytest.mark.parametrize('config_of', ['kapi'], indirect=True)]
CRASHES = 2


@pytest.fixture
async def leader(config_of, env, settings):
    """A manager's controllers that can be killed and started again, as the next leader would."""
    running: list[tuple[asyncio.Task, Client]] = []

    async def kill() -> None:
        while running:
            task, client = running.pop()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await client.close()

    async def start(*names: str) -> None:
        await kill()
        client = Client(config_of('manager'), env, user_agent='manager')
        chosen = [declared for declared in CONTROLLERS if declared.name in names]
        running.append((asyncio.ensure_future(Runner(client, env, settings(), chosen).run()), client))

    yield start
    await kill()


def spec(image: str, replicas: int, **more) -> dict:
    template = {'metadata': {'labels': {'app': 'web'}}, 'spec': {'containers': [{'name': 'c', 'image': image}]}}
    return {'replicas': replicas, 'selector': {'matchLabels': {'app': 'web'}}, 'template': template, **more}


async def crash_some(admin, agent, chance: random.Random) -> None:
    """Ready pods vanish, as if their processes and records were lost."""
    ready = [p for p in agent.pods.store.list() if is_pod_ready(p) and not deleting(p)]
    for pod in chance.sample(ready, min(CRASHES, len(ready))):
        try:
            await admin.delete(PODS, name_of(pod), 'default', grace_period_s=0)
        except ApiError:
            continue
        await asyncio.sleep(0.05)


@pytest.mark.timeout(300)
async def test_a_deployment_rolls_ten_times_under_fire(admin, agent, leader, until):
    names, chance, total = ('deployment', 'replicaset', 'gc'), random.Random(1), 20
    await leader(*names)
    await admin.create(DEPLOYMENTS, {'metadata': {'name': 'web', 'namespace': 'default'}, 'spec': spec('v0', total)})

    def done(image: str):
        async def ask() -> bool:
            d = await admin.get(DEPLOYMENTS, 'web', 'default')
            status = d.get('status') or {}
            fields = ('replicas', 'updatedReplicas', 'availableReplicas')
            whole = all(status.get(f) == total for f in fields)
            return whole and status['observedGeneration'] == d['metadata']['generation']

        return ask

    await until(done('v0'), 60)
    lowest, most = [total], [0]

    def watch_bounds(_old, _new) -> None:
        pods = [p for p in agent.pods.store.list() if not deleting(p)]
        lowest[0] = min(lowest[0], sum(map(is_pod_ready, pods)))
        most[0] = max(most[0], len(pods))

    agent.pods.on_change(watch_bounds)
    for roll in range(1, 11):
        lowest[0], most[0] = total, 0
        change = {'spec': {'template': spec(f'v{roll}', total)['template']}}
        await admin.patch(DEPLOYMENTS, 'web', change, 'default')
        await crash_some(admin, agent, chance)
        if roll % 3 == 0:
            await leader(*names)
        await until(done(f'v{roll}'), 60)
        assert lowest[0] >= total - 5 - CRASHES, 'never more missing than maxUnavailable and what crashed'
        assert most[0] <= total + 5, 'never above the surge'
    pods = [p for p in (await admin.list(PODS, 'default')).items if not deleting(p)]
    assert {p['spec']['containers'][0]['image'] for p in pods} == {'v10'}


@pytest.mark.timeout(300)
async def test_a_stateful_set_keeps_its_order_under_fire(admin, agent, leader, until, background):
    chance, total = random.Random(2), 5
    await leader('statefulset')
    made = {'metadata': {'name': 'web', 'namespace': 'default'}, 'spec': spec('v0', total, serviceName='web')}
    await admin.create(STATEFULSETS, made)

    async def settled() -> bool:
        s = await admin.get(STATEFULSETS, 'web', 'default')
        status = s.get('status') or {}
        fine = status.get('availableReplicas') == status.get('updatedReplicas') == total
        return fine and status['observedGeneration'] == s['metadata']['generation']

    await until(settled, 60)
    informer, touched = Informer(admin, PODS), []

    def note(old, new) -> None:
        if new is not None and deleting(new) and old is not None and not deleting(old):
            touched.append(int(name_of(new).rpartition('-')[2]))

    informer.on_change(note)
    background(informer.run())
    await informer.synced()
    for roll in range(1, 4):
        touched.clear()
        change = {'spec': {'template': spec(f'v{roll}', total)['template']}}
        await admin.patch(STATEFULSETS, 'web', change, 'default')
        if roll == 2:
            await leader('statefulset')
        if roll == 3:
            await crash_some(admin, agent, chance)

        async def rolled(image: str = f'v{roll}') -> bool:
            pods = (await admin.list(PODS, 'default')).items
            return await settled() and {p['spec']['containers'][0]['image'] for p in pods} == {image}

        await until(rolled, 60)
        assert touched == sorted(touched, reverse=True), 'from the highest ordinal down'
        assert roll == 3 or touched == [4, 3, 2, 1, 0]
