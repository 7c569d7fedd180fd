"""One object under two names (events.k8s.io and v1, autoscaling v1 and v2); what Tables and selectors say."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web

from kapi.server import respond
from kapi.storage import watchers

EVENTS, NEW_EVENTS = '/api/v1/namespaces/default/events', '/apis/events.k8s.io/v1/namespaces/default/events'
V1, V2 = (f'/apis/autoscaling/{v}/namespaces/default/horizontalpodautoscalers' for v in ('v1', 'v2'))


def event(name: str = 'e') -> dict[str, Any]:
    return {
        'metadata': {'name': name},
        'regarding': {'kind': 'Pod', 'namespace': 'default', 'name': 'p'},
        'note': 'hello',
        'reason': 'Because',
        'type': 'Normal',
        'action': 'Do',
        'eventTime': '2026-01-01T00:00:00.000001Z',
        'reportingController': 'me/x',
        'reportingInstance': 'me-1',
    }


async def test_an_event_is_the_same_object_in_both_groups(api):
    made = await api.post(NEW_EVENTS, event())
    assert made.status == 201
    assert made.json['apiVersion'] == 'events.k8s.io/v1'
    old = (await api.get(f'{EVENTS}/e')).json
    assert (old['apiVersion'], old['message'], old['involvedObject']['name']) == ('v1', 'hello', 'p')
    assert old['metadata']['uid'] == made.json['metadata']['uid']
    assert (await api.get(f'{NEW_EVENTS}/e')).json['note'] == 'hello'
    patched = await api.patch(f'{NEW_EVENTS}/e', {'note': 'changed'})
    assert patched.json['note'] == 'changed'
    assert (await api.get(f'{EVENTS}/e')).json['message'] == 'changed'


async def test_events_of_the_newer_group_are_selected_and_watched_in_its_words(api):
    async with api.watch(f'{NEW_EVENTS}?watch=true&fieldSelector=regarding.name%3Dp') as next_event:
        await api.post(EVENTS, {'metadata': {'name': 'old'}, 'message': 'm', 'involvedObject': {
            'kind': 'Pod', 'namespace': 'default', 'name': 'p'}})  # fmt: skip
        seen = await next_event()
    assert (seen['object']['apiVersion'], seen['object']['note']) == ('events.k8s.io/v1', 'm')
    listed = (await api.get(f'{NEW_EVENTS}?fieldSelector=regarding.name%3Dq')).json
    assert (listed['apiVersion'], listed['items']) == ('events.k8s.io/v1', [])


async def test_an_autoscaler_written_as_v1_reads_as_v2_and_back(api):
    spec = {'scaleTargetRef': {'kind': 'Deployment', 'name': 'd'}, 'maxReplicas': 3}
    made = await api.post(V1, {'metadata': {'name': 'h'}, 'spec': {**spec, 'targetCPUUtilizationPercentage': 70}})
    assert made.status == 201
    assert made.json['spec']['targetCPUUtilizationPercentage'] == 70
    assert made.json['status'] == {'currentReplicas': 0, 'desiredReplicas': 0}
    table = {'Accept': 'application/json;as=Table;v=v1;g=meta.k8s.io'}
    cells = [(await api.get(path, headers=table)).json['rows'][0]['cells'][:5] for path in (V1, V2)]
    assert cells[0] == cells[1] == ['h', 'Deployment/d', 'cpu: <unknown>/70%', '1', 3]
    metric = (await api.get(f'{V2}/h')).json['spec']['metrics'][0]
    assert metric['resource'] == {'name': 'cpu', 'target': {'type': 'Utilization', 'averageUtilization': 70}}


async def test_what_v1_cannot_say_of_an_autoscaler_survives_a_write_through_it(api):
    target = {'type': 'Utilization', 'averageUtilization': 5}
    memory = {'type': 'Resource', 'resource': {'name': 'memory', 'target': target}}
    spec = {'scaleTargetRef': {'kind': 'Deployment', 'name': 'd'}, 'maxReplicas': 3, 'metrics': [memory]}
    await api.post(V2, {'metadata': {'name': 'm'}, 'spec': spec})
    seen = (await api.get(f'{V1}/m')).json
    seen['spec']['maxReplicas'] = 9
    assert (await api.put(f'{V1}/m', seen)).status == 200
    kept = (await api.get(f'{V2}/m')).json
    assert kept['spec']['metrics'] == [memory]
    assert kept['spec']['maxReplicas'] == 9
    assert 'annotations' not in kept['metadata']


async def test_a_broken_annotation_of_an_autoscaler_is_told_by_name(api):
    spec = {'scaleTargetRef': {'kind': 'Deployment', 'name': 'd'}, 'maxReplicas': 3}
    notes = {'autoscaling.alpha.kubernetes.io/metrics': '{'}
    reply = await api.post(V1, {'metadata': {'name': 'b', 'annotations': notes}, 'spec': spec})
    assert reply.status == 400
    assert 'autoscaling.alpha.kubernetes.io/metrics' in reply.json['message']


async def test_a_table_that_declares_its_own_name_column_shows_it_once(api):
    table = 'application/json;as=Table;v=v1;g=meta.k8s.io'
    for path in (EVENTS, '/apis/storage.k8s.io/v1/storageclasses'):
        names = [c['name'] for c in (await api.get(path, headers={'Accept': table})).json['columnDefinitions']]
        assert names.count('Name') == 1


async def test_an_absent_boolean_is_selected_as_false(api):
    await api.post('/api/v1/nodes', {'metadata': {'name': 'n'}, 'status': {'phase': 'Running'}})
    found = (await api.get('/api/v1/nodes?fieldSelector=spec.unschedulable%3Dfalse')).json['items']
    assert [n['metadata']['name'] for n in found] == ['n']
    assert found[0]['status']['phase'] == 'Running', 'a node is created with its status'


async def test_a_failing_json_patch_is_told_in_one_short_sentence(api):
    await api.post('/api/v1/namespaces/default/configmaps', {'metadata': {'name': 'c'}, 'data': {'long': 'x' * 5000}})
    for operation in (
        {'op': 'test', 'path': '/data/long', 'value': 'y'},
        {'op': 'remove', 'path': '/data/none'},
        {'op': 'replace', 'path': '/none/deep', 'value': 1},
    ):
        reply = await api.patch('/api/v1/namespaces/default/configmaps/c', [operation], 'json-patch')
        assert reply.status == 422
        assert len(reply.json['message']) < 200
        assert operation['path'] in reply.json['message']


async def test_a_status_write_takes_metadata_but_for_what_the_kind_keeps(api):
    await api.post('/api/v1/namespaces', {'metadata': {'name': 'marked'}})
    change = {'metadata': {'labels': {'a': 'b'}, 'annotations': {'c': 'd'}}, 'status': {'phase': 'Active'}}
    seen = (await api.patch('/api/v1/namespaces/marked/status', change)).json['metadata']
    assert (seen['labels']['a'], seen['annotations']) == ('b', {'c': 'd'})
    containers = [{'name': 'c', 'image': 'i'}]
    template = {'metadata': {'labels': {'x': 'y'}}, 'spec': {'containers': containers}}
    spec = {'selector': {'matchLabels': {'x': 'y'}}, 'template': template}
    base = '/apis/apps/v1/namespaces/default/deployments'
    await api.post(base, {'metadata': {'name': 'd'}, 'spec': spec})
    kept = (await api.patch(f'{base}/d/status', {**change, 'status': {'replicas': 1}})).json
    assert 'labels' not in kept['metadata']
    assert kept['metadata']['annotations'] == {'c': 'd'}


async def test_a_watcher_that_never_reads_is_cut_and_the_others_go_on(world, api, monkeypatch):
    monkeypatch.setattr(watchers, 'WATCH_BUFFER_EVENTS_MAX', 10)
    base = '/api/v1/namespaces/default/configmaps'
    writes = 60
    await api.post(base, {'metadata': {'name': 'big'}})
    async with api.session.get(f'{api.base}{base}?watch=true') as deaf, api.watch(f'{base}?watch=true') as next_event:
        assert deaf.status == 200
        assert (await next_event())['type'] == 'ADDED'
        for i in range(writes):
            await api.put(f'{base}/big', {'metadata': {'name': 'big'}, 'data': {'n': str(i), 'pad': 'x' * 500_000}})
            assert (await next_event())['object']['data']['n'] == str(i)
        assert len(world.server.cache.resource('/registry/configmaps/').hub) == 1, 'only the reader is left'
        with pytest.raises(aiohttp.ClientError):
            await deaf.read()


async def test_a_proxied_web_socket_reaches_the_pod(api):
    async def echo(request: web.BaseRequest) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=('chat',))
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(f'{request.path} {message.data}')
        return socket

    runner = web.ServerRunner(web.Server(echo), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, '127.0.0.1', 0).start()
    base = '/api/v1/namespaces/default/pods'
    await api.post('/api/v1/namespaces/default/serviceaccounts', {'metadata': {'name': 'default'}})
    await api.post(base, {'metadata': {'name': 'p'}, 'spec': {'containers': [{'name': 'c', 'image': 'i'}]}})
    await api.patch(f'{base}/p/status', {'status': {'podIP': '127.0.0.1'}})
    url = f'{api.base}{base}/p:{runner.addresses[0][1]}/proxy/room'
    async with api.session.ws_connect(url, protocols=('chat',)) as socket:
        assert socket.protocol == 'chat'
        await socket.send_str('hello')
        assert (await socket.receive()).data == '/room hello'
    await runner.cleanup()
    with pytest.raises(aiohttp.WSServerHandshakeError, match='503'):
        await api.session.ws_connect(url)


async def test_a_proxied_request_reaches_the_pod_and_leaves_credentials_behind(api):
    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(text=f'{request.method} {request.raw_path} {request.headers.get("Authorization")}')

    runner = web.ServerRunner(web.Server(answer), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, '127.0.0.1', 0).start()
    port = runner.addresses[0][1]
    base = '/api/v1/namespaces/default/pods'
    await api.post('/api/v1/namespaces/default/serviceaccounts', {'metadata': {'name': 'default'}})
    made = await api.post(base, {'metadata': {'name': 'p'}, 'spec': {'containers': [{'name': 'c', 'image': 'i'}]}})
    assert made.status == 201, made.text
    none = await api.get(f'{base}/p:{port}/proxy/')
    assert (none.status, none.json['message']) == (400, 'pod p has no address yet')
    await api.patch(f'{base}/p/status', {'status': {'podIP': '127.0.0.1'}})
    reply = await api.call('POST', f'{base}/p:{port}/proxy/a/b?c=d', b'x')
    assert reply.text == 'POST /a/b?c=d None'
    assert (await api.get(f'{base}/ftp:p:{port}/proxy/')).status == 400
    await runner.cleanup()
    assert (await api.get(f'{base}/p:{port}/proxy/')).status == 503


FORMS = {
    'json': 'application/json', 'yaml': 'application/yaml',
    'table': 'application/json;as=Table;v=v1;g=meta.k8s.io',
    'partial': 'application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io',
}  # fmt: skip


@pytest.mark.parametrize('form', FORMS)
async def test_a_long_list_is_whole_in_every_form_and_others_have_their_turn(api: Any, form: str) -> None:
    count = 3 * respond.SLICE_ITEMS + 1
    text = 'a: b\n- c\n\n  d "e" #f'
    bodies = [{'metadata': {'name': f'c{n:04}'}, 'data': {'text': text, 'n': str(n)}} for n in range(count)]
    answers = await asyncio.gather(*(api.post('/api/v1/namespaces/default/configmaps', body) for body in bodies))
    assert {a.status for a in answers} == {201}
    turns = 0

    async def tick() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    made: list[int] = []
    sliced = respond._sliced

    async def watched(*args: Any) -> Any:
        before = turns
        found = await sliced(*args)
        made.append(turns - before)
        return found

    ticking = asyncio.ensure_future(tick())
    try:
        respond._sliced = watched
        listed = await api.get('/api/v1/namespaces/default/configmaps', headers={'Accept': FORMS[form]})
    finally:
        respond._sliced = sliced
        ticking.cancel()
    found = yaml.safe_load(listed.text) if form == 'yaml' else listed.json
    if form == 'table':
        names = [row['cells'][0] for row in found['rows']]
    else:
        names = [i['metadata']['name'] for i in found['items']]
    assert [n for n in names if n.startswith('c0')] == [b['metadata']['name'] for b in bodies]
    if form in {'json', 'yaml'}:
        assert all(i['data']['text'] == text for i in found['items'] if 'text' in i.get('data', {}))
    assert list(found)[:2] == (['apiVersion', 'items'] if form == 'yaml' else ['kind', 'apiVersion'])
    assert form == 'json' or min(made) >= 3
