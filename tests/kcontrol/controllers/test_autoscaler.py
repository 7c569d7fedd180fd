"""The autoscaler's arithmetic case by case, its windows in virtual time, and one scale-up on the real API."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kclient.discovery import Discovery, Served
from kcontrol.controllers.horizontalpodautoscaler import limits, metrics
from kcontrol.controllers.horizontalpodautoscaler import replicas as calc
from kcontrol.controllers.horizontalpodautoscaler.plan import Answer, plan
from kcontrol.kinds import HORIZONTALPODAUTOSCALERS
from kcore.meta.gvk import DEPLOYMENTS, PODS, SERVICES
from kcore.meta.objects import condition_is, name_of
from kcore.meta.times import format_time

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
OLD = '2026-01-02T10:00:00Z'


def pod(name: str, *, phase: str = 'Running', ready: str = 'True', since: str = OLD, start: str = OLD) -> dict:
    condition = {'type': 'Ready', 'status': ready, 'lastTransitionTime': since}
    container = {'name': 'c', 'resources': {'requests': {'cpu': '100m'}}}
    return {'metadata': {'name': name}, 'spec': {'containers': [container]},
            'status': {'phase': phase, 'startTime': start, 'conditions': [condition]}}  # fmt: skip


def proposal(current: int, usage: list[int | None], target: int, pods: list[dict] | None = None) -> int:
    """cpu; usage in millicores by pod, None for no metric; each pod asks for 100m."""
    pods = pods or [pod(f'p{i}') for i in range(len(usage))]
    found = zip(pods, usage, strict=True)
    samples = {name_of(p): calc.Sample(u, NOW, 30.0) for p, u in found if u is not None}
    requests = {name_of(p): calc.requests_of(p, 'cpu') for p in pods}
    assumed = {n: r * max(100, target) // 100 for n, r in requests.items()}
    groups = calc.group(pods, samples, cpu=True, now=NOW)
    measure = calc.by_utilization(requests, target)
    return calc.propose(current, groups, samples, measure, assumed=assumed, tolerances=calc.Tolerances()).replicas


@pytest.mark.parametrize(
    ('current', 'usage', 'target', 'expected'),
    [
        (3, [30, 50, 70], 30, 5), (3, [30, 50, 70], 50, 3), (3, [55, 55, 55], 50, 3), (3, [56, 56, 56], 50, 4),
        (5, [10, 10, 10, 10, 10], 50, 1), (4, [100, 100, None, None], 50, 4), (4, [10, 10, None, None], 50, 4),
        (2, [200, None], 50, 4), (3, [0, 0, 0], 50, 0),
    ],
)  # fmt: skip
def test_what_cpu_utilization_asks_for(current, usage, target, expected):
    assert proposal(current, usage, target) == expected


def test_pods_that_start_do_not_drive_a_scale_up():
    young = format_time(NOW - timedelta(seconds=100))
    pods = [pod('a'), pod('b', ready='False', since=young, start=young), pod('c', phase='Pending')]
    assert proposal(3, [80, 500, None], 40, pods) == 3, (
        'the two count as idle: 80/300 is below the target, so no change'
    )
    assert proposal(3, [300, 500, None], 40, pods) == 8
    gone = {**pod('d'), 'metadata': {'name': 'd', 'deletionTimestamp': OLD}}
    assert proposal(2, [60, 60, 999], 50, [pod('a'), pod('b'), gone]) == 3


def test_a_request_that_is_missing_is_an_error_not_a_guess():
    bare = {**pod('a'), 'spec': {'containers': [{'name': 'c'}]}}
    with pytest.raises(calc.NoMetric, match='missing request for cpu in container c of Pod a'):
        calc.requests_of(bare, 'cpu')
    with pytest.raises(calc.NoMetric, match='did not receive metrics'):
        proposal(1, [None], 50)


def test_object_and_external_metrics():
    pods, tolerances = [pod('a'), pod('b'), pod('c', ready='False')], calc.Tolerances()
    assert calc.by_total(3, pods, 20_000, 10_000, tolerances).replicas == 4, 'only two are ready'
    assert calc.by_total(0, [], 20_000, 10_000, tolerances).replicas == 2
    assert calc.by_total(3, pods, 10_900, 10_000, tolerances).replicas == 3
    assert calc.by_share(3, 3, 45_000, 10_000, tolerances).replicas == 5
    assert calc.by_share(3, 3, 31_000, 10_000, tolerances).replicas == 3


@given(
    st.integers(1, 30),
    st.lists(st.one_of(st.none(), st.integers(0, 400)), min_size=1, max_size=12),
    st.integers(1, 200),
)
def test_unknown_pods_never_turn_the_direction(current, usage, target):
    if all(u is None for u in usage):
        return
    known = [u for u in usage if u is not None]
    asked = proposal(current, usage, target)
    ratio = (sum(known) * 100 // (100 * len(known))) / target
    if None in usage:
        assert not (ratio < 1 and asked > current)
        assert not (ratio > 1 and asked < current)


def autoscaler(**spec) -> dict:
    return {'metadata': {'name': 'h', 'namespace': 'default', 'generation': 1},
            'spec': {'minReplicas': 1, 'maxReplicas': 20, **spec}}  # fmt: skip


def asks(count: int) -> list[Answer]:
    return [Answer('cpu resource utilization', calc.Proposal(count, 1), {'type': 'Resource'})]


def drive(hpa: dict, wanted: list[int], current: int, *, every_s: int = 15) -> list[int]:
    """Replicas after each pass."""
    past, now, seen = limits.Past(), NOW, []
    for count in wanted:
        step = plan(hpa, current, asks(count), past, now)
        if step.rescale:
            past.scaled(current, step.replicas, now, hpa['spec'].get('behavior') or {})
        current = step.replicas
        seen.append(current)
        now += timedelta(seconds=every_s)
    return seen


def test_up_goes_at_once_but_at_most_doubles_and_down_waits_five_minutes():
    assert drive(autoscaler(), [20, 20, 20, 20], 1) == [4, 8, 16, 20]
    down = drive(autoscaler(), [10, *[1] * 25], 10)
    assert down.index(1) == 20, '20 × 15 s after the last high recommendation'
    assert set(down[:20]) == {10}


def test_whoever_takes_over_waits_before_scaling_down():
    assert drive(autoscaler(), [1] * 21, 10) == [10] * 20 + [1], 'what there is counts as recommended five minutes long'


@pytest.mark.parametrize(
    ('kind', 'source', 'answered', 'said'),
    [
        ('Resource', {'name': 'cpu', 'target': {'averageUtilization': 50}}, (404, '404 page not found'),
         ('failed to get cpu utilization: unable to get metrics for resource cpu: unable to fetch metrics from '
         'resource metrics API: the server could not find the requested resource (get pods.metrics.k8s.io)',
         'failed to get cpu resource metric value: ')),
        ('Resource', {'name': 'memory', 'target': {'averageValue': '1Mi'}}, (200, '{"items": []}'),
         ('failed to get memory usage: unable to get metrics for resource memory: no metrics returned from resource '
         'metrics API', 'failed to get memory resource metric value: ')),
        ('Pods', {'metric': {'name': 'hits'}, 'target': {'averageValue': '1'}}, (404, '404 page not found'),
         ('unable to get metric hits: unable to fetch metrics from custom metrics API: no custom metrics API '
         '(custom.metrics.k8s.io) registered', 'failed to get pods metric value: ')),
        ('Object', {'metric': {'name': 'hits'}, 'target': {'value': '1'},
                    'describedObject': {'apiVersion': 'v1', 'kind': 'Service', 'name': 'web'}}, (503, 'x'),
         ('unable to get metric hits: Service on default web/unable to fetch metrics from custom metrics API: the '
         'server is currently unable to handle the request (get services.custom.metrics.k8s.io)',
         'failed to get object metric value: ')),
        ('External', {'metric': {'name': 'q', 'selector': {'matchLabels': {'a': 'b'}}},
                      'target': {'averageValue': '1'}},
         (403, '{"kind": "Status", "message": "no"}'),
         ('unable to get external metric default/q/&LabelSelector{MatchLabels:map[string]string{a: b,},'
         'MatchExpressions:[]LabelSelectorRequirement{},}: unable to fetch metrics from external metrics API: no',
         'failed to get q external metric value: failed to get q external metric: ')),
    ],
)  # fmt: skip
async def test_a_metric_that_cannot_be_had_says_so_in_upstreams_words(env, kind, source, answered, said):
    async def read() -> bytes:
        return answered[1].encode()

    async def request(*_: object, **__: object) -> SimpleNamespace:
        return SimpleNamespace(status=answered[0], read=read)

    client = SimpleNamespace(env=env, request=request)
    found = Discovery((Served(SERVICES, frozenset({'get'})),), {})
    target = metrics.Target('default', 1, 1, '', [])
    metric = {'type': kind, metrics._FIELDS[kind]: source}
    got = await metrics.answer(client, metric, target, calc.Tolerances(), found)
    assert ((got.error, got.context), got.reason) == (said, f'FailedGet{kind}Metric')


def test_behavior_limits_rates_both_ways():
    slow = {'policies': [{'type': 'Pods', 'value': 1, 'periodSeconds': 60}], 'selectPolicy': 'Max'}
    behavior = {'scaleUp': {**slow, 'stabilizationWindowSeconds': 0},
                'scaleDown': {**slow, 'stabilizationWindowSeconds': 0}}  # fmt: skip
    assert drive(autoscaler(behavior=behavior), [9] * 9, 2) == [3, 3, 3, 3, 4, 4, 4, 4, 5]
    assert drive(autoscaler(behavior=behavior), [1] * 6, 5) == [4, 4, 4, 4, 3, 3]
    frozen = {'scaleDown': {'selectPolicy': 'Disabled', 'stabilizationWindowSeconds': 0}}
    assert drive(autoscaler(behavior=frozen), [1, 1], 5) == [5, 5]
    calm = {'scaleUp': {'stabilizationWindowSeconds': 60}}
    assert drive(autoscaler(behavior=calm), [2, 9, 9, 9, 9, 9], 2) == [2, 2, 2, 2, 6, 9]


def test_bounds_zero_and_missing_metrics(golden):
    past = limits.Past()
    assert plan(autoscaler(maxReplicas=3), 9, asks(9), past, NOW).replicas == 3
    assert plan(autoscaler(minReplicas=2), 1, asks(1), past, NOW).replicas == 2
    assert plan(autoscaler(), 0, asks(5), past, NOW).rescale is False
    failed = Answer('pods metric x', None, None, 'boom', 'FailedGetPodsMetric')
    down = plan(autoscaler(), 5, [*asks(1), failed], past, NOW)
    assert (down.rescale, down.error) == (False, 'invalid metrics (1 invalid out of 2), first error is: boom')
    up = plan(autoscaler(), 5, [*asks(8), failed], limits.Past(), NOW)
    assert up.replicas == 8, 'one good metric suffices to go up'
    golden('hpa-status', [down.status, up.status])


@pytest.mark.parametrize('config_of', ['kapi'], indirect=True)
async def test_load_scales_a_deployment_up(admin, agent, controllers, until, monkeypatch):
    async def usage(client, path, selector, metric=None):
        assert selector == 'app=web'
        found = (await admin.list(PODS, 'default', label_selector=selector)).items
        stamp = format_time(datetime.now(UTC) + timedelta(seconds=60))
        item = {'timestamp': stamp, 'window': '30s', 'containers': [{'name': 'c', 'usage': {'cpu': '150m'}}]}
        return {'items': [{'metadata': {'name': name_of(p)}, **item} for p in found]}

    monkeypatch.setattr(metrics, '_get', usage)
    monkeypatch.setattr(calc, 'CPU_INITIALIZATION_S', 0.0)
    container = {'name': 'c', 'image': 'x', 'resources': {'requests': {'cpu': '100m'}}}
    template = {'metadata': {'labels': {'app': 'web'}}, 'spec': {'containers': [container]}}
    spec = {'replicas': 1, 'selector': {'matchLabels': {'app': 'web'}}, 'template': template}
    await controllers('deployment', 'replicaset')
    await admin.create(DEPLOYMENTS, {'metadata': {'name': 'web', 'namespace': 'default'}, 'spec': spec})

    async def one_ready() -> bool:
        d = await admin.get(DEPLOYMENTS, 'web', 'default')
        return (d.get('status') or {}).get('readyReplicas') == 1

    await until(one_ready)
    for p in (await admin.list(PODS, 'default')).items:
        await admin.patch(PODS, name_of(p), {'status': {'startTime': OLD}}, 'default', subresource='status')
    target = {'apiVersion': 'apps/v1', 'kind': 'Deployment', 'name': 'web'}
    await admin.create(HORIZONTALPODAUTOSCALERS, {
        'metadata': {'name': 'web', 'namespace': 'default'}, 'spec': {'scaleTargetRef': target, 'maxReplicas': 3},
    })  # fmt: skip
    await controllers('horizontalpodautoscaler')

    async def scaled() -> bool:
        d = await admin.get(DEPLOYMENTS, 'web', 'default')
        h = await admin.get(HORIZONTALPODAUTOSCALERS, 'web', 'default')
        return d['spec']['replicas'] == 2 and condition_is(h, 'ScalingActive') and h['status']['desiredReplicas'] == 2

    await until(scaled)
    h = await admin.get(HORIZONTALPODAUTOSCALERS, 'web', 'default')
    assert h['status']['currentMetrics'][0]['resource']['current'] == {
        'averageUtilization': 150, 'averageValue': '150m'
    }  # fmt: skip
