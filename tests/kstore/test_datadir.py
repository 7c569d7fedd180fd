"""Nobody else touches the data of a running member."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from kcore.env import Env
from kstore import backup, server
from kstore.config import StoreConfig
from kstore.datadir import hold
from kstore.errors import Refused

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
