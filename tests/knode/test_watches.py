"""Watches of mounted objects: shared, bounded, ended when nobody follows."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from kclient.model import WatchEvent
from kclient.reflector import INITIAL_END
from kcore.meta.gvk import CONFIGMAPS, SECRETS
from kcore.tasks import start_detached, stop
from knode import watches
from knode.objects import ROOT_CA, ApiObjects
from knode.watches import ObjectWatches


class Api:
    """What is watched right now, and the events still to be sent."""

    def __init__(self, env):
        self.env = env
        self.open: dict[str, asyncio.Queue[WatchEvent]] = {}
        self.begun = 0

    async def watch(self, resource, namespace, *, field_selector, metadata_only, initial_events, **_):
        assert metadata_only
        assert initial_events
        name = f'{resource.plural}/{namespace}/{field_selector.removeprefix("metadata.name=")}'
        queue = self.open[name] = asyncio.Queue()
        self.begun += 1
        try:
            yield WatchEvent('BOOKMARK', {'metadata': {'resourceVersion': '1', 'annotations': {INITIAL_END: 'true'}}})
            while True:
                yield await queue.get()
        finally:
            del self.open[name]

    def change(self, name, version, kind='MODIFIED'):
        _, namespace, short = name.split('/')
        meta = {'name': short, 'namespace': namespace, 'uid': 'u', 'resourceVersion': version}
        self.open[name].put_nowait(WatchEvent(kind, {'metadata': meta}))


A, B = (CONFIGMAPS, 'default', 'a'), (SECRETS, 'default', 'b')


@pytest.fixture
async def api(env):
    return Api(env)


@pytest.fixture
async def followed(api):
    made = ObjectWatches(api)
    running = start_detached('watches', made.run())
    yield made
    with contextlib.suppress(asyncio.CancelledError):
        await stop(running)
    assert not api.open


async def test_pods_share_a_watch_and_it_ends_with_the_last_of_them(api, followed, eventually):
    heard: list[tuple[str, str]] = []

    def one(ref, version):
        heard.append(('one', version))

    def two(ref, version):
        heard.append(('two', version))

    followed.follow(frozenset({A}), one)
    await eventually(lambda: [*api.open] == ['configmaps/default/a'])
    api.change('configmaps/default/a', '5', 'ADDED')
    await eventually(lambda: heard == [('one', '5')])
    followed.follow(frozenset({A, B}), two)  # what the watch has already seen it is told at once
    assert heard == [('one', '5'), ('two', '5')]
    await eventually(lambda: len(api.open) == 2)
    api.change('configmaps/default/a', '6')
    await eventually(lambda: heard[2:] == [('one', '6'), ('two', '6')])
    followed.follow(frozenset(), one)
    api.change('configmaps/default/a', '7')
    await eventually(lambda: heard[4:] == [('two', '7')])
    followed.follow(frozenset({B}), two)
    await eventually(lambda: [*api.open] == ['secrets/default/b'])
    followed.follow(frozenset(), two)
    await eventually(lambda: not api.open)
    assert api.begun == 2
    assert not followed.watched


async def test_a_deleted_object_is_not_told_but_the_one_after_it_is(api, followed, eventually):
    heard: list[str] = []
    followed.follow(frozenset({A}), lambda ref, version: heard.append(version))
    await eventually(lambda: api.open)
    api.change('configmaps/default/a', '5', 'ADDED')
    api.change('configmaps/default/a', '6', 'DELETED')
    api.change('configmaps/default/a', '7', 'ADDED')
    await eventually(lambda: heard == ['5', '7'])


async def test_beyond_the_bound_an_object_waits_for_a_free_watch(api, followed, eventually, monkeypatch):
    monkeypatch.setattr(watches, 'WATCHES_MAX', 1)
    pods = [lambda ref, version: None, lambda ref, version: None]
    followed.follow(frozenset({A}), pods[0])
    followed.follow(frozenset({B}), pods[1])
    await eventually(lambda: [*api.open] == ['configmaps/default/a'])
    followed.follow(frozenset(), pods[0])
    await eventually(lambda: [*api.open] == ['secrets/default/b'])


async def test_the_root_ca_is_read_once_for_each_version_that_its_watch_tells(api, monkeypatch):
    reads = []

    async def get(resource, name, namespace):
        reads.append((resource.plural, name))
        return {'metadata': {'name': name, 'resourceVersion': str(6 + len(reads))}}

    monkeypatch.setattr(api, 'get', get, raising=False)
    objects = ApiObjects(api)
    ref = (CONFIGMAPS, 'default', ROOT_CA)
    told = ''
    monkeypatch.setattr(objects.watches, 'version', lambda asked: told if asked == ref else '')
    await objects.read(CONFIGMAPS, ROOT_CA, 'default')
    await objects.read(CONFIGMAPS, ROOT_CA, 'default')
    assert len(reads) == 2  # no watch says that it is still the same
    told = '8'
    await objects.read(CONFIGMAPS, ROOT_CA, 'default')
    assert len(reads) == 2
    told = '9'
    await objects.read(CONFIGMAPS, ROOT_CA, 'default')
    assert len(reads) == 3
    await objects.read(CONFIGMAPS, 'a', 'default')
    await objects.read(CONFIGMAPS, 'a', 'default')
    assert len(reads) == 5
