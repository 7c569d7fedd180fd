"""Upstream's conformance tests of pods and RuntimeClasses that need no process of their own.

Bodies are our own: what a test of upstream demands, said shorter. `scripts/conformance.py` counts the markers.
"""
# ruff: noqa: E501 — upstream's names are kept whole

from __future__ import annotations

import pytest

from kclient.errors import Forbidden
from kcore.meta.gvk import PODS, RUNTIMECLASSES
from kcore.meta.objects import get_condition, name_of
from tests.conformance.controllers.workloads import bare_pod, unversioned

conformance = pytest.mark.conformance


@conformance('[sig-node] Pods should be updated [NodeConformance] [Conformance]')
async def test_a_running_pod_takes_new_labels(admin, agent, until, field, pods):
    await admin.create(PODS, bare_pod('p', app='web', time='1'))
    await until(field(PODS, 'status.phase', 'Running', 'p'))
    found = await admin.get(PODS, 'p', 'default')
    found['metadata']['labels']['time'] = 'value1'
    await admin.update(PODS, found)
    assert [name_of(p) for p in await pods(time='value1')] == ['p']
    assert (await admin.get(PODS, 'p', 'default'))['status']['phase'] == 'Running'


@conformance('[sig-node] Pods should delete a collection of pods [Conformance]')
async def test_pods_are_deleted_by_label(admin, agent, until, count, field):
    for number in range(3):
        await admin.create(PODS, bare_pod(f'p{number}', type='Testing'))
    await admin.create(PODS, bare_pod('other'))
    await until(field(PODS, 'status.phase', 'Running', 'p2'))
    await admin.delete_collection(PODS, 'default', label_selector='type=Testing')

    async def left() -> list[str]:
        return [name_of(p) for p in (await admin.list(PODS, 'default')).items] == ['other']

    await until(left)


@conformance('[sig-node] Pods should patch a pod status [Conformance]')
async def test_the_status_of_a_pod_is_patched(admin, agent, until, field):
    await admin.create(PODS, bare_pod('p'))
    await until(field(PODS, 'status.phase', 'Running', 'p'))
    reason = {'message': 'Patched by e2e test', 'reason': 'E2E'}
    written = await admin.patch(PODS, 'p', {'status': reason}, 'default', subresource='status')
    assert reason.items() <= written['status'].items()
    assert written['status']['phase'] == 'Running'


@conformance('[sig-node] Pods should run through the lifecycle of Pods and PodStatus [Conformance]')
async def test_the_life_of_a_pod_and_its_status(admin, agent, until, field, exists):
    await admin.create(PODS, bare_pod('p', static='yes'))
    await until(field(PODS, 'status.phase', 'Running', 'p'))
    image = {'spec': {'containers': [{'name': 'c', 'image': 'other'}]}, 'metadata': {'labels': {'patched': 'yes'}}}
    patched = await admin.patch(PODS, 'p', image, 'default', kind='strategic')
    assert patched['spec']['containers'][0]['image'] == 'other'
    held = unversioned(await admin.get(PODS, 'p', 'default', subresource='status'))
    conditions = [{**c, 'status': 'False'} if c['type'] == 'Ready' else c for c in held['status']['conditions']]
    body = {**held, 'status': {**held['status'], 'conditions': conditions}}
    written = await admin.update(PODS, body, subresource='status')
    assert get_condition(written, 'Ready')['status'] == 'False'
    assert [name_of(p) for p in (await admin.list(PODS, label_selector='patched=yes')).items] == ['p']
    await admin.delete_collection(PODS, 'default', label_selector='static=yes')

    async def gone() -> bool:
        return await exists(admin, PODS, 'p', 'default') is None

    await until(gone)


def of_class(name: str) -> dict:
    pod = bare_pod('p')
    return {**pod, 'spec': {**pod['spec'], 'runtimeClassName': name}}


@conformance(
    '[sig-node] RuntimeClass should reject a Pod requesting a non-existent RuntimeClass [NodeConformance] [Conformance]'
)
@conformance(
    '[sig-node] RuntimeClass should reject a Pod requesting a deleted RuntimeClass [NodeConformance] [Conformance]'
)
async def test_a_pod_of_an_unknown_runtime_class_is_refused(admin):
    with pytest.raises(Forbidden, match='RuntimeClass "never-there" not found'):
        await admin.create(PODS, of_class('never-there'))
    await admin.create(RUNTIMECLASSES, {'metadata': {'name': 'gone'}, 'handler': 'process'})
    await admin.delete(RUNTIMECLASSES, 'gone')
    with pytest.raises(Forbidden, match='RuntimeClass "gone" not found'):
        await admin.create(PODS, of_class('gone'))


@conformance(
    '[sig-node] RuntimeClass should schedule a Pod requesting a RuntimeClass and initialize its Overhead [NodeConformance] [Conformance]'
)
@conformance(
    '[sig-node] RuntimeClass should schedule a Pod requesting a RuntimeClass without PodOverhead [NodeConformance] [Conformance]'
)
@pytest.mark.parametrize('overhead', [None, {'podFixed': {'cpu': '10m', 'memory': '1Mi'}}])
async def test_a_pod_of_a_runtime_class_runs_with_its_overhead(admin, agent, until, field, overhead):
    body = {'metadata': {'name': 'there'}, 'handler': 'process', **({'overhead': overhead} if overhead else {})}
    await admin.create(RUNTIMECLASSES, body)
    await admin.create(PODS, of_class('there'))
    await until(field(PODS, 'status.phase', 'Running', 'p'))
    spec = (await admin.get(PODS, 'p', 'default'))['spec']
    assert spec.get('overhead') == (overhead['podFixed'] if overhead else None)
