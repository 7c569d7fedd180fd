"""ResourceQuota, exact: races within one server and across two, and what counts for what."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kapi.storage.urls import open_storage

CORE = '/api/v1/namespaces/default'


def quota(name: str = 'q', scopes: list[str] | None = None, **hard: str) -> dict[str, Any]:
    spec: dict[str, Any] = {'hard': {k.replace('_', '.'): v for k, v in hard.items()}}
    return {'metadata': {'name': name}, 'spec': {**spec, **({'scopes': scopes} if scopes else {})}}


def configmap(i: int | str) -> dict[str, Any]:
    return {'metadata': {'name': f'c{i}'}}


async def fill(apis: list[Any], n: int) -> list[int]:
    replies = await asyncio.gather(*(apis[i % len(apis)].post(f'{CORE}/configmaps', configmap(i)) for i in range(n)))
    return sorted(r.status for r in replies)


async def test_fifty_creates_against_ten_places_yield_ten_on_two_servers(serve: Any, env: Any) -> None:
    storage = open_storage('memory://', env)
    async with serve(storage) as one, serve(storage) as two:
        apis = [await w.user('admin', 'system:masters') for w in (one, two)]
        assert (await apis[0].post(f'{CORE}/resourcequotas', quota(configmaps='10'))).status == 201
        await apis[1].get(f'{CORE}/resourcequotas/q')
        assert await fill(apis, 50) == [201] * 10 + [403] * 40
        assert len((await apis[1].get(f'{CORE}/configmaps')).json['items']) == 10
        status = (await apis[0].get(f'{CORE}/resourcequotas/q')).json['status']
        assert status == {'hard': {'configmaps': '10'}, 'used': {'configmaps': '10'}}


async def test_the_refusal_says_what_was_asked_used_and_allowed(api: Any) -> None:
    await api.post(f'{CORE}/resourcequotas', quota(configmaps='1'))
    await api.get(f'{CORE}/resourcequotas')
    await api.post(f'{CORE}/configmaps', configmap(1))
    refused = await api.post(f'{CORE}/configmaps', configmap(2))
    assert refused.status == 403
    expected = 'exceeded quota: q, requested: configmaps=1, used: configmaps=1, limited: configmaps=1'
    assert refused.json['message'] == f'configmaps "c2" is forbidden: {expected}'


async def test_a_place_is_free_again_after_deletion_failure_and_dry_run(api: Any) -> None:
    await api.post(f'{CORE}/resourcequotas', quota(configmaps='2'))
    await api.post(f'{CORE}/configmaps', configmap(1))
    for _ in range(3):
        assert (await api.post(f'{CORE}/configmaps', configmap(1))).status == 409
        assert (await api.post(f'{CORE}/configmaps?dryRun=All', configmap(2))).status == 201
    assert (await api.post(f'{CORE}/configmaps', configmap(2))).status == 201
    assert (await api.delete(f'{CORE}/configmaps/c1')).status == 200
    assert (await api.post(f'{CORE}/configmaps', configmap(3))).status == 201
    assert (await api.post(f'{CORE}/configmaps?dryRun=All', configmap(4))).status == 403


async def test_two_quotas_are_taken_together_or_not_at_all(api: Any) -> None:
    await api.post(f'{CORE}/resourcequotas', quota('a', configmaps='5'))
    await api.post(f'{CORE}/resourcequotas', quota('b', configmaps='0'))
    assert (await api.post(f'{CORE}/configmaps', configmap(1))).status == 403
    assert (await api.get(f'{CORE}/resourcequotas/a')).json['status']['used'] == {'configmaps': '0'}


async def test_pods_must_state_what_a_quota_counts_and_finished_ones_are_free(api: Any) -> None:
    await api.post(f'{CORE}/resourcequotas', quota(requests_cpu='1', pods='2'))
    silent = {'metadata': {'name': 'p'}, 'spec': {'containers': [{'name': 'c', 'image': 'i'}]}}
    refused = await api.post(f'{CORE}/pods', silent)
    assert 'failed quota: q: must specify requests.cpu for: c' in refused.json['message']

    def pod(name: str, cpu: str) -> dict[str, Any]:
        resources = {'requests': {'cpu': cpu}}
        containers = [{'name': 'c', 'image': 'i', 'resources': resources}]
        return {'metadata': {'name': name}, 'spec': {'containers': containers}}

    assert (await api.post(f'{CORE}/pods', pod('a', '600m'))).status == 201
    refused = await api.post(f'{CORE}/pods', pod('b', '500m'))
    assert 'requested: requests.cpu=500m, used: requests.cpu=600m, limited: requests.cpu=1' in refused.json['message']
    await api.patch(f'{CORE}/pods/a/status', {'status': {'phase': 'Succeeded'}})
    assert (await api.post(f'{CORE}/pods', pod('b', '500m'))).status == 201


async def test_an_update_that_asks_for_more_counts(api: Any) -> None:
    await api.post(f'{CORE}/resourcequotas', quota(services_nodeports='1'))
    service = {'metadata': {'name': 's'}, 'spec': {'type': 'ClusterIP', 'ports': [{'port': 1}]}}
    assert (await api.post(f'{CORE}/services', service)).status == 201
    assert (await api.patch(f'{CORE}/services/s', {'spec': {'type': 'NodePort'}})).status == 200
    second = {'metadata': {'name': 't'}, 'spec': {'type': 'NodePort', 'ports': [{'port': 1}]}}
    assert (await api.post(f'{CORE}/services', second)).status == 403
    assert (await api.delete(f'{CORE}/services/s')).status == 200
    assert (await api.post(f'{CORE}/services', second)).status == 201


@pytest.mark.parametrize(('scope', 'statuses'), [('BestEffort', (403, 201)), ('NotBestEffort', (201, 403))])
async def test_scopes_choose_pods(api: Any, scope: str, statuses: tuple[int, int]) -> None:
    await api.post(f'{CORE}/resourcequotas', quota(scopes=[scope], pods='0'))
    requests = {'requests': {'cpu': '1'}}
    for name, resources, status in (('a', {}, statuses[0]), ('b', requests, statuses[1])):
        containers = [{'name': 'c', 'image': 'i', 'resources': resources}]
        body = {'metadata': {'name': name}, 'spec': {'containers': containers}}
        assert (await api.post(f'{CORE}/pods', body)).status == status, name


TERM = {'labelSelector': {'matchLabels': {'a': 'b'}}, 'topologyKey': 'kubernetes.io/hostname'}
ACROSS = {'podAffinity': {'requiredDuringSchedulingIgnoredDuringExecution': [{**TERM, 'namespaces': ['other']}]}}
ANYWHERE = {'podAntiAffinity': {'preferredDuringSchedulingIgnoredDuringExecution': [
    {'weight': 1, 'podAffinityTerm': {**TERM, 'namespaceSelector': {}}}
]}}  # fmt: skip
HERE = {'podAffinity': {'requiredDuringSchedulingIgnoredDuringExecution': [TERM]}}


@pytest.mark.parametrize(('selector', 'counted', 'free'), [
    (('Terminating', 'Exists', []), {'activeDeadlineSeconds': 5}, {}),
    (('NotTerminating', 'Exists', []), {}, {'activeDeadlineSeconds': 5}),
    (('BestEffort', 'Exists', []), {}, {'requests': {'cpu': '1'}}),
    (('NotBestEffort', 'Exists', []), {'requests': {'memory': '1Mi'}}, {}),
    (('PriorityClass', 'Exists', []), {'priorityClassName': 'high'}, {}),
    (('PriorityClass', 'In', ['high', 'x']), {'priorityClassName': 'high'}, {'priorityClassName': 'low'}),
    (('PriorityClass', 'NotIn', ['high']), {'priorityClassName': 'low'}, {'priorityClassName': 'high'}),
    (('PriorityClass', 'DoesNotExist', []), {}, {'priorityClassName': 'low'}),
    (('CrossNamespacePodAffinity', 'Exists', []), {'affinity': ACROSS}, {'affinity': HERE}),
    (('CrossNamespacePodAffinity', 'Exists', []), {'affinity': ANYWHERE}, {}),
])  # fmt: skip
async def test_every_scope_counts_its_own_pods_and_no_others(
    api: Any, selector: tuple[str, str, list[str]], counted: Any, free: Any
) -> None:
    for n, name in enumerate(('low', 'high')):
        await api.post('/apis/scheduling.k8s.io/v1/priorityclasses', {'metadata': {'name': name}, 'value': n + 1})
    scope, operator, values = selector
    wanted = [{'scopeName': scope, 'operator': operator, **({'values': values} if values else {})}]
    spec = {'hard': {'pods': '0'}, 'scopeSelector': {'matchExpressions': wanted}}
    assert (await api.post(f'{CORE}/resourcequotas', {'metadata': {'name': 'q'}, 'spec': spec})).status == 201
    await api.get(f'{CORE}/resourcequotas')
    for name, given, status in (('counted', counted, 403), ('free', free, 201)):
        more = dict(given)
        resources = {'requests': more.pop('requests')} if 'requests' in more else {}
        containers = [{'name': 'c', 'image': 'i', 'resources': resources}]
        made = await api.post(f'{CORE}/pods', {'metadata': {'name': name}, 'spec': {'containers': containers, **more}})
        assert made.status == status, (name, made.text)


@pytest.mark.parametrize(
    ('hard', 'scopes', 'selector', 'why'),
    [
        ('pods', ['BestEffort', 'NotBestEffort'], [], 'conflicting scopes'),
        ('cpu', ['BestEffort'], [], 'unsupported scope applied to resource'),
        ('secrets', ['Terminating'], [], 'unsupported scope applied to resource'),
        ('pods', ['Sometimes'], [], 'unsupported scope'),
        ('pods', [], [('Terminating', 'In', ['x'])], "must be 'Exist' when scope is any of"),
        ('pods', [], [('PriorityClass', 'In', [])], 'must be at least one value'),
        ('pods', [], [('PriorityClass', 'Exists', ['x'])], 'must be no value'),
        ('pods', [], [('PriorityClass', 'Near', [])], 'not a valid selector operator'),
        ('pods', [], [('VolumeAttributesClass', 'Exists', [])], 'unsupported scope applied to resource'),
        ('requests.storage', [], [('VolumeAttributesClass', 'In', ['gold'])], ''),
        ('limits.memory', ['NotTerminating'], [('PriorityClass', 'NotIn', ['x'])], ''),
        ('count/jobs.batch', ['Terminating'], [], ''),
    ],
)
async def test_scopes_must_suit_each_other_and_what_is_limited(
    api: Any, hard: str, scopes: list[str], selector: list[tuple[str, str, list[str]]], why: str
) -> None:
    wanted = [{'scopeName': s, 'operator': o, 'values': v} for s, o, v in selector]
    spec = {'hard': {hard: '1'}, 'scopes': scopes, 'scopeSelector': {'matchExpressions': wanted}}
    body = {'metadata': {'name': 'scoped'}, 'spec': spec}
    made = await api.post('/api/v1/namespaces/default/resourcequotas?dryRun=All', body)
    assert (made.status, why in made.text) == (422 if why else 201, True), made.text
