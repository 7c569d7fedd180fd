"""Stores of one or three members inside the test's process, on real sockets and real disks."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from kcore.env import Env
from kstore import server
from kstore.client import StoreClient
from kstore.config import StoreConfig
from kstore.engine.layers import Engine
from kstore.engine.memory import MemoryBackend
from kstore.mvcc.store import Store


@pytest.fixture
def env() -> Env:
    return Env.real(seed=7)


@pytest.fixture
def store() -> Store:
    """The versions of all keys, in memory."""
    return Store(Engine(MemoryBackend()))


class LocalStores:
    """Members as tasks; `kill` is a cancellation, so what is not synced stays in the page cache."""

    def __init__(self, env: Env, directory: Path, members: int) -> None:
        self._env = env
        self.directory = directory
        self._tasks: dict[int, asyncio.Task[None]] = {}
        with contextlib.ExitStack() as stack:
            ports = []
            for _ in range(members):
                s = stack.enter_context(socket.socket())
                s.bind(('127.0.0.1', 0))
                ports.append(s.getsockname()[1])
        self.addresses = {i: f'127.0.0.1:{port}' for i, port in enumerate(ports, 1)}
        self._clients: list[StoreClient] = []
        self.options: dict[str, object] = {}

    @property
    def endpoints(self) -> list[tuple[str, int]]:
        return [('127.0.0.1', int(a.rpartition(':')[2])) for a in self.addresses.values()]

    def add(self, i: int) -> str:
        """An address for one more member."""
        with socket.socket() as s:
            s.bind(('127.0.0.1', 0))
            self.addresses[i] = f'127.0.0.1:{s.getsockname()[1]}'
        return self.addresses[i]

    async def start(self, *ids: int, **options: object) -> None:
        for i in ids or tuple(self.addresses):
            config = StoreConfig(
                id=i, data_dir=self.directory / str(i), listen=self.addresses[i],
                **{'peers': self.addresses, **self.options, **options},
            )  # fmt: skip
            self._tasks[i] = asyncio.create_task(server.run(config, self._env, lambda: None))
        for i in ids or tuple(self.addresses):
            await self._listening(i)

    async def _listening(self, i: int) -> None:
        """A member alone has no leader and is not ready, but it listens."""
        host, _, port = self.addresses[i].rpartition(':')
        while not self._tasks[i].done():
            try:
                transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, host, int(port))
            except OSError:
                await asyncio.sleep(0.01)
            else:
                transport.close()
                return
        task = self._tasks.pop(i)
        task.result()

    async def kill(self, i: int) -> None:
        task = self._tasks.pop(i)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def client(self, **options: object) -> StoreClient:
        client = StoreClient(options.pop('endpoints', self.endpoints), self._env, **options)
        await client.start()
        self._clients.append(client)
        return client

    async def leader(self) -> int:
        client = await self.client()
        await client.revision()
        return int((await client.status())['leader'])

    async def close(self) -> None:
        for client in self._clients:
            await client.close()
        for i in tuple(self._tasks):
            await self.kill(i)


@pytest.fixture
async def stores(env: Env, tmp_path: Path) -> AsyncIterator[Callable[[int], Awaitable[LocalStores]]]:
    """`await stores(3)`: a running store of three members."""
    made: list[LocalStores] = []

    async def make(members: int, **options: object) -> LocalStores:
        made.append(LocalStores(env, tmp_path / str(len(made)), members))
        made[-1].options = options
        await made[-1].start()
        return made[-1]

    yield make
    for one in made:
        await one.close()
