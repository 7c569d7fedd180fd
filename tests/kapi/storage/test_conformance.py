"""One suite for every storage driver and for the cache: each test takes `storage`, none knows which."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from kapi.storage.base import Batch, Compacted, Event, FutureRevision, KeyExists, KeyMissing, Storage, Versioned
from kapi.storage.cache import Cache
from kapi.storage.urls import open_storage
from kcore import tasks
from kcore.env import Env
from kstore import server as store_server
from kstore.config import StoreConfig

PODS = '/registry/pods/'


def value(text: str = 'x') -> bytes:
    return b'{"apiVersion":"v1","kind":"Pod","metadata":{"name":"%b"}}' % text.encode()


@contextlib.asynccontextmanager
async def driver(name: str, env: Env, path: Path) -> AsyncIterator[Storage]:
    if name == 'memory':
        yield open_storage('memory://', env)
        return
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        address = f'127.0.0.1:{probe.getsockname()[1]}'
    config = StoreConfig(id=1, data_dir=path, listen=address, tick_ms=10)
    up = asyncio.Event()
    member = tasks.start_detached('member', store_server.run(config, env, up.set))
    await up.wait()
    yield open_storage(f'kstore://{address}', env)
    await tasks.stop(member)


@pytest.fixture(params=['memory', 'kstore', 'cache+memory', 'cache+kstore'])
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    env = Env.real(seed=1)
    async with driver(request.param.removeprefix('cache+'), env, tmp_path) as inner:
        async for made in wrapped(request, inner, env):
            yield made


async def wrapped(request: pytest.FixtureRequest, inner: Storage, env: Env) -> AsyncIterator[Storage]:
    if request.param.startswith('cache+'):
        cache = Cache(inner, env)
        await cache.start()
        follower = tasks.start_detached('cache', cache.run())
        yield cache
        await tasks.stop(follower)
        await cache.close()
        return
    await inner.start()
    yield inner
    await inner.close()


async def take(watch: AsyncIterator[Batch], count: int) -> list[Event]:
    """The next `count` events, whatever batches they come in."""
    found: list[Event] = []
    async with asyncio.timeout(10):
        while len(found) < count:
            found += (await anext(watch)).events
    assert len(found) == count
    return found


def setting(new: bytes) -> Any:
    async def change(_: Versioned) -> bytes:
        return new

    return change


async def test_what_was_created_can_be_read_with_its_revision(storage: Storage) -> None:
    made = await storage.create(PODS + 'a/b', value())
    assert await storage.get(PODS + 'a/b') == made
    assert made.rv > 0


async def test_a_missing_key_is_an_error_of_its_own(storage: Storage) -> None:
    with pytest.raises(KeyMissing):
        await storage.get(PODS + 'a/none')
    with pytest.raises(KeyMissing):
        await storage.delete(PODS + 'a/none')
    with pytest.raises(KeyMissing):
        await storage.update(PODS + 'a/none', setting(value()))


async def test_creating_twice_is_refused_and_changes_nothing(storage: Storage) -> None:
    made = await storage.create(PODS + 'a/b', value('1'))
    with pytest.raises(KeyExists):
        await storage.create(PODS + 'a/b', value('2'))
    assert await storage.get(PODS + 'a/b') == made


async def test_every_write_raises_the_one_revision(storage: Storage) -> None:
    first = await storage.create(PODS + 'a/b', value('1'))
    second = await storage.create('/registry/nodes/n', value('2'))
    third = await storage.update(PODS + 'a/b', setting(value('3')))
    gone = await storage.delete('/registry/nodes/n')
    revisions = [first.rv, second.rv, third.rv, gone.rv]
    assert revisions == sorted(set(revisions))
    assert await storage.current_revision() >= gone.rv


async def test_an_update_that_changes_nothing_is_not_written(storage: Storage) -> None:
    made = await storage.create(PODS + 'a/b', value())
    before = await storage.current_revision()
    again = await storage.update(PODS + 'a/b', setting(value()))
    assert again.rv == made.rv
    assert await storage.current_revision() == before


async def test_concurrent_updates_of_one_key_all_count(storage: Storage) -> None:
    await storage.create(PODS + 'a/b', b'{"metadata":{"n":0}}')

    async def add(now: Versioned) -> bytes:
        n = int(now.value.split(b':')[-1].rstrip(b'}'))
        await asyncio.sleep(0)
        return b'{"metadata":{"n":%d}}' % (n + 1)

    await asyncio.gather(*(storage.update(PODS + 'a/b', add) for _ in range(10)))
    assert (await storage.get(PODS + 'a/b')).value == b'{"metadata":{"n":10}}'


async def test_a_stale_origin_is_replaced_by_a_fresh_value(storage: Storage) -> None:
    old = await storage.create(PODS + 'a/b', value('1'))
    await storage.update(PODS + 'a/b', setting(value('2')))
    seen: list[bytes] = []

    async def change(now: Versioned) -> bytes:
        seen.append(now.value)
        return value('3')

    await storage.update(PODS + 'a/b', change, origin=old)
    assert seen[-1] == value('2')
    assert (await storage.get(PODS + 'a/b')).value == value('3')


async def test_a_refusal_founded_on_a_stale_origin_is_decided_again(storage: Storage) -> None:
    old = await storage.create(PODS + 'a/b', value('1'))
    await storage.update(PODS + 'a/b', setting(value('2')))

    def refuse_one(now: Versioned) -> None:
        if now.value == value('1'):
            raise ValueError('is one')

    await storage.delete(PODS + 'a/b', check=refuse_one, origin=old)
    with pytest.raises(KeyMissing):
        await storage.get(PODS + 'a/b')


async def test_a_refused_change_leaves_the_value(storage: Storage) -> None:
    made = await storage.create(PODS + 'a/b', value())

    async def refuse(_: Versioned) -> bytes:
        raise ValueError('no')

    with pytest.raises(ValueError, match='no'):
        await storage.update(PODS + 'a/b', refuse)
    assert await storage.get(PODS + 'a/b') == made


async def test_a_list_is_ordered_and_keeps_to_its_prefix(storage: Storage) -> None:
    for name in ('b/2', 'a/1', 'b/1'):
        await storage.create(PODS + name, value(name))
    await storage.create('/registry/podtemplates/a/1', value())
    page = await storage.list(PODS)
    assert [i.key for i in page.items] == [PODS + 'a/1', PODS + 'b/1', PODS + 'b/2']
    assert [i.key for i in (await storage.list(PODS + 'b/')).items] == [PODS + 'b/1', PODS + 'b/2']


async def test_pages_join_to_the_whole(storage: Storage) -> None:
    for i in range(7):
        await storage.create(f'{PODS}a/{i}', value(str(i)))
    first = await storage.list(PODS, limit=3)
    assert first.remaining == 4
    second = await storage.list(PODS, rv=first.rv, limit=3, after=first.items[-1].key)
    third = await storage.list(PODS, rv=first.rv, limit=3, after=second.items[-1].key)
    assert [i.key[-1] for page in (first, second, third) for i in page.items] == list('0123456')
    assert third.remaining == 0


async def test_an_old_revision_reads_as_it_was(storage: Storage) -> None:
    a = await storage.create(PODS + 'a/a', value('1'))
    b = await storage.create(PODS + 'a/b', value('2'))
    then = await storage.current_revision()
    await storage.update(PODS + 'a/a', setting(value('3')))
    await storage.delete(PODS + 'a/b')
    await storage.create(PODS + 'a/c', value('4'))
    page = await storage.list(PODS, rv=then)
    assert list(page.items) == [a, b]
    assert page.rv == then


async def test_a_revision_ahead_of_the_store_is_an_error(storage: Storage) -> None:
    with pytest.raises(FutureRevision):
        await storage.list(PODS, rv=await storage.current_revision() + 1_000)


async def test_a_watch_tells_every_change_once_and_in_order(storage: Storage) -> None:
    start = await storage.current_revision()
    made = await storage.create(PODS + 'a/b', value('1'))
    async with aclosing(storage.watch(PODS, from_rv=start)) as watch:
        changed = await storage.update(PODS + 'a/b', setting(value('2')))
        await storage.create('/registry/nodes/n', value())
        gone = await storage.delete(PODS + 'a/b')
        events = await take(watch, 3)
    assert [(e.rv, e.value, e.deleted) for e in events] == [
        (made.rv, value('1'), False), (changed.rv, value('2'), False), (gone.rv, value('2'), True),
    ]  # fmt: skip
    assert [e.prev for e in events] == [None, value('1'), value('2')]


async def test_a_watch_from_a_revision_leaves_out_what_came_before(storage: Storage) -> None:
    first = await storage.create(PODS + 'a/a', value('1'))
    second = await storage.create(PODS + 'a/b', value('2'))
    async with aclosing(storage.watch(PODS, from_rv=first.rv)) as watch:
        assert [e.rv for e in await take(watch, 1)] == [second.rv]


async def test_concurrent_watches_see_the_same_order(storage: Storage) -> None:
    start = await storage.current_revision()
    async with aclosing(storage.watch(PODS, from_rv=start)) as one, aclosing(storage.watch(PODS, from_rv=start)) as two:
        await asyncio.gather(*(storage.create(f'{PODS}a/{i}', value(str(i))) for i in range(20)))
        assert await take(one, 20) == await take(two, 20)


async def test_a_list_and_a_watch_from_it_leave_no_gap(storage: Storage) -> None:
    done = asyncio.Event()

    async def write() -> None:
        for i in itertools.count():
            await storage.create(f'{PODS}a/{i:04}', value(str(i)))
            if i == 99:
                return done.set()

    writer = tasks.start_detached('writer', write())
    page = await storage.list(PODS)
    seen = [i.key for i in page.items]
    async with aclosing(storage.watch(PODS, from_rv=page.rv)) as watch:
        seen += [e.key for e in await take(watch, 100 - len(seen))]
    await writer
    assert seen == [f'{PODS}a/{i:04}' for i in range(100)]


async def test_a_value_with_a_time_to_live_goes_by_itself(storage: Storage) -> None:
    start = await storage.current_revision()
    made = await storage.create('/registry/events/a/e', value(), ttl_s=1)
    async with aclosing(storage.watch('/registry/events/', from_rv=start)) as watch:
        events = await take(watch, 2)
    assert [e.deleted for e in events] == [False, True]
    assert events[1].rv > made.rv


async def test_a_watch_that_starts_too_far_back_is_refused(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    if type(getattr(storage, 'storage', storage)).__name__ == 'KstoreStorage':
        await compact(storage)
        return
    monkeypatch.setattr('kapi.storage.memory.LOG_EVENTS_MAX', 10)
    monkeypatch.setattr('kapi.storage.cache.HISTORY_EVENTS_MAX', 10)
    start = await storage.current_revision()
    for i in range(40):
        await storage.create(f'{PODS}a/{i}', value(str(i)))
    await storage.list(PODS)
    with pytest.raises(Compacted):
        async with aclosing(storage.watch(PODS, from_rv=start)) as watch:
            await take(watch, 1)


async def compact(storage: Any) -> None:
    """The store forgets on command; the cache's own bound is tested with the other driver."""
    start = await storage.current_revision()
    for i in range(5):
        last = await storage.create(f'{PODS}a/{i}', value(str(i)))
    inner = getattr(storage, 'storage', storage)
    await inner.client.compact(last.rv)
    with pytest.raises(Compacted):
        async with aclosing(inner.watch(PODS, from_rv=start)) as watch:
            await take(watch, 1)
    with pytest.raises(Compacted):
        await storage.list(PODS, rv=last.rv - 2)
