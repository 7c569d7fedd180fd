"""metrics.k8s.io: the node agents' figures, whoever asks; here small HTTPS servers play the agents."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from kapi.usage.figures import Figures, Unreachable
from kapi.usage.objects import go_duration, of_pods
from kcore.sim import World

GROUP = '/apis/metrics.k8s.io/v1beta1'
AT = '2026-01-02T03:04:05Z'
TABLE = {'Accept': 'application/json;as=Table;v=v1;g=meta.k8s.io'}


def use(nano_cores: int | None, memory: int) -> dict[str, Any]:
    cpu: dict[str, Any] = {'time': AT, 'usageCoreNanoSeconds': 1}
    if nano_cores is not None:
        cpu |= {'usageNanoCores': nano_cores, 'windowSeconds': 10.004}
    return {'cpu': cpu, 'memory': {'time': AT, 'workingSetBytes': memory}}


def pod_stats(name: str, *containers: tuple[str, int | None, int]) -> dict[str, Any]:
    parts = [{'name': c, **use(cpu, memory)} for c, cpu, memory in containers]
    return {'podRef': {'name': name, 'namespace': 'default', 'uid': 'u'}, 'containers': parts, **use(1, 1)}


SUMMARY = {
    'node': use(1_250_000_000, 3 << 30),
    'pods': [
        pod_stats('web', ('a', 123_456_789, 4096 * 1025), ('b', 5_000_000, 1 << 20)),
        pod_stats('young', ('c', None, 4096)),
        pod_stats('idle', ('c', 0, 4096)),
    ],
}


@pytest.fixture
async def agent(authority: Any) -> AsyncIterator[SimpleNamespace]:
    asked: list[str] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(str(request.rel_url))
        return web.json_response(SUMMARY)

    runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0.1)
    await runner.setup()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*authority.issue('agent', 'system:node:n1', 'system:nodes'))
    await web.TCPSite(runner, '127.0.0.1', 0, ssl_context=tls).start()
    yield SimpleNamespace(port=runner.addresses[0][1], asked=asked)
    await runner.cleanup()


async def make_node(api: Any, name: str, port: int) -> None:
    await api.post('/api/v1/nodes', {'metadata': {'name': name, 'labels': {'disk': name}}})
    addresses = [{'type': 'InternalIP', 'address': '127.0.0.1'}]
    status = {'addresses': addresses, 'daemonEndpoints': {'kubeletEndpoint': {'Port': port}}}
    await api.patch(f'/api/v1/nodes/{name}/status', {'status': status})


async def make_pod(api: Any, name: str, phase: str = 'Running', node: str = 'n1') -> None:
    where = '/api/v1/namespaces/default/pods'
    spec = {'containers': [{'name': 'c', 'image': 'i'}], 'nodeName': node}
    made = await api.post(where, {'metadata': {'name': name, 'labels': {'app': name}}, 'spec': spec})
    assert made.status == 201, made.text
    await api.patch(f'{where}/{name}/status', {'status': {'phase': phase}})


@pytest.fixture
async def world(serve: Any, authority: Any, agent: Any) -> AsyncIterator[SimpleNamespace]:
    cert, key = authority.issue('kubelet-client', 'kube-apiserver-kubelet-client', 'system:masters')
    async with serve(kubelet_client_cert=cert, kubelet_client_key=key) as running:
        api = await running.user('admin', 'system:masters')
        await make_node(api, 'n1', agent.port)
        for name in ('web', 'young', 'idle', 'elsewhere'):
            await make_pod(api, name)
        running.api = api
        yield running


async def test_a_pod_is_shown_with_what_each_container_uses(world: Any) -> None:
    got = (await world.api.get(f'{GROUP}/namespaces/default/pods/web')).json
    assert got['metadata'].pop('creationTimestamp')
    assert got == {
        'kind': 'PodMetrics', 'apiVersion': 'metrics.k8s.io/v1beta1',
        'metadata': {'name': 'web', 'namespace': 'default', 'labels': {'app': 'web'}},
        'timestamp': AT, 'window': '10.004s',
        'containers': [
            {'name': 'a', 'usage': {'cpu': '123456789n', 'memory': '4100Ki'}},
            {'name': 'b', 'usage': {'cpu': '5m', 'memory': '1Mi'}},
        ],
    }  # fmt: skip


async def test_a_node_is_shown_with_what_it_uses(world: Any) -> None:
    got = (await world.api.get(f'{GROUP}/nodes')).json
    assert (got['kind'], [n['metadata']['name'] for n in got['items']]) == ('NodeMetricsList', ['n1'])
    assert got['items'][0]['usage'] == {'cpu': '1250m', 'memory': '3Gi'}
    assert (await world.api.get(f'{GROUP}/nodes/n1')).json['window'] == '10.004s'


async def test_pods_are_chosen_by_namespace_and_selectors(world: Any) -> None:
    async def names(path: str) -> list[str]:
        return [p['metadata']['name'] for p in (await world.api.get(f'{GROUP}/{path}')).json['items']]

    assert await names('pods') == ['idle', 'web']
    assert await names('namespaces/default/pods?labelSelector=app%3Dweb') == ['web']
    assert await names('namespaces/default/pods?fieldSelector=metadata.name%3Didle') == ['idle']
    assert await names('namespaces/kube-system/pods') == []
    assert await names('nodes?labelSelector=disk%3Dother') == []


@pytest.mark.parametrize(
    ('path', 'message'),
    [
        ('namespaces/default/pods/young', 'podmetrics.metrics.k8s.io "default/young" not found'),
        ('namespaces/default/pods/elsewhere', 'podmetrics.metrics.k8s.io "default/elsewhere" not found'),
        ('namespaces/default/pods/none', 'pods "none" not found'),
        ('nodes/none', 'nodes "none" not found'),
    ],
)
async def test_what_has_no_figures_is_not_found(world: Any, path: str, message: str) -> None:
    found = await world.api.get(f'{GROUP}/{path}')
    assert (found.status, found.json['message']) == (404, message)


async def test_a_pod_that_has_ended_uses_nothing(world: Any) -> None:
    await world.api.patch('/api/v1/namespaces/default/pods/web/status', {'status': {'phase': 'Succeeded'}})
    assert (await world.api.get(f'{GROUP}/namespaces/default/pods/web')).status == 404


async def test_tables_and_partial_metadata_are_served_too(world: Any) -> None:
    table = (await world.api.get(f'{GROUP}/namespaces/default/pods?labelSelector=app=web', headers=TABLE)).json
    assert [c['name'] for c in table['columnDefinitions']] == ['Name', 'cpu', 'memory', 'Window']
    assert table['rows'][0]['cells'] == ['web', '128456789n', '5124Ki', '10.004s']
    partial = {'Accept': 'application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io'}
    assert (await world.api.get(f'{GROUP}/nodes', headers=partial)).json['items'][0]['metadata']['name'] == 'n1'


async def test_nothing_can_be_written_or_watched(world: Any) -> None:
    for method, path in (('POST', 'namespaces/default/pods'), ('DELETE', 'nodes/n1'), ('GET', 'nodes?watch=1')):
        assert (await world.api.call(method, f'{GROUP}/{path}', {} if method == 'POST' else None)).status == 405


async def test_the_group_is_discovered(world: Any) -> None:
    legacy = (await world.api.get(GROUP)).json['resources']
    assert [(r['name'], r['kind'], r['verbs']) for r in legacy] == [
        ('nodes', 'NodeMetrics', ['get', 'list']), ('pods', 'PodMetrics', ['get', 'list']),
    ]  # fmt: skip
    accept = {'Accept': 'application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList'}
    groups = (await world.api.get('/apis', headers=accept)).json['items']
    assert 'metrics.k8s.io' in {g['metadata']['name'] for g in groups}
    schemas = (await world.api.get('/openapi/v3/apis/metrics.k8s.io/v1beta1')).json['components']['schemas']
    assert 'io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetrics' in schemas


async def test_who_may_view_may_see_pods_but_not_nodes_of_the_cluster(world: Any) -> None:
    subject = {'kind': 'User', 'name': 'vera', 'apiGroup': 'rbac.authorization.k8s.io'}
    role = {'kind': 'ClusterRole', 'name': 'view', 'apiGroup': 'rbac.authorization.k8s.io'}
    body = {'metadata': {'name': 'v'}, 'subjects': [subject], 'roleRef': role}
    await world.api.post('/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings', body)
    vera = await world.user('vera')
    assert (await vera.get(f'{GROUP}/namespaces/default/pods')).status == 200
    assert (await vera.get(f'{GROUP}/nodes')).status == 403


async def test_many_who_ask_at_once_cost_an_agent_one_question(world: Any, agent: Any) -> None:
    await asyncio.gather(*(world.api.get(f'{GROUP}/{p}') for p in ('nodes', 'pods', 'nodes/n1') * 5))
    assert agent.asked == ['/stats/summary?only_cpu_and_memory=true']


async def test_a_node_that_refuses_costs_the_others_nothing(world: Any) -> None:
    await make_node(world.api, 'n2', 1)
    await make_pod(world.api, 'lost', node='n2')
    assert [n['metadata']['name'] for n in (await world.api.get(f'{GROUP}/nodes')).json['items']] == ['n1']
    assert (await world.api.get(f'{GROUP}/namespaces/default/pods/lost')).status == 404


def simulate(main: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
    world = World(1)
    return world.run(main(world.host('a').env))


def node(name: str) -> dict[str, Any]:
    return {'metadata': {'name': name}}


def test_a_mute_node_delays_one_answer_by_its_deadline_and_the_next_not_at_all() -> None:
    async def main(env: Any) -> list[tuple[float, list[str]]]:
        async def fetch(of: Any) -> Any:
            if of['metadata']['name'] == 'mute':
                await asyncio.Event().wait()
            return SUMMARY

        figures, seen = Figures(fetch, env.clock), []
        for pause in (0.0, 3.0, 10.0):
            await asyncio.sleep(pause)
            begun = env.clock.monotonic()
            found = await figures.of([node('mute'), node('good')])
            seen.append((round(env.clock.monotonic() - begun, 3), sorted(found)))
        await figures.close()
        return seen

    assert simulate(main) == [(5.0, ['good']), (0.0, ['good']), (5.0, ['good'])]


def test_a_node_that_answered_nonsense_is_asked_again_later() -> None:
    async def main(env: Any) -> list[int]:
        asked = 0

        async def fetch(of: Any) -> Any:
            nonlocal asked
            asked += 1
            raise Unreachable('nonsense')

        figures, counts = Figures(fetch, env.clock), []
        for pause in (0.0, 9.0, 2.0):
            await asyncio.sleep(pause)
            assert not await figures.of([node('n')])
            counts.append(asked)
        await figures.close()
        return counts

    assert simulate(main) == [1, 1, 2]


def test_durations_are_printed_as_go_does() -> None:
    assert [go_duration(s) for s in (10, 10.004, 15.25, 60.5, 3661)] == ['10s', '10.004s', '15.25s', '1m0.5s', '1h1m1s']


def test_a_pod_of_the_same_name_on_another_node_is_another_pod() -> None:
    meta = {'name': 'web', 'namespace': 'default'}
    pod = {'metadata': meta, 'spec': {'nodeName': 'n2'}, 'status': {'phase': 'Running'}}
    assert of_pods([pod], {'n1': SUMMARY}, datetime.now(UTC)) == []
