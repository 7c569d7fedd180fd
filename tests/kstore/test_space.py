"""A full disk, a used-up quota, contents that differ: what is refused, what goes on, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from kcore.env import is_full
from kstore.client import StoreClient
from kstore.engine.disk import SLICE_RECORDS, SLICES, LmdbBackend
from kstore.engine.layers import Engine, Table
from kstore.errors import Corrupt, NoSpace
from kstore.fsm import Command, encode
from kstore.model import Do
from kstore.space import Space

Stores = Callable[..., Awaitable[Any]]


async def alarms(client: StoreClient, wanted: list[str]) -> None:
    async with asyncio.timeout(30):
        while (await client.status())['alarms'] != wanted:
            await asyncio.sleep(0.02)


def test_only_what_needs_room_is_refused_and_only_while_there_is_none():
    space = Space(1000)
    put = encode(1, 1, 1, False, Command.PUT, b'k', b'v')
    swap = encode(1, 1, 1, False, Command.TXN, [], [[int(Do.PUT), b'k', b'v']], [])
    delete = encode(1, 1, 1, False, Command.DELETE, b'k')
    read = encode(1, 1, 1, False, Command.TXN, [], [[int(Do.DELETE), b'k']], [[int(Do.RANGE), b'k']])
    retry = encode(1, 1, 1, True, Command.PUT, b'k', b'v')
    space.flushed(799)
    assert space.alarms == []
    space.flushed(800)
    assert space.alarms == ['SPACE_LOW']
    space.admit(put)
    space.flushed(1000)
    for command in (put, swap, encode(1, 1, 1, False, Command.GRANT, 1, 60)):
        with pytest.raises(NoSpace, match='quota'):
            space.admit(command)
    for command in (delete, read, retry, b'\xc1'):
        space.admit(command)
    space.flushed(951)
    assert space.alarms == ['NOSPACE', 'SPACE_LOW']
    space.flushed(949)
    space.admit(put)
    space.refused(OSError(errno.ENOSPC, 'full'))
    with pytest.raises(NoSpace, match='disk is full'):
        space.admit(put)
    space.flushed(10)
    assert space.alarms == []
    Space(0).flushed(1 << 60)


async def test_puts_are_refused_over_the_quota_until_deletes_made_room(stores: Stores, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr('kstore.member.COMPACT_CHECK_S', 0.05)
    client = await (await stores(1, quota_mb=4, flush_ms=10, compact_age_s=0)).client()

    async def fill() -> None:
        for n in range(5_000):
            await client.put(b'/%05d' % n, bytes(100_000))

    with pytest.raises(NoSpace):
        await fill()
    await client.get(b'/00001')
    await client.delete_range(b'/', b'0')
    await alarms(client, [])
    await client.put(b'/again', b'x')


async def test_a_full_disk_stops_puts_and_nothing_else_and_ends_by_itself(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr('kstore.member.RETRY_S', 0.02)
    client = await (await stores(1, flush_ms=10)).client()
    write = LmdbBackend.write

    tries = 0

    async def full(*_: object) -> None:
        nonlocal tries
        tries += 1
        raise OSError(errno.ENOSPC, 'No space left on device')

    await client.put(b'/a', b'1')
    monkeypatch.setattr(LmdbBackend, 'write', full)
    with contextlib.suppress(NoSpace):  # or the log has it, and the tables have not
        await client.put(b'/c', b'1')
    await alarms(client, ['DISK_FULL'])
    with pytest.raises(NoSpace, match='disk is full'):
        await client.put(b'/b', b'1')
    assert (await client.get(b'/a')).kv.value == b'1'
    await client.delete(b'/a')
    tried = tries
    async with asyncio.timeout(5):
        while tries < tried + 3:  # again and again, though nobody writes
            await client.status()
    monkeypatch.setattr(LmdbBackend, 'write', write)
    await alarms(client, [])
    await client.put(b'/b', b'2')
    status = await client.status()
    assert status['durable_index'] <= status['applied_index']


async def test_all_members_hash_alike_and_one_that_differs_stops_serving(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
):
    made: list[Any] = []
    from kstore import server

    class Recorded(server.Member):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)

    monkeypatch.setattr(server, 'Member', Recorded)
    store = await stores(3, hash_check_s=0)
    client = await store.client()
    for n in range(600):
        await client.put(b'/%03d' % n, b'x')
    revision = await client.revision()
    await client.delete(b'/000')  # the hash is of a revision, not of now
    hashes = set()
    for endpoint in store.endpoints:
        one = await store.client(endpoints=[endpoint], follow_leader=False)
        await one.revision()
        hashes.add(await one.content_hash(revision))
    assert len(hashes) == 1
    follower = next(m for m in made if not m.node.is_leader)
    await follower.verifier.check()
    assert (follower.verifier.checks, follower.verifier.corrupt) == (1, '')
    key = follower.fsm.engine.get(Table.KEYS, b'/007')[8:20]
    record = follower.fsm.engine.get(Table.LOG, key)
    follower.fsm.engine.put(Table.LOG, key, record.replace(b'x', b'y'))
    await follower.verifier.check()
    one = await store.client(endpoints=[store.endpoints[follower.config.id - 1]], follow_leader=False)
    with pytest.raises(Corrupt, match='contents differ from leader'):
        await one.get(b'/007', serializable=True)
    assert (await one.status())['alarms'] == ['CORRUPT']
    await client.put(b'/still', b'served')
    odd_first = [store.endpoints[follower.config.id - 1], *store.endpoints]
    either = await store.client(endpoints=odd_first, follow_leader=False)
    assert (await either.get(b'/still')).kv.value == b'served'  # it went to a member that is sound


async def test_defragmenting_shrinks_the_file_while_serving(stores: Stores):
    store = await stores(1, flush_ms=10, compact_age_s=0)
    client = await store.client()
    for n in range(100):
        await client.put(b'/%03d' % n, bytes(50_000))
    await client.delete_range(b'/', b'/050')
    await client.compact(await client.revision())
    async with asyncio.timeout(30):
        while (status := await client.status())['db_used_bytes'] * 3 > status['db_bytes'] * 2:
            await asyncio.sleep(0.02)
    before, after = await client.defragment()
    assert after < before * 0.8
    assert (await client.range(b'/', b'0', count_only=True)).count == 50
    await client.put(b'/after', b'x')
    await store.kill(1)
    await store.start(1)
    assert (await client.range(b'/', b'0', count_only=True)).count == 51


@pytest.mark.parametrize('room', [0, 2_000, 6_000, 20_000])
async def test_a_flush_that_fits_only_in_part_is_a_full_disk_and_can_be_repeated(tmp_path: Path, room: int):
    engine = Engine(LmdbBackend(tmp_path))
    engine.put(Table.META, b'first', b'1')
    await engine.flush(1)
    for n in range(300):
        engine.put(Table.KEYS, b'%03d' % n, bytes(500))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / 'data.mdb').stat().st_size + room, hard))
    try:
        with pytest.raises(OSError, match='state was not written') as refused:
            await engine.flush(2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert is_full(refused.value)
    assert engine.durable_index == 1
    await engine.flush(2)
    assert (engine.durable_index, sum(1 for _ in engine.scan(Table.KEYS))) == (2, 300)
    engine.close()


async def test_a_flush_takes_as_few_turns_as_it_must_to_keep_up_with_those_who_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    engine = Engine(LmdbBackend(tmp_path))
    turns, sleep, mine = 0, asyncio.sleep, asyncio.current_task()

    async def counting(delay: float) -> None:
        nonlocal turns
        if asyncio.current_task() is mine:  # not what else sleeps in this process
            turns += 1
            engine.put(Table.KEYS, b'later/%d' % turns, b'v')  # goes to the next flush
        await sleep(delay)

    monkeypatch.setattr(asyncio, 'sleep', counting)
    for records, most in ((2 * SLICE_RECORDS, 2), (50 * SLICES * SLICE_RECORDS, SLICES)):
        for n in range(records):
            engine.put(Table.LOG, b'%08d' % n, b'v')
        turns = 0
        await engine.flush(1)
        assert 0 < turns <= most
    engine.close()
