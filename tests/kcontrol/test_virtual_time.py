"""What takes minutes or hours, on a control plane in virtual time: silent nodes, deadlines, windows, schedules."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from kcontrol.controllers.cronjob.plan import SCHEDULED_AT
from kcontrol.controllers.horizontalpodautoscaler import metrics
from kcontrol.kinds import CRONJOBS, HORIZONTALPODAUTOSCALERS, JOBS, VOLUMEATTACHMENTS
from kcore.meta.gvk import DEPLOYMENTS, NODES, PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, PODS, SECRETS, SERVICEACCOUNTS
from kcore.meta.objects import condition_is, deleting, get_condition, labels_of, name_of
from kcore.meta.times import format_time, parse_time
from kcore.meta.tokensecrets import ACCOUNT, INVALID_SINCE, LAST_USED, TYPE
from tests.kcontrol.virtual import Nodes, Plane, run_virtually

EVICTS = 'node.kubernetes.io/unreachable'
DAY_S = 86400.0
YEAR_S = 365 * DAY_S
GRACE_S, TOLERATED_S, LOOK_S = 50, 300, 5
"""Defaults: when a silent node is Unknown, how long its pods may stay, how often nodes are looked at."""


@pytest.fixture
def virtually(pki, monkeypatch) -> Callable[[Callable[[Plane], Awaitable[None]]], None]:
    return lambda scenario: run_virtually(scenario, pki, monkeypatch)


def deployment(replicas: int, **spec) -> dict:
    template = {'metadata': {'labels': {'app': 'web'}}, 'spec': {'containers': [{'name': 'c', 'image': 'x'}]}}
    body = {'replicas': replicas, 'selector': {'matchLabels': {'app': 'web'}}, 'template': template, **spec}
    return {'metadata': {'name': 'web', 'namespace': 'default'}, 'spec': body}


def available(plane: Plane, count: int) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        found = await plane.admin.get(DEPLOYMENTS, 'web', 'default')
        return (found.get('status') or {}).get('availableReplicas', 0) == count

    return ask


async def evicting(plane: Plane) -> dict[str, datetime]:
    """Node → when it got the taint that evicts."""
    nodes = (await plane.admin.list(NODES)).items
    taints = [(name_of(n), t) for n in nodes for t in n['spec'].get('taints') or ()]
    return {n: parse_time(t['timeAdded']) for n, t in taints if (t['key'], t['effect']) == (EVICTS, 'NoExecute')}


NODE_CONTROLLERS = ('nodelifecycle', 'tainteviction', 'podgc', 'deployment', 'replicaset')


def test_a_silent_node_is_unknown_after_its_grace_and_its_pods_move_when_they_tolerate_it_no_longer(virtually):
    async def scenario(plane: Plane) -> None:
        nodes = await Nodes(plane).start('a', 'b', 'c')
        await plane.controllers(*NODE_CONTROLLERS)
        await plane.admin.create(DEPLOYMENTS, deployment(6))
        await plane.until(available(plane, 6))
        lost = sum(p['spec'].get('nodeName') == 'a' for p in nodes.pods.store.list())
        assert lost
        died = plane.now_s()
        nodes.die('a')

        async def unknown() -> bool:
            return get_condition(await plane.admin.get(NODES, 'a'), 'Ready')['status'] == 'Unknown'

        await plane.until(unknown)
        assert GRACE_S - 10 <= plane.now_s() - died <= GRACE_S + LOOK_S + 1, 'the last beat was up to 10 s earlier'
        tainted = plane.now_s()
        await plane.until(available(plane, 6 - lost), within_s=5)

        async def condemned() -> int:
            pods = (await plane.admin.list(PODS, 'default')).items
            return sum(deleting(p) for p in pods if p['spec'].get('nodeName') == 'a')

        await asyncio.sleep(TOLERATED_S - 10)
        assert await condemned() == 0
        await plane.until(lambda: _is(condemned, lost))
        assert TOLERATED_S - 2 <= plane.now_s() - tainted <= TOLERATED_S + 2
        await plane.until(available(plane, 6), within_s=10)
        await nodes.revive('a')

        async def whole() -> bool:
            pods = (await plane.admin.list(PODS, 'default')).items
            return len(pods) == 6 and not (await plane.admin.get(NODES, 'a'))['spec'].get('taints')

        await plane.until(whole, within_s=30)

    virtually(scenario)


async def _is(ask: Callable[[], Awaitable[object]], wanted: object) -> bool:
    return await ask() == wanted


def test_nodes_of_a_zone_are_evicted_one_in_ten_seconds_and_not_at_all_when_most_are_silent(virtually):
    async def scenario(plane: Plane) -> None:
        nodes = await Nodes(plane).start(*(f'a{i}' for i in range(9)), zone='a')
        await nodes.start('b0', 'b1', zone='b')
        await plane.controllers('nodelifecycle')
        await asyncio.sleep(60)
        nodes.die('a0', 'a1', 'a2')
        await plane.until(lambda: _is(lambda: _count(plane), 3))
        times = sorted((await evicting(plane)).values())
        gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(times)]
        assert all(10 <= gap <= 10 + LOOK_S + 1 for gap in gaps)
        nodes.die(*(f'a{i}' for i in range(3, 8)))
        await asyncio.sleep(600)
        assert len(await evicting(plane)) == 3, 'a small zone that lost most of its nodes evicts nobody'
        nodes.die('b0')
        await plane.until(lambda: _is(lambda: _count(plane), 4), within_s=GRACE_S + 2 * LOOK_S)

    virtually(scenario)


async def _count(plane: Plane) -> int:
    return len(await evicting(plane))


def test_when_every_node_is_silent_nothing_is_evicted_and_taints_that_evict_are_taken_back(virtually):
    async def scenario(plane: Plane) -> None:
        nodes = await Nodes(plane).start('a', 'b', 'c')
        await plane.controllers(*NODE_CONTROLLERS)
        await plane.admin.create(DEPLOYMENTS, deployment(3))
        await plane.until(available(plane, 3))
        nodes.die('a')
        await plane.until(lambda: _is(lambda: _count(plane), 1))
        nodes.die('b', 'c')
        await plane.until(available(plane, 0))
        await plane.until(lambda: _is(lambda: _count(plane), 0), within_s=2 * LOOK_S)
        await asyncio.sleep(3 * TOLERATED_S)
        pods = (await plane.admin.list(PODS, 'default')).items
        assert len(pods) == 3
        assert not any(map(deleting, pods))
        back = plane.env.clock.wall()
        await nodes.revive('a')
        await plane.until(lambda: _is(lambda: _count(plane), 2))
        assert all(at >= back - timedelta(seconds=1) for at in (await evicting(plane)).values()), 'time runs anew'

    virtually(scenario)


# --- Deployments and Jobs


def test_a_rollout_that_gets_nowhere_is_overdue_after_ten_minutes_and_not_before(virtually):
    async def scenario(plane: Plane) -> None:
        nodes = await Nodes(plane).start('a')
        nodes.healthy = lambda pod: pod['spec']['containers'][0]['image'] == 'x'
        await plane.controllers('deployment', 'replicaset')
        await plane.admin.create(DEPLOYMENTS, deployment(2, progressDeadlineSeconds=600))
        await plane.until(available(plane, 2))
        bad = {'spec': {'template': {'spec': {'containers': [{'name': 'c', 'image': 'bad'}]}}}}
        await plane.admin.patch(DEPLOYMENTS, 'web', bad, 'default', kind='strategic')
        began = plane.now_s()

        async def overdue() -> bool:
            found = get_condition(await plane.admin.get(DEPLOYMENTS, 'web', 'default'), 'Progressing')
            return found['reason'] == 'ProgressDeadlineExceeded'

        await plane.until(overdue)
        assert 600 <= plane.now_s() - began <= 610
        assert await available(plane, 2)(), 'the old pods stay'
        good = {'spec': {'template': {'spec': {'containers': [{'name': 'c', 'image': 'x'}]}}}}
        await plane.admin.patch(DEPLOYMENTS, 'web', good, 'default', kind='strategic')
        await plane.until(lambda: _is(overdue, False), within_s=10)

    virtually(scenario)


def job(name: str, **spec) -> dict:
    template = {'spec': {'restartPolicy': 'Never', 'containers': [{'name': 'c', 'image': 'x'}]}}
    return {'metadata': {'name': name, 'namespace': 'default'}, 'spec': {'template': template, **spec}}


def test_failed_pods_of_a_job_come_back_after_growing_pauses_and_a_finished_job_lives_for_its_time(virtually):
    async def scenario(plane: Plane) -> None:
        nodes = await Nodes(plane).start('a')
        nodes.finish = lambda pod: 'Failed' if pod['metadata']['name'].startswith('fails') else None
        await plane.controllers('job', 'gc')
        await plane.admin.create(JOBS, job('fails', backoffLimit=4, ttlSecondsAfterFinished=100))
        await plane.admin.create(JOBS, job('slow', activeDeadlineSeconds=600))
        began = plane.now_s()

        async def ended(name: str) -> dict | None:
            return get_condition(await plane.admin.get(JOBS, name, 'default'), 'Failed')

        assert (await plane.until(lambda: ended('fails')))['reason'] == 'BackoffLimitExceeded'
        assert 10 + 20 + 40 + 80 <= plane.now_s() - began <= 10 + 20 + 40 + 80 + 10
        pods = [p for p in (await plane.admin.list(PODS, 'default')).items if name_of(p).startswith('fails')]
        made = sorted(parse_time(p['metadata']['creationTimestamp']) for p in pods)
        gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(made)]
        assert [round(g, -1) for g in gaps] == [10, 20, 40, 80]
        finished = plane.now_s()

        async def names() -> set[str]:
            return {name_of(j) for j in (await plane.admin.list(JOBS, 'default')).items}

        await plane.until(lambda: _is(names, {'slow'}))
        assert 100 <= plane.now_s() - finished <= 103
        assert (await plane.until(lambda: ended('slow')))['reason'] == 'DeadlineExceeded'
        assert 600 <= plane.now_s() - began <= 605

    virtually(scenario)


# --- schedules


@pytest.mark.parametrize(
    ('start', 'expected'),
    [
        # On 29 March 2026 there is no half past two; the next day it is summer.
        (datetime(2026, 3, 28, 23, tzinfo=UTC), ['2026-03-30T00:30:00Z']),
        # On 25 October it comes twice; the next day it is winter.
        (
            datetime(2026, 10, 24, 23, tzinfo=UTC),
            ['2026-10-25T00:30:00Z', '2026-10-25T01:30:00Z', '2026-10-26T01:30:00Z'],
        ),
    ],
)
def test_a_daily_job_in_berlin_over_both_changes_of_the_clock(virtually, start, expected):
    async def scenario(plane: Plane) -> None:
        plane.env.clock.jump_wall((start - plane.env.clock.wall()).total_seconds())
        await plane.controllers('cronjob')
        spec = {
            'schedule': '30 2 * * *', 'timeZone': 'Europe/Berlin', 'concurrencyPolicy': 'Allow',
            'jobTemplate': {'spec': job('x')['spec']},
        }  # fmt: skip
        await plane.admin.create(CRONJOBS, {'metadata': {'name': 'night', 'namespace': 'default'}, 'spec': spec})
        await asyncio.sleep(27 * 3600)
        jobs = (await plane.admin.list(JOBS, 'default')).items
        stamps = sorted(j['metadata']['annotations']['batch.kubernetes.io/cronjob-scheduled-timestamp'] for j in jobs)
        assert stamps == expected
        made = sorted(parse_time(j['metadata']['creationTimestamp']) for j in jobs)
        late = [(at - parse_time(due)).total_seconds() for at, due in zip(made, stamps, strict=True)]
        assert all(0 <= seconds <= 1 for seconds in late)

    virtually(scenario)


# --- the autoscaler


def test_load_scales_up_within_two_looks_and_down_only_after_five_quiet_minutes(virtually, monkeypatch):
    load = {'milli': 100.0}

    async def usage(client, path, selector, metric=None):
        pods = (await client.list(PODS, 'default', label_selector=selector)).items
        stamp = format_time(client.env.clock.wall())
        each = f'{int(load["milli"] / max(1, len(pods)))}m'
        item = {'timestamp': stamp, 'window': '30s', 'containers': [{'name': 'c', 'usage': {'cpu': each}}]}
        return {'items': [{'metadata': {'name': name_of(p)}, **item} for p in pods]}

    monkeypatch.setattr(metrics, '_get', usage)

    async def scenario(plane: Plane) -> None:
        await Nodes(plane).start('a')
        await plane.controllers('deployment', 'replicaset', 'horizontalpodautoscaler')
        made = deployment(1)
        made['spec']['template']['spec']['containers'][0]['resources'] = {'requests': {'cpu': '100m'}}
        await plane.admin.create(DEPLOYMENTS, made)
        target = {'apiVersion': 'apps/v1', 'kind': 'Deployment', 'name': 'web'}
        utilization = {'type': 'Utilization', 'averageUtilization': 100}
        asked = [{'type': 'Resource', 'resource': {'name': 'cpu', 'target': utilization}}]
        spec = {'scaleTargetRef': target, 'minReplicas': 1, 'maxReplicas': 10, 'metrics': asked}
        hpa = {'metadata': {'name': 'web', 'namespace': 'default'}, 'spec': spec}
        await plane.admin.create(HORIZONTALPODAUTOSCALERS, hpa)

        async def size() -> int:
            return (await plane.admin.get(DEPLOYMENTS, 'web', 'default'))['spec']['replicas']

        await asyncio.sleep(600)  # past the time in which a new pod's CPU does not count
        assert await size() == 1
        load['milli'] = 400.0
        loaded = plane.now_s()
        await plane.until(lambda: _is(size, 4))
        assert plane.now_s() - loaded <= 2 * 15 + 2
        await asyncio.sleep(600)
        load['milli'] = 100.0
        quiet = plane.now_s()
        await plane.until(lambda: _is(size, 1))
        assert 300 - 15 <= plane.now_s() - quiet <= 300 + 15 + 2, 'five minutes after the last look that saw load'

    virtually(scenario)


def test_an_eviction_that_never_happens_is_taken_back_after_two_minutes(virtually):
    async def scenario(plane: Plane) -> None:
        await plane.controllers('stalepoddisruption')
        body = {
            'metadata': {'name': 'p', 'namespace': 'default'},
            'spec': {'containers': [{'name': 'c', 'image': 'x'}]},
        }
        await plane.admin.create(PODS, body)
        said = {'type': 'DisruptionTarget', 'status': 'True', 'reason': 'EvictionByEvictionAPI', 'message': 'x',
                'lastTransitionTime': format_time(plane.env.clock.wall())}  # fmt: skip
        began = plane.now_s()
        await plane.admin.patch(PODS, 'p', {'status': {'conditions': [said]}}, 'default', subresource='status')

        async def taken_back() -> bool:
            return condition_is(await plane.admin.get(PODS, 'p', 'default'), 'DisruptionTarget', 'False')

        await plane.until(taken_back)
        assert 119 <= plane.now_s() - began <= 123

    virtually(scenario)


UNMOUNT_S = 360
"""How long a node that is not ready may keep a volume mounted that no pod there needs."""


def test_a_volume_is_detached_once_it_is_unmounted_or_its_node_has_not_answered_for_long(virtually):
    async def scenario(plane: Plane) -> None:
        for number in (1, 2):
            name, csi = f'v{number}', {'driver': 'd', 'volumeHandle': f'h{number}'}
            spec = {'capacity': {'storage': '1Gi'}, 'accessModes': ['ReadWriteOnce'], 'csi': csi}
            await plane.admin.create(PERSISTENTVOLUMES, {'metadata': {'name': name}, 'spec': spec})
            asked = {
                'accessModes': ['ReadWriteOnce'], 'resources': {'requests': {'storage': '1Gi'}}, 'volumeName': name,
            }  # fmt: skip
            meta = {'name': name, 'namespace': 'default'}
            await plane.admin.create(PERSISTENTVOLUMECLAIMS, {'metadata': meta, 'spec': asked})
            used = [{'name': 'v', 'persistentVolumeClaim': {'claimName': name}}]
            pod = {'nodeName': 'n', 'containers': [{'name': 'c', 'image': 'x'}], 'volumes': used}
            await plane.admin.create(PODS, {'metadata': meta, 'spec': pod})
        await plane.admin.create(NODES, {'metadata': {'name': 'n'}})
        await plane.controllers('attachdetach', 'persistentvolumeclaimbinder', 'persistentvolumebinder')

        async def attached() -> set[str]:
            held = (await plane.admin.list(VOLUMEATTACHMENTS)).items
            return {one['spec']['source']['persistentVolumeName'] for one in held}

        async def say(**status: object) -> None:
            await plane.admin.patch(NODES, 'n', {'status': status}, subresource='status')

        async def both() -> bool:
            return await attached() == {'v1', 'v2'}

        await plane.until(both)
        for one in (await plane.admin.list(VOLUMEATTACHMENTS)).items:
            done = {'status': {'attached': True}}
            await plane.admin.patch(VOLUMEATTACHMENTS, name_of(one), done, subresource='status')
        stamp = format_time(plane.env.clock.wall())
        ready = {'type': 'Ready', 'status': 'True', 'lastHeartbeatTime': stamp, 'lastTransitionTime': stamp}
        await say(conditions=[ready], volumesInUse=['kubernetes.io/csi/d^h1', 'kubernetes.io/csi/d^h2'])
        for name in ('v1', 'v2'):
            await plane.admin.delete(PODS, name, 'default', grace_period_s=0)
        await asyncio.sleep(2 * UNMOUNT_S)
        assert await both(), 'the node lives, and has them mounted'
        await say(volumesInUse=['kubernetes.io/csi/d^h2'])
        await asyncio.sleep(1)
        assert await attached() == {'v2'}
        shown = (await plane.admin.get(NODES, 'n'))['status']['volumesAttached']
        assert [v['name'] for v in shown] == ['kubernetes.io/csi/d^h2']
        await say(conditions=[{**ready, 'status': 'Unknown'}])
        await asyncio.sleep(30)
        assert not await attached(), 'it was asked long ago, and does not answer'

    virtually(scenario)


def test_a_token_that_nobody_uses_is_invalid_after_a_year_and_gone_after_two(virtually, monkeypatch):
    monkeypatch.setattr('kclient.api.WATCH_TIMEOUT_S', 3 * YEAR_S)
    monkeypatch.setattr('kapi.server.handlers.watch.BOOKMARK_INTERVAL_S', YEAR_S)

    async def scenario(plane: Plane) -> None:
        secrets = ('unused', 'mounted', 'of-hand', 'used')
        for name in secrets:
            meta = {'name': name, 'namespace': 'default', 'annotations': {ACCOUNT: 'app'}}
            await plane.admin.create(SECRETS, {'metadata': meta, 'type': TYPE})
        listed = [{'name': name} for name in secrets if name != 'of-hand']
        await plane.admin.create(
            SERVICEACCOUNTS, {'metadata': {'name': 'app', 'namespace': 'default'}, 'secrets': listed}
        )
        container = {'name': 'c', 'image': 'x', 'envFrom': [{'secretRef': {'name': 'mounted'}}]}
        pod = {'metadata': {'name': 'p', 'namespace': 'default'}, 'spec': {'containers': [container]}}
        await plane.admin.create(PODS, pod)
        await plane.controllers('legacy-serviceaccount-token-cleaner')

        async def invalid() -> dict[str, bool]:
            return {
                name_of(s): INVALID_SINCE in labels_of(s) for s in (await plane.admin.list(SECRETS, 'default')).items
            }

        await asyncio.sleep(YEAR_S - 10 * DAY_S)
        stamp = {'metadata': {'labels': {LAST_USED: f'{plane.env.clock.wall():%Y-%m-%d}'}}}
        await plane.admin.patch(SECRETS, 'used', stamp, 'default')
        assert await invalid() == dict.fromkeys(secrets, False)
        await asyncio.sleep(13 * DAY_S)
        assert await invalid() == {**dict.fromkeys(secrets, False), 'unused': True}
        await asyncio.sleep(YEAR_S - 10 * DAY_S)
        assert 'unused' in await invalid()
        await asyncio.sleep(13 * DAY_S)
        assert await invalid() == {'mounted': False, 'of-hand': False, 'used': True}

    virtually(scenario)


def test_a_year_of_sunday_nights_in_berlin_skips_and_doubles_with_the_clock(virtually, monkeypatch):
    # What only keeps long watches alive would be a million requests and bookmarks.
    monkeypatch.setattr('kclient.api.WATCH_TIMEOUT_S', YEAR_S)
    monkeypatch.setattr('kapi.server.handlers.watch.BOOKMARK_INTERVAL_S', YEAR_S / 12)

    async def scenario(plane: Plane) -> None:
        start = datetime(2026, 1, 1, tzinfo=UTC)
        plane.env.clock.jump_wall((start - plane.env.clock.wall()).total_seconds())
        await plane.controllers('cronjob')
        due: list[datetime] = []

        async def finish() -> None:
            """Plays the Job controller: what starts is over a minute later."""
            async for event in plane.admin.watch(JOBS, 'default', timeout_s=2 * YEAR_S):
                if event.type == 'ADDED':
                    due.append(parse_time(event.object['metadata']['annotations'][SCHEDULED_AT]))
                    await asyncio.sleep(60)
                    stamp = format_time(plane.env.clock.wall())
                    conditions = [
                        {'type': kind, 'status': 'True', 'lastProbeTime': stamp, 'lastTransitionTime': stamp}
                        for kind in ('SuccessCriteriaMet', 'Complete')
                    ]
                    change = {'startTime': stamp, 'completionTime': stamp, 'succeeded': 1, 'conditions': conditions}
                    name = name_of(event.object)
                    await plane.admin.patch(JOBS, name, {'status': change}, 'default', subresource='status')

        plane.start(finish())
        spec = {
            'schedule': '30 2 * * 0', 'timeZone': 'Europe/Berlin', 'concurrencyPolicy': 'Forbid',
            'jobTemplate': {'spec': job('x')['spec']},
        }  # fmt: skip
        await plane.admin.create(CRONJOBS, {'metadata': {'name': 'night', 'namespace': 'default'}, 'spec': spec})
        await asyncio.sleep(YEAR_S)
        local = [t.astimezone(ZoneInfo('Europe/Berlin')) for t in due]
        assert {(t.hour, t.minute) for t in local} == {(2, 30)}
        days = [t.date().isoformat() for t in local]
        assert '2026-03-29' not in days, 'half past two does not exist that night'
        assert days.count('2026-10-25') == 2, 'and exists twice that night'
        assert len(days) == 52 - 1 + 1
        assert len((await plane.admin.list(JOBS, 'default')).items) == 3, 'the history limit holds'
        status = (await plane.admin.get(CRONJOBS, 'night', 'default'))['status']
        assert status['lastSuccessfulTime'] > status['lastScheduleTime']
        assert not status.get('active')

    virtually(scenario)
