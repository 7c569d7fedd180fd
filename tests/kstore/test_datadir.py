"""Nobody else touches the data of a running member."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from kcore.env import Env
from kcore.sim import SimDisk
from kstore import backup, server
from kstore.config import StoreConfig
from kstore.datadir import claim, hold
from kstore.engine.disk import LmdbBackend
from kstore.engine.layers import Engine, Table
from kstore.errors import Corrupt, Refused

Stores = Callable[..., Awaitable[Any]]


def test_a_directory_is_held_by_one_at_a_time_and_free_afterwards(tmp_path: Path):
    with hold(tmp_path), pytest.raises(Refused, match=f'process {os.getpid()}'), hold(tmp_path):
        pass
    with hold(tmp_path):
        pass


async def test_a_second_member_on_the_same_directory_and_a_recovery_are_refused_while_it_runs(stores: Stores, env: Env):
    store = await stores(1)
    client = await store.client()
    await client.put(b'/a', b'1')
    directory = store.directory / '1'
    twin = StoreConfig(id=1, data_dir=directory, listen=store.add(2))
    with pytest.raises(Refused, match='is in use'):
        await server.run(twin, env, lambda: None)
    with pytest.raises(Refused, match='is in use'):
        await backup.recover(directory, 1, twin.listen, env)
    await client.put(b'/a', b'2')
    await store.kill(1)
    assert (await backup.recover(directory, 1, twin.listen, env)).revision == 3


async def test_a_copy_of_another_members_directory_is_refused_and_a_recovered_one_may_change_its_number(
    stores: Stores, env: Env
):
    store = await stores(1)
    await (await store.client()).put(b'/a', b'1')
    await store.kill(1)
    address = store.add(2)
    shutil.copytree(store.directory / '1', store.directory / '2')
    copied = StoreConfig(id=2, data_dir=store.directory / '2', listen=address)
    with pytest.raises(Refused, match='holds the data of member 1, not of 2: was it copied'):
        await server.run(copied, env, lambda: None)
    await backup.recover(store.directory / '2', 2, address, env)
    await store.start(2, peers={})
    client = await store.client(endpoints=store.endpoints[1:])
    assert (await client.get(b'/a')).kv.value == b'1'


def test_a_full_disk_lets_the_owner_start(tmp_path: Path):
    disk = SimDisk(random.Random(1))
    disk.capacity = 0
    claim(tmp_path, disk, 3)
    disk.capacity = None
    claim(tmp_path, disk, 3)
    disk.capacity = disk.used
    claim(tmp_path, disk, 3)
    with pytest.raises(Refused, match='member 3'):
        claim(tmp_path, disk, 4)


async def test_tables_that_were_cut_short_are_refused_instead_of_ending_the_process(tmp_path: Path):
    engine = Engine(LmdbBackend(tmp_path))
    for n in range(20_000):
        engine.put(Table.META, b'%d' % n, b'x' * 100)
    await engine.flush(7)
    engine.close()
    file = tmp_path / 'data.mdb'
    whole = file.read_bytes()
    for share in (0.3, 0.6, 0.9):
        file.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(Corrupt, match='cannot be opened'):
            LmdbBackend(tmp_path)
    file.write_bytes(whole)
    LmdbBackend(tmp_path).close()
