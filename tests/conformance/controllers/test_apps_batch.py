"""Upstream's conformance tests of Jobs, CronJobs and disruption budgets, on the real API server.

Bodies are our own: what a test of upstream demands, said shorter. `scripts/conformance.py` counts the markers.
"""
# ruff: noqa: E501, PLR0917 — upstream's names are kept whole; fixtures are parameters

from __future__ import annotations

import pytest

from kcontrol.kinds import CRONJOBS, JOBS, PODDISRUPTIONBUDGETS
from kcore.meta.gvk import PODS
from kcore.meta.objects import controller_of, deleting, name_of
from tests.conformance.controllers.workloads import bare_pod, template, through_status, unversioned

conformance = pytest.mark.conformance


def job(**spec) -> dict:
    labels = {'life': 'yes'}
    return {
        'metadata': {'name': 'web', 'namespace': 'default', 'labels': labels},
        'spec': {'template': template(restartPolicy='Never'), **spec},
    }


def budget(name: str = 'web', **spec) -> dict:
    body = {'selector': {'matchLabels': {'app': 'web'}}, 'minAvailable': 1, **spec}
    return {'metadata': {'name': name, 'namespace': 'default', 'labels': {'life': 'yes'}}, 'spec': body}


@conformance('[sig-apps] CronJob should schedule multiple jobs concurrently [Conformance]')
@conformance('[sig-apps] CronJob should not schedule new jobs when ForbidConcurrent [Slow] [Conformance]')
@conformance('[sig-apps] CronJob should replace jobs when ReplaceConcurrent [Conformance]')
async def test_three_ways_to_treat_a_job_that_still_runs(admin, clock, controllers, until):
    await controllers('cronjob', 'gc')
    for policy in ('Allow', 'Forbid', 'Replace'):
        spec = {'schedule': '*/1 * * * *', 'concurrencyPolicy': policy, 'jobTemplate': {'spec': job()['spec']}}
        await admin.create(CRONJOBS, {'metadata': {'name': policy.lower(), 'namespace': 'default'}, 'spec': spec})
    started: dict[str, list[str]] = {'allow': [], 'forbid': [], 'replace': []}

    async def a_minute_later() -> None:
        """The controller's timers run on the machine's time: a change of the object has it looked at."""
        clock.ahead_s += 60
        for name in started:
            await admin.patch(CRONJOBS, name, {'metadata': {'annotations': {'at': str(clock.ahead_s)}}}, 'default')

    async def look() -> None:
        found = (await admin.list(JOBS, 'default')).items
        for name in started:
            started[name] = [name_of(j) for j in found if controller_of(j)['name'] == name and not deleting(j)]

    async def begun(allowed: int) -> bool:
        await look()
        return len(started['allow']) == allowed and all(started.values())

    await a_minute_later()
    await until(lambda: begun(1))
    first = dict(started)
    await a_minute_later()
    await until(lambda: begun(2))

    async def replaced() -> bool:
        await look()
        return len(started['replace']) == 1 and started['replace'] != first['replace']

    await until(replaced)
    assert started['forbid'] == first['forbid']
    active = (await admin.get(CRONJOBS, 'allow', 'default'))['status']['active']
    assert {a['name'] for a in active} == set(started['allow'])


@conformance('[sig-apps] Job should adopt matching orphans and release non-matching pods [Conformance]')
async def test_a_job_adopts_and_releases(admin, agent, controllers, until, field, count):
    await controllers('job', 'gc')
    await admin.create(JOBS, job(parallelism=1, completions=3))
    await until(field(JOBS, 'status.ready', 1))
    (pod,) = (await admin.list(PODS, 'default')).items
    await admin.patch(PODS, name_of(pod), {'metadata': {'ownerReferences': None}}, 'default')

    async def owned(wanted: bool) -> bool:
        return (controller_of(await admin.get(PODS, name_of(pod), 'default')) is not None) == wanted

    await until(lambda: owned(True))
    labels = dict.fromkeys(pod['metadata']['labels'])
    await admin.patch(PODS, name_of(pod), {'metadata': {'labels': labels}}, 'default')
    await until(lambda: owned(False))


@conformance('[sig-apps] Job should apply changes to a job status [Conformance]')
@conformance('[sig-apps] Job should manage the lifecycle of a job [Conformance]')
async def test_the_life_of_a_job(admin, agent, controllers, until, field, count):
    await controllers('job', 'gc')
    await admin.create(JOBS, job(parallelism=1, completions=3, suspend=True))

    async def suspended() -> bool:
        found = (await admin.get(JOBS, 'web', 'default')).get('status') or {}
        return [c['type'] for c in found.get('conditions', ())] == ['Suspended']

    await until(suspended)
    await admin.patch(JOBS, 'web', {'metadata': {'labels': {'patched': 'yes'}}}, 'default')
    patched = await admin.get(JOBS, 'web', 'default')
    patched['spec']['suspend'] = False
    await admin.update(JOBS, unversioned(patched))
    await until(field(JOBS, 'status.ready', 1))
    await through_status(admin, JOBS, await admin.get(JOBS, 'web', 'default'))
    found = (await admin.list(JOBS, label_selector='patched=yes')).items
    assert [name_of(j) for j in found] == ['web']
    await admin.delete_collection(JOBS, 'default', label_selector='patched=yes')
    await until(count(JOBS, 0))


@conformance('[sig-apps] DisruptionController should create a PodDisruptionBudget [Conformance]')
@conformance('[sig-apps] DisruptionController should observe PodDisruptionBudget status updated [Conformance]')
@conformance('[sig-apps] DisruptionController should update/patch PodDisruptionBudget status [Conformance]')
async def test_a_budget_is_made_changed_and_observed(admin, agent, controllers, until, field):
    await controllers('disruption')
    await admin.create(PODDISRUPTIONBUDGETS, budget())
    for name in ('a', 'b', 'c'):
        await admin.create(PODS, bare_pod(name, app='web'))
    await until(field(PODDISRUPTIONBUDGETS, 'status.currentHealthy', 3))
    await until(field(PODDISRUPTIONBUDGETS, 'status.disruptionsAllowed', 2))
    found = await admin.get(PODDISRUPTIONBUDGETS, 'web', 'default')
    await admin.update(PODDISRUPTIONBUDGETS, {**found, 'spec': {**found['spec'], 'minAvailable': 2}})
    await until(field(PODDISRUPTIONBUDGETS, 'status.disruptionsAllowed', 1))
    await admin.patch(PODDISRUPTIONBUDGETS, 'web', {'spec': {'minAvailable': 3}}, 'default')
    await until(field(PODDISRUPTIONBUDGETS, 'status.disruptionsAllowed', 0))
    disrupted = {'gone': '2026-01-02T03:04:05Z'}
    changed = await admin.get(PODDISRUPTIONBUDGETS, 'web', 'default', subresource='status')
    body = {**changed, 'status': {**changed['status'], 'disruptedPods': disrupted}}
    written = await admin.update(PODDISRUPTIONBUDGETS, body, subresource='status')
    assert written['status']['disruptedPods'] == disrupted
    patch = {'status': {'disruptedPods': None}}
    written = await admin.patch(PODDISRUPTIONBUDGETS, 'web', patch, 'default', subresource='status')
    assert not written['status'].get('disruptedPods')


@conformance(
    '[sig-apps] DisruptionController Listing PodDisruptionBudgets for all namespaces should list and delete a collection of PodDisruptionBudgets [Conformance]'
)
async def test_budgets_are_listed_everywhere_and_deleted_by_label(admin, until, count):
    for name in ('a', 'b', 'c'):
        await admin.create(PODDISRUPTIONBUDGETS, budget(name))
    assert len((await admin.list(PODDISRUPTIONBUDGETS, label_selector='life=yes')).items) == 3
    await admin.delete_collection(PODDISRUPTIONBUDGETS, 'default', label_selector='life=yes')
    await until(count(PODDISRUPTIONBUDGETS, 0))
