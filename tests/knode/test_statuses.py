"""What the API says of a pod is what this node told it, whoever else writes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kcore.env import Env
from kcore.metrics import render
from kcore.tasks import start_detached, stop
from knode.pods.metrics import KubeletMetrics
from knode.pods.statuses import Statuses

READY = {'type': 'Ready', 'status': 'True', 'lastProbeTime': None}
STATUS = {
    'phase': 'Running',
    'reason': None,
    'conditions': [READY],
    'containerStatuses': [{'name': 'c', 'ready': True}],
}


def pod(revision: int, **status: Any) -> dict[str, Any]:
    meta = {'name': 'p', 'namespace': 'default', 'uid': 'u', 'resourceVersion': str(revision)}
    return {'metadata': meta, 'status': status}


def shown(**other: Any) -> dict[str, Any]:
    """STATUS as the API shows it."""
    return {'phase': 'Running', 'conditions': [{'type': 'Ready', 'status': 'True'}, {'type': 'x.io/mine'}],
            'containerStatuses': [{'name': 'c', 'ready': True}], 'qosClass': 'Burstable', **other}  # fmt: skip


class Api:
    """Takes every patch; each is a new revision from 10 on."""

    def __init__(self) -> None:
        self.patches: list[dict[str, Any]] = []

    async def patch(self, resource: Any, name: str, patch: dict[str, Any], namespace: str, **more: Any) -> Any:
        self.patches.append(patch['status'])
        return pod(9 + len(self.patches))


async def test_how_long_the_api_did_not_have_a_status_is_counted():
    metrics = KubeletMetrics()
    await tell(Statuses(Api(), Env.real(seed=1), metrics))  # type: ignore[arg-type]
    assert 'kubelet_pod_status_sync_duration_seconds_count 1.0' in render(metrics.registry).decode()


async def tell(statuses: Statuses) -> None:
    running = start_detached('statuses', statuses.run())
    statuses.push(pod(1), STATUS, finished=False)
    await statuses.sent({'u'})
    await stop(running)


async def written(*heard: dict[str, Any]) -> list[dict[str, Any]]:
    """What is sent after STATUS was sent as revision 10 and then these pods are heard."""
    api = Api()
    statuses = Statuses(api, Env.real(seed=1), KubeletMetrics())  # type: ignore[arg-type]
    await tell(statuses)
    running = start_detached('statuses', statuses.run())
    try:
        for p in heard:
            statuses.heard(None, p)
            await statuses.sent({'u'})
    finally:
        await stop(running)
    return api.patches[1:]


@pytest.mark.parametrize(
    ('found', 'again'),
    [
        (pod(10, **shown()), False),
        (pod(10, **shown(conditions=[{'type': 'Ready', 'status': 'False', 'reason': 'NodeNotReady'}])), True),
        (pod(11, **shown(phase='Pending')), True),
        (pod(11, **shown(containerStatuses=[])), True),
        (pod(11, **shown(containerStatuses=[{'name': 'c', 'ready': False}])), True),
        (pod(9, **shown(phase='Pending')), False),
        (pod(11, **shown(phase='Failed')), False),
    ],
    ids=['as it was told', 'unready', 'phase', 'no containers', 'container', 'older than what was told', 'ended'],
)
async def test_a_status_that_somebody_else_has_changed_is_put_right(found, again):
    assert await written(found) == ([STATUS] if again else [])


async def test_a_condition_that_holds_no_more_is_taken_away_once_it_is_seen():
    pending = {'type': 'PodResizePending', 'status': 'True'}
    [patch] = await written(pod(10, **shown(conditions=[READY, pending])))
    assert patch['conditions'] == [READY, {'$patch': 'delete', 'type': 'PodResizePending'}]


async def test_what_is_heard_while_a_status_is_on_its_way_is_not_forgotten():
    api = Api()
    statuses = Statuses(api, Env.real(seed=1), KubeletMetrics())  # type: ignore[arg-type]
    await tell(statuses)
    statuses.push(pod(10), STATUS, finished=False)
    statuses.heard(None, pod(12, **shown(phase='Pending')))
    running = start_detached('statuses', statuses.run())
    try:
        await statuses.sent({'u'})
        await asyncio.sleep(0)
        await statuses.sent({'u'})
    finally:
        await stop(running)
    assert len(api.patches) == 3
