"""Backups and recovery: what was in the store is in the store made from it, and damage is found."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from kcore.env import Env
from kstore import backup
from kstore.errors import BadRequest, Compacted, Corrupt

Stores = Callable[..., Awaitable[Any]]


async def test_a_backup_founds_a_new_cluster(stores: Stores, env: Env, tmp_path: Path):
    store = await stores(3)
    client = await store.client()
    lease = await client.lease_grant(60)
    for n in range(300):
        await client.put(b'/k/%03d' % n, bytes(5_000), lease=lease if n == 7 else 0)
    await client.delete(b'/k/000')
    before = await client.range(b'/', b'0')
    path = tmp_path / 'backup'
    saving = asyncio.ensure_future(backup.save(client.snapshot(), path, env))
    writing = asyncio.ensure_future(client.put(b'/late', b'x'))  # serving goes on meanwhile
    await asyncio.gather(saving, writing)
    found = backup.summarize(path, env)
    assert (found.keys - (found.revision > before.revision), found.leases) == (299, 1)
    with pytest.raises(BadRequest, match='exists'):
        await backup.save(client.snapshot(), path, env)

    twin = await stores(0)
    for i in (1, 2, 3):
        twin.add(i)
        await backup.restore(path, twin.directory / str(i), (1, 2, 3), env, bump=1_000)
    await twin.start()
    again = await twin.client()
    after = await again.range(b'/k/', b'/l')
    assert after.kvs == before.kvs
    assert after.revision == found.revision + 1_000
    assert (await again.lease_ttl(lease)).keys == [b'/k/007']
    with pytest.raises(Compacted):
        async with again.watch(b'/', b'0', revision=found.revision + 1) as stream:
            await anext(stream)
    await again.put(b'/new', b'x')
    with pytest.raises(BadRequest, match='is not empty'):
        await backup.restore(path, twin.directory / '1', (1,), env)


async def test_a_damaged_backup_is_refused(stores: Stores, env: Env, tmp_path: Path):
    client = await (await stores(1)).client()
    await client.put(b'/a', b'1')
    path = tmp_path / 'backup'
    await backup.save(client.snapshot(), path, env)
    whole = path.read_bytes()
    damaged = whole[:-60] + bytes([whole[-60] ^ 1]) + whole[-59:]
    for bad in (whole[:-3], damaged, b'\x00\x00\x00\x01\x00', b'', b'text'):
        path.write_bytes(bad)
        with pytest.raises(Corrupt):
            await backup.restore(path, tmp_path / 'new', (1,), env)


async def test_one_survivor_of_a_lost_majority_goes_on_alone_and_grows_again(stores: Stores, env: Env):
    store = await stores(3)
    client = await store.client()
    for n in range(20):
        await client.put(b'/%d' % n, b'x')
    for i in (1, 2, 3):
        await store.kill(i)
    survivor = store.directory / '2'
    found = await backup.recover(survivor, 2, store.addresses[2], env)
    assert found.keys <= 20
    with pytest.raises(BadRequest, match='was recovered before'):
        await backup.recover(survivor, 2, store.addresses[2], env)
    with pytest.raises(BadRequest, match='no data directory'):
        await backup.recover(store.directory / '9', 2, store.addresses[2], env)
    await store.start(2)
    alone = await store.client(endpoints=[store.endpoints[1]], follow_leader=False)
    assert (await alone.range(b'/', b'0', count_only=True)).count == found.keys
    await alone.put(b'/again', b'x')
    assert list((await alone.status())['members']) == [2]
    address = store.add(4)
    await alone.member_add(4, address)
    await store.start(4, join=True)
    joined = await store.client(endpoints=[store.endpoints[3]], follow_leader=False)
    async with asyncio.timeout(20):
        while (await joined.get(b'/again', serializable=True)).kv is None:
            await asyncio.sleep(0.02)
