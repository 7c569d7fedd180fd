"""Lists, selectors, pages, Tables, watches."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import WSMsgType

from kapi.server.respond import CHUNK_BYTES
from kapi.storage.urls import open_storage

CM = '/api/v1/namespaces/default/configmaps'
TABLE = {'Accept': 'application/json;as=Table;v=v1;g=meta.k8s.io,application/json'}


async def fill(api: Any, *names: str, **labels: str) -> list[Any]:
    made = [await api.post(CM, {'metadata': {'name': n, 'labels': labels}, 'data': {'n': n}}) for n in names]
    return [m.json for m in made]


def names_of(reply: Any) -> list[str]:
    return [i['metadata']['name'] for i in reply.json['items']]


async def test_a_list_is_ordered_by_name_and_carries_a_version(api: Any) -> None:
    await fill(api, 'c', 'a', 'b')
    listed = await api.get(CM)
    assert names_of(listed) == ['a', 'b', 'c']
    assert listed.json['kind'] == 'ConfigMapList'
    assert int(listed.json['metadata']['resourceVersion']) > 0


async def test_an_empty_list_has_items(api: Any) -> None:
    assert (await api.get('/api/v1/namespaces/kube-public/secrets')).json['items'] == []


async def test_selectors_choose(api: Any) -> None:
    await fill(api, 'a', 'b', tier='x')
    await fill(api, 'c', tier='y')
    assert names_of(await api.get(f'{CM}?labelSelector=tier%20in%20(x)')) == ['a', 'b']
    assert names_of(await api.get(f'{CM}?labelSelector=tier!%3Dx')) == ['c']
    assert names_of(await api.get(f'{CM}?fieldSelector=metadata.name%3Db')) == ['b']
    assert names_of(await api.get('/api/v1/configmaps?fieldSelector=metadata.namespace%3Ddefault')) == ['a', 'b', 'c']


@pytest.mark.parametrize('query', ['labelSelector=a%3Db%3Dc', 'fieldSelector=spec.nope%3D1', 'limit=x', 'continue=zz'])
async def test_what_cannot_be_understood_is_400(api: Any, query: str) -> None:
    assert (await api.get(f'{CM}?{query}')).status == 400


async def test_a_limit_below_zero_is_none_and_one_beyond_64_bits_is_refused(api: Any) -> None:
    await fill(api, *'abc')
    assert names_of(await api.get(f'{CM}?limit=-1')) == list('abc')
    refused = await api.get(f'{CM}?limit={"9" * 30}')
    assert (refused.status, 'value out of range' in refused.json['message']) == (400, True)


async def test_pages_join_to_the_first_pages_state(api: Any) -> None:
    await fill(api, *'abcde')
    first = (await api.get(f'{CM}?limit=2')).json
    assert first['metadata']['remainingItemCount'] == 3
    await api.delete(f'{CM}/d')
    await fill(api, 'f')
    found, token = [i['metadata']['name'] for i in first['items']], first['metadata']['continue']
    while token:
        page = (await api.get(f'{CM}?limit=2&continue={token}')).json
        assert page['metadata']['resourceVersion'] == first['metadata']['resourceVersion']
        found += [i['metadata']['name'] for i in page['items']]
        token = page['metadata'].get('continue')
    assert found == list('abcde')


async def test_an_expired_page_is_410_with_a_token_to_go_on(api: Any, monkeypatch: Any) -> None:
    await fill(api, *'abcd')
    token = (await api.get(f'{CM}?limit=2')).json['metadata']['continue']
    monkeypatch.setattr('kapi.storage.memory.LOG_EVENTS_MAX', 4)
    await fill(api, *'efghij')
    expired = await api.get(f'{CM}?limit=2&continue={token}')
    assert (expired.status, expired.json['reason']) == (410, 'Expired')
    going_on = await api.get(f'{CM}?continue={expired.json["metadata"]["continue"]}')
    assert names_of(going_on) == list('cdefghij')
    exact = await api.get(f'{CM}?resourceVersion=1&resourceVersionMatch=Exact')
    assert (exact.status, exact.json['reason']) == (410, 'Expired')
    assert exact.json['message'] == 'The resourceVersion for the provided list is too old.'
    assert exact.json['metadata'] == {}


async def test_a_page_has_the_version_of_its_list_and_takes_no_other(api: Any) -> None:
    await fill(api, *'abc')
    token = (await api.get(f'{CM}?limit=2')).json['metadata']['continue']
    assert names_of(await api.get(f'{CM}?limit=2&continue={token}&resourceVersion=0')) == ['c']
    refused = await api.get(f'{CM}?limit=2&continue={token}&resourceVersion=5')
    assert (refused.status, refused.json['reason']) == (400, 'BadRequest')
    assert refused.json['message'] == 'specifying resource version is not allowed when using continue'


async def test_a_version_ahead_is_504_with_its_cause(api: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr('kapi.storage.cache.FUTURE_WAIT_S', 0.01)
    ahead = await api.get(f'{CM}?resourceVersion=1000000')
    assert (ahead.status, ahead.json['reason']) == (504, 'Timeout')
    assert ahead.json['details']['causes'][0]['reason'] == 'ResourceVersionTooLarge'


async def test_exact_versions_and_senseless_combinations(api: Any) -> None:
    made = await fill(api, 'a', 'b')
    rv = made[0]['metadata']['resourceVersion']
    assert names_of(await api.get(f'{CM}?resourceVersion={rv}&resourceVersionMatch=Exact')) == ['a']
    senseless = await api.get(f'{CM}?resourceVersionMatch=Exact')
    assert senseless.status == 422
    assert 'resourceVersionMatch is forbidden unless resourceVersion is provided' in senseless.json['message']


async def test_a_table_has_a_cell_for_every_column(api: Any) -> None:
    await fill(api, 'a')
    table = (await api.get(CM, headers=TABLE)).json
    assert [c['name'] for c in table['columnDefinitions']] == ['Name', 'Data', 'Age']
    assert len(table['rows'][0]['cells']) == 3
    assert table['rows'][0]['object']['kind'] == 'PartialObjectMetadata'
    assert (await api.get(f'{CM}?includeObject=What', headers=TABLE)).status == 400


async def test_a_table_of_flow_schemas_has_the_first_to_match_first(api: Any) -> None:
    path = '/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas'
    rows = [r['cells'] for r in (await api.get(path, headers=TABLE)).json['rows']]
    ranks = [(r[2], r[0]) for r in rows]
    assert ranks == sorted(ranks)
    assert ranks != sorted(ranks, key=lambda rank: rank[1])


async def test_metadata_only_and_what_nobody_serves(api: Any) -> None:
    await fill(api, 'a')
    partial = 'application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1'
    listed = (await api.get(CM, headers={'Accept': partial})).json
    assert listed['kind'] == 'PartialObjectMetadataList'
    assert set(listed['items'][0]) == {'kind', 'apiVersion', 'metadata'}
    assert (await api.get(f'{CM}/a', headers={'Accept': partial})).status == 406
    assert (await api.get(CM, headers={'Accept': 'text/html'})).status == 406


async def test_yaml_goes_in_and_out(api: Any) -> None:
    body = b'metadata:\n  name: y\ndata:\n  when: "2020-01-01"\n'
    made = await api.post(CM, body, content_type='application/yaml')
    assert made.status == 201
    read = await api.get(f'{CM}/y', headers={'Accept': 'application/yaml'})
    assert 'name: y' in read.text


async def test_people_get_indented_json_and_programs_do_not(api: Any) -> None:
    await fill(api, 'a')
    curl = {'User-Agent': 'curl/8.5.0'}
    for path, headers, indented in (
        ('', {}, False), ('', curl, True), ('?pretty=true', {}, True), ('?pretty=0', curl, False), ('x', curl, True),
    ):  # fmt: skip
        reply = await api.get(f'{CM}/a{path}', headers=headers)
        assert reply.text.startswith('{\n  "') is indented, (path, headers)
        assert reply.json['kind'] in {'ConfigMap', 'Status'}


async def test_a_large_list_is_compressed_for_those_who_ask(api: Any) -> None:
    await api.post(CM, {'metadata': {'name': 'big'}, 'data': {'x': 'y' * 200_000}})
    reply = await api.get(CM, headers={'Accept-Encoding': 'gzip'})
    assert reply.headers['Content-Encoding'] == 'gzip'
    assert names_of(reply) == ['big']


@pytest.mark.parametrize('encoding', ['identity', 'gzip'])
async def test_a_list_sent_bit_by_bit_is_the_same_list(api: Any, encoding: str) -> None:
    names = [f'part-{i:02}' for i in range(20)]
    for name in names:
        await api.post(CM, {'metadata': {'name': name}, 'data': {'x': name * 6_000}})
    reply = await api.get(CM, headers={'Accept-Encoding': encoding})
    assert len(reply.text) > CHUNK_BYTES
    assert names_of(reply) == names
    assert reply.headers.get('Content-Encoding') == (encoding if encoding == 'gzip' else None)
    if encoding == 'identity':
        assert int(reply.headers['Content-Length']) == len(reply.text)
    assert names_of(await api.get(f'{CM}?limit=2')) == names[:2], 'the connection goes on'
    assert (await api.call('HEAD', CM, headers={'Accept-Encoding': encoding})).text == ''


@pytest.mark.parametrize('query', ['', '?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan'])
async def test_each_piece_of_a_long_answer_takes_a_place_in_a_turn(world: Any, api: Any, query: str) -> None:
    for n in range(12):
        await api.post(CM, {'metadata': {'name': f'big-{n:02}'}, 'data': {'x': 'y' * 100_000}})
    pieces, places = world.server.fairness.turns.pieces, 0
    turn = pieces.turn

    async def counted() -> None:
        nonlocal places
        places += 1
        await turn()

    pieces.turn = counted
    if query:
        async with api.watch(f'{CM}{query}&allowWatchBookmarks=true') as event:
            while (await event())['type'] != 'BOOKMARK':
                pass
    else:
        await api.get(CM)
    assert places >= 12 * 100_000 // (CHUNK_BYTES + 100_000)
    assert (await api.get(f'{CM}/big-00')).status == 200


# — watches —


async def test_a_watch_from_a_list_tells_what_happened_since(api: Any) -> None:
    await fill(api, 'a')
    rv = (await api.get(CM)).json['metadata']['resourceVersion']
    async with api.watch(f'{CM}?watch=true&resourceVersion={rv}') as event:
        await fill(api, 'b')
        await api.patch(f'{CM}/b', {'data': {'n': '2'}})
        gone_at = (await api.delete(f'{CM}/b')).json
        seen = [await event() for _ in range(3)]
    assert [e['type'] for e in seen] == ['ADDED', 'MODIFIED', 'DELETED']
    assert gone_at['status'] == 'Success'
    versions = [int(e['object']['metadata']['resourceVersion']) for e in seen]
    assert versions == sorted(set(versions))


async def test_a_watch_without_a_version_begins_with_what_is_there(api: Any) -> None:
    await fill(api, 'a', 'b')
    async with api.watch(f'{CM}?watch=1') as event:
        assert [(await event())['object']['metadata']['name'] for _ in range(2)] == ['a', 'b']


async def test_leaving_a_selector_is_a_deletion_with_the_new_version(api: Any) -> None:
    await fill(api, 'a', tier='x')
    async with api.watch(f'{CM}?watch=1&labelSelector=tier%3Dx') as event:
        await event()
        changed = (await api.patch(f'{CM}/a', {'metadata': {'labels': {'tier': 'y'}}})).json
        left = await event()
        await api.patch(f'{CM}/a', {'metadata': {'labels': {'tier': 'x'}}})
        back = await event()
    assert (left['type'], back['type']) == ('DELETED', 'ADDED')
    assert left['object']['metadata']['labels'] == {'tier': 'x'}
    assert left['object']['metadata']['resourceVersion'] == changed['metadata']['resourceVersion']


async def test_a_start_too_far_back_is_an_error_event_in_the_stream(api: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr('kapi.storage.cache.HISTORY_EVENTS_MAX', 3)
    await fill(api, *'abcdefgh')
    async with api.watch(f'{CM}?watch=1&resourceVersion=1') as event:
        error = await event()
    assert (error['type'], error['object']['code'], error['object']['reason']) == ('ERROR', 410, 'Expired')


async def test_a_watch_ends_in_time_with_a_bookmark(api: Any) -> None:
    await fill(api, 'a')
    async with api.watch(f'{CM}?watch=1&resourceVersion=0&timeoutSeconds=1&allowWatchBookmarks=true') as event:
        assert (await event())['type'] == 'ADDED'
        mark = await event()
        assert (mark['type'], mark['object']['kind']) == ('BOOKMARK', 'ConfigMap')
        with pytest.raises(EOFError):
            await event()


async def test_a_watch_list_marks_the_end_of_the_initial_events(api: Any) -> None:
    await fill(api, 'a')
    query = 'watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true'
    async with api.watch(f'{CM}?{query}') as event:
        assert (await event())['type'] == 'ADDED'
        mark = (await event())['object']['metadata']
        assert mark['annotations'] == {'k8s.io/initial-events-end': 'true'}
    assert (await api.get(f'{CM}?watch=1&sendInitialEvents=true')).status == 422


async def test_a_table_watch_sends_tables(api: Any) -> None:
    async with api.watch(f'{CM}?watch=1', headers=TABLE) as event:
        await fill(api, 'a')
        told = await event()
    assert (told['type'], told['object']['kind']) == ('ADDED', 'Table')
    assert told['object']['rows'][0]['cells'][0] == 'a'


async def test_a_browser_watches_over_a_web_socket_with_a_message_an_event(world: Any, api: Any) -> None:
    await fill(api, 'a', 'b')
    url, protocol = f'{api.base}{CM}?watch=1', 'base64.binary.k8s.io'
    async with api.session.ws_connect(url, protocols=(protocol,)) as socket:
        assert socket.protocol == protocol
        assert [(await socket.receive_json())['object']['metadata']['name'] for _ in range(2)] == ['a', 'b']
        await api.patch(f'{CM}/a', {'data': {'n': 'two\u2028lines'}})
        assert (await socket.receive_json())['type'] == 'MODIFIED'
    hub = world.server.cache.resource('/registry/configmaps/').hub
    async with asyncio.timeout(10):
        while len(hub):
            await asyncio.sleep(0)  # the goodbye is on its way


async def test_a_watch_whose_client_left_is_noticed_without_an_event(world: Any, api: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr('kapi.server.handlers.watch.BOOKMARK_INTERVAL_S', 0.05)
    hub = world.server.cache.resource('/registry/configmaps/').hub
    async with api.watch(f'{CM}?watch=1'):
        assert len(hub) == 1
    async with asyncio.timeout(10):
        while len(hub):
            await asyncio.sleep(0)  # the connection's end is on its way


async def test_a_watch_over_a_web_socket_ends_in_time(api: Any) -> None:
    async with api.session.ws_connect(f'{api.base}{CM}?watch=1&timeoutSeconds=1') as socket:
        assert (await socket.receive()).type == WSMsgType.CLOSE


async def test_one_object_can_be_watched_by_name(api: Any) -> None:
    await fill(api, 'a', 'b')
    async with api.watch(f'{CM}?watch=1&fieldSelector=metadata.name%3Db') as event:
        assert (await event())['object']['metadata']['name'] == 'b'
        await api.patch(f'{CM}/a', {'data': {'n': '9'}})
        await api.patch(f'{CM}/b', {'data': {'n': '9'}})
        assert (await event())['object']['metadata']['name'] == 'b'


async def test_many_watchers_see_one_order(api: Any) -> None:
    async def follow() -> list[str]:
        async with api.watch(f'{CM}?watch=1&resourceVersion=0') as event:
            started.release()
            return [(await event())['object']['metadata']['name'] for _ in range(20)]

    started = asyncio.Semaphore(0)
    async with asyncio.TaskGroup() as group:
        watchers = [group.create_task(follow()) for _ in range(5)]
        for _ in watchers:
            await started.acquire()
        await asyncio.gather(*(fill(api, f'n{i}') for i in range(20)))
    first, *rest = [w.result() for w in watchers]
    assert all(r == first for r in rest)


async def test_servers_on_one_store_tell_one_story(serve: Any, env: Any) -> None:
    """What one has acknowledged the other lists at once; a watch goes on at the other where the first one ended."""
    storage = open_storage('memory://', env)
    async with serve(storage) as one, serve(storage) as two:
        apis = [await w.user('admin', 'system:masters') for w in (one, two)]
        start = (await apis[0].get(CM)).json['metadata']['resourceVersion']
        for number in range(10):
            writer, reader = apis[number % 2], apis[1 - number % 2]
            made = await writer.post(CM, {'metadata': {'name': f'c{number}'}})
            found = await reader.get(f'{CM}/c{number}')
            assert found.json['metadata']['resourceVersion'] == made.json['metadata']['resourceVersion']
            assert len((await reader.get(CM)).json['items']) == number + 1
        await apis[1].delete(f'{CM}/c0')
        stories = []
        for api in apis:
            async with api.watch(f'{CM}?watch=1&resourceVersion={start}') as event:
                events = [await event() for _ in range(11)]
            stories.append([(e['type'], e['object']['metadata']['name'], version_of(e)) for e in events])
        assert stories[0] == stories[1]
        assert [kind for kind, _, _ in stories[0]] == ['ADDED'] * 10 + ['DELETED']
        middle = stories[0][4][2]
        async with apis[1].watch(f'{CM}?watch=1&resourceVersion={middle}') as event:
            assert version_of(await event()) == stories[0][5][2]


def version_of(event: dict[str, Any]) -> str:
    return str(event['object']['metadata']['resourceVersion'])
