"""The two stores behind one set of verbs, for the load generators.

Kubeling is loaded through its real client, with everything it does for a user (request ids, failover, deadlines); etcd
through `bench.grpc`, which does nothing but send and receive. So what the generator costs speaks against Kubeling, and
`generator_us` shows how much.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, Self

from bench.grpc import Channel, GrpcError, fields, integer, message, part
from kcore.env import Env
from kstore.client import StoreClient
from kstore.errors import Stopped, StoreError
from kstore.model import WatchBatch

Endpoints = list[tuple[str, int]]
VALUE_BYTES = 256


class Driver(Protocol):
    """One connection to the leader."""

    async def put(self, key: bytes, value: bytes) -> object: ...

    async def get(self, key: bytes, *, serializable: bool = False) -> int:
        """The key's mod revision; 0 without it."""

    async def cas(self, key: bytes, mod: int, value: bytes) -> tuple[bool, int]:
        """Whether it succeeded; when not, the current mod revision."""

    async def watch(self, key: bytes, on_value: Callable[[bytes], None]) -> None:
        """Returns once the watch stands; each new value of VALUE_BYTES is given to `on_value`.

        All watches of a driver are given the same `on_value`.
        """

    async def lease(self, ttl_s: int) -> Callable[[], Awaitable[object]]:
        """A new lease, and what keeps it alive once."""

    async def close(self) -> None: ...


class KstoreDriver:
    """Over `kstore.client`."""

    def __init__(self, client: StoreClient) -> None:
        self._client = client
        self._errors: list[StoreError] = []
        """What ended watches before their time."""
        self.put = client.put

    @classmethod
    async def open(cls, endpoints: Endpoints) -> Self:
        client = StoreClient(endpoints, Env.real(), deadline_s=30.0)
        await client.start()
        await client.get(b'ready')
        return cls(client)

    def _ended(self, error: StoreError) -> None:
        if not isinstance(error, Stopped):
            self._errors.append(error)

    async def get(self, key: bytes, *, serializable: bool = False) -> int:
        kv = (await self._client.get(key, serializable=serializable)).kv
        return kv.mod_revision if kv else 0

    async def cas(self, key: bytes, mod: int, value: bytes) -> tuple[bool, int]:
        reply = await self._client.cas(key, mod, value)
        return reply.succeeded, reply.kv.mod_revision if reply.kv else 0

    async def watch(self, key: bytes, on_value: Callable[[bytes], None]) -> None:
        stream = await self._client.watch(key, None, prev_kv=False).__aenter__()

        def on_batch(batch: WatchBatch) -> None:
            for event in batch.events:
                on_value(event.kv.value)

        stream.follow(on_batch, self._ended)

    async def lease(self, ttl_s: int) -> Callable[[], Awaitable[object]]:
        number = await self._client.lease_grant(ttl_s)
        return lambda: self._client.lease_keepalive(number)

    async def close(self) -> None:
        await self._client.close()
        if self._errors:
            raise self._errors[0]


class EtcdDriver:
    """Over `bench.grpc`; watches of one connection share one stream, as clientv3's do."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._watch: Callable[[bytes], None] | None = None
        self._created: list[asyncio.Future[None]] = []
        self._on_value: Callable[[bytes], None] = lambda _: None

    @classmethod
    async def open(cls, endpoints: Endpoints) -> Self:
        return cls(await Channel.open(*await etcd_leader(endpoints)))

    async def put(self, key: bytes, value: bytes) -> object:
        return await self._channel.unary('/etcdserverpb.KV/Put', message((1, key), (2, value)))

    async def get(self, key: bytes, *, serializable: bool = False) -> int:
        reply = await self._channel.unary('/etcdserverpb.KV/Range', message((1, key), (7, int(serializable))))
        return integer(part(reply, 2), 3)

    async def cas(self, key: bytes, mod: int, value: bytes) -> tuple[bool, int]:
        compare = message((2, 2), (3, key), (6, mod))  # target MOD, relation EQUAL
        success = message((2, message((1, key), (2, value))))
        failure = message((1, message((1, key))))
        reply = await self._channel.unary('/etcdserverpb.KV/Txn', message((1, compare), (2, success), (3, failure)))
        if integer(reply, 2):
            return True, 0
        return False, integer(part(part(part(reply, 3), 1), 2), 3)

    async def watch(self, key: bytes, on_value: Callable[[bytes], None]) -> None:
        if self._watch is None:
            self._watch = self._channel.stream('/etcdserverpb.Watch/Watch', self._watched)
        self._on_value = on_value
        created: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._created.append(created)
        self._watch(message((1, message((1, key)))))
        await created

    def _watched(self, reply: bytes) -> None:
        if len(reply) < VALUE_BYTES:
            if integer(reply, 3):
                self._created.pop(0).set_result(None)
        elif len(reply) < 2 * VALUE_BYTES:  # one event: its value comes last
            self._on_value(reply[-VALUE_BYTES:])
        else:
            for number, event in fields(reply):
                if number == 11 and isinstance(event, bytes):
                    self._on_value(part(part(event, 2), 5))

    async def lease(self, ttl_s: int) -> Callable[[], Awaitable[object]]:
        number = integer(await self._channel.unary('/etcdserverpb.Lease/LeaseGrant', message((1, ttl_s))), 2)
        waiting: list[asyncio.Future[bytes]] = []
        loop = asyncio.get_running_loop()
        send = self._channel.stream('/etcdserverpb.Lease/LeaseKeepAlive', lambda m: waiting.pop().set_result(m))
        request = message((1, number))

        def renew() -> asyncio.Future[bytes]:
            future: asyncio.Future[bytes] = loop.create_future()
            waiting.append(future)
            send(request)
            return future

        return renew

    async def close(self) -> None:
        self._channel.close()


async def etcd_leader(endpoints: Endpoints) -> tuple[str, int]:
    """The endpoint of the leader. Waits until there is one, at most 20 s."""
    async with asyncio.timeout(20):
        while True:
            for endpoint in endpoints:
                try:
                    channel = await Channel.open(*endpoint)
                    status = await channel.unary('/etcdserverpb.Maintenance/Status', b'')
                    channel.close()
                except (OSError, GrpcError):
                    continue
                if integer(status, 4) and integer(status, 4) == integer(part(status, 1), 2):
                    return endpoint
            await asyncio.sleep(0.05)


OPEN: dict[str, Callable[[Endpoints], Awaitable[Driver]]] = {'kubeling': KstoreDriver.open, 'etcd': EtcdDriver.open}
"""Makes a driver by the kind of target."""
