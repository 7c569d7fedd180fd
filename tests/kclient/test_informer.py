"""Informers against a server that drops watches, forgets revisions and loses events."""

from __future__ import annotations

import asyncio

import pytest

from kclient.informer import Informer, InformerSet, Store, by_namespace, strip_managed_fields
from kclient.reflector import Begin, Commit, Put
from kcore.meta.gvk import CONFIGMAPS, PODS


def config(name: str, value: str = '') -> dict:
    return {'metadata': {'name': name, 'namespace': 'default'}, 'data': {'v': value}}


@pytest.fixture
async def informer(client):
    informer = Informer(client, CONFIGMAPS, indexers={'namespace': by_namespace})
    task = asyncio.ensure_future(informer.run())
    yield informer
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_it_lists_in_pages_then_follows_changes(api, informer, until):
    api.page_limit = 2
    for name in 'abcde':
        api.put('configmaps', config(name))
    await informer.synced()
    assert sorted(informer.store.keys()) == [f'default/{n}' for n in 'abcde']
    api.put('configmaps', config('a', 'new'))
    api.remove('configmaps', 'default', 'b')
    await until(lambda: informer.store.get('default/b') is None)
    assert informer.store.get('default/a')['data'] == {'v': 'new'}
    assert informer.store.get('default/a')['kind'] == 'ConfigMap'
    assert len(informer.store.by_index('namespace', 'default')) == 4
    assert informer.seen_revision == api.revision


async def test_a_server_that_streams_needs_no_list_at_all(api, informer, until):
    api.streams = True
    for name in 'abc':
        api.put('configmaps', config(name))
    await informer.synced()
    assert sorted(informer.store.keys()) == [f'default/{n}' for n in 'abc']
    assert informer.seen_revision == api.revision
    api.put('configmaps', config('d'))
    await until(lambda: informer.store.get('default/d') is not None)
    assert (api.lists, api.watches) == (0, 1)


async def test_a_streamed_list_that_breaks_off_leaves_nothing_half_known(api, informer, until):
    api.streams, api.initial_limit = True, 2
    for name in 'abc':
        api.put('configmaps', config(name))
    await informer.synced()
    assert sorted(informer.store.keys()) == [f'default/{n}' for n in 'abc']
    assert api.lists == 1


async def test_a_server_that_never_says_where_the_stream_ends_is_asked_for_pages(api, client, monkeypatch):
    monkeypatch.setattr('kclient.informer.INITIAL_EVENTS_S', 0.1)
    monkeypatch.setattr(api, '_put_initial', lambda *_: None)
    api.streams = True
    api.put('configmaps', config('a'))
    informer = Informer(client, CONFIGMAPS)
    task = asyncio.ensure_future(informer.run())
    await informer.synced()
    assert (informer.store.get('default/a') is not None, api.lists) == (True, 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_dropped_watch_resumes_without_a_new_list(api, informer, until):
    await informer.synced()
    await until(lambda: api.watches == 1)
    api.drop_watches()
    api.put('configmaps', config('a'))
    await until(lambda: informer.store.get('default/a') is not None)
    assert api.lists == 1


async def test_a_forgotten_revision_leads_to_a_new_list_that_tells_deletions(api, informer, until):
    api.put('configmaps', config('a'))
    api.put('configmaps', config('b'))
    await informer.synced()
    changes = []
    informer.on_change(
        lambda old, new: changes.append((old and old['metadata']['name'], new and new['metadata']['name']))
    )
    await until(lambda: api.watches == 1)
    changes.clear()
    api.lose(2)
    api.remove('configmaps', 'default', 'a')
    api.put('configmaps', config('c'))
    api.compact()
    api.drop_watches()
    await until(lambda: api.lists == 2 and informer.store.get('default/c') is not None)
    assert sorted(changes, key=str) == [('a', None), (None, 'c')]


async def test_a_namesake_is_told_as_a_deletion_and_a_creation(client):
    informer, changes = Informer(client, CONFIGMAPS), []
    informer.on_change(
        lambda old, new: changes.append((old and old['metadata']['uid'], new and new['metadata']['uid']))
    )
    for uid, rv in (('1', '5'), ('2', '9')):
        made = {'metadata': {'name': 'a', 'uid': uid, 'resourceVersion': rv}}
        informer.apply([Begin(), Put(made), Commit(rv)])
    assert changes == [(None, '1'), ('1', None), (None, '2')]


async def test_a_failing_handler_does_not_stop_the_others(client):
    informer, heard = Informer(client, CONFIGMAPS), []
    informer.on_change(lambda old, new: 1 / 0)
    informer.on_change(lambda old, new: heard.append(new))
    informer.apply([Put({'metadata': {'name': 'a', 'resourceVersion': '1'}})])
    assert len(heard) == 1


async def test_an_outage_is_survived(api, client, informer, until):
    await informer.synced()
    port = api.port
    await api.stop()
    api.put('configmaps', config('a'))
    await api.start(port)
    await until(lambda: informer.store.get('default/a') is not None)


def test_an_index_follows_its_objects():
    store = Store({'label': lambda o: [o['metadata']['labels']['app']]})
    store.put({'metadata': {'name': 'a', 'labels': {'app': 'x'}}})
    store.put({'metadata': {'name': 'a', 'labels': {'app': 'y'}}})
    assert store.by_index('label', 'x') == []
    assert len(store.by_index('label', 'y')) == 1
    store.remove('a')
    assert store.by_index('label', 'y') == []
    with pytest.raises(KeyError):
        store.by_index('nope', 'x')


async def test_the_same_question_gets_the_same_informer(client):
    informers = InformerSet(client)
    assert informers.get(PODS) is informers.get(PODS)
    assert informers.get(PODS) is not informers.get(PODS, namespace='default')


def test_what_versions_and_siblings_have_in_common_is_kept_once(client):
    informer, seen = Informer(client, CONFIGMAPS, transform=strip_managed_fields), []
    informer.on_change(lambda old, new: seen.append((old, new)))
    for name, revision in (('a', '1'), ('b', '2'), ('a', '3')):
        made = config(name, 'long')
        made['metadata'] |= {'resourceVersion': revision, 'labels': {'app': 'x'}, 'managedFields': [{'manager': 'm'}]}
        informer.apply([Put(made)])
    a, b = informer.store.get('default/a'), informer.store.get('default/b')
    assert a['data'] is b['data'] is seen[0][1]['data']
    assert a['metadata'] == {'name': 'a', 'namespace': 'default', 'resourceVersion': '3', 'labels': {'app': 'x'}}
    assert [(old and old['metadata']['resourceVersion']) for old, _ in seen] == [None, None, '1']
    assert seen[2][0]['metadata']['resourceVersion'] == '1'
