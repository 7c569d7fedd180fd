"""Lock, election and barrier over the store's own verbs: leases, compare-and-swap, watches.

A waiter's key carries the revision at which it queued; the oldest key is the holder, and each waiter watches only the
one before it, so a release wakes one waiter and not all. A holder that dies loses its key with its lease.

A lock alone does not make a slow holder harmless: it may still act after its lease has run out. So the lock gives out a
*fencing token*, a number that only grows from holder to holder. Hand it to whatever the lock guards, which refuses
smaller ones; for keys of this store, `guard` does it: a write in the same transaction as a check that the lock is
still held. Source: etcd client/v3/concurrency; Kleppmann, "How to do distributed locking" (2016).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, Self

from kcore.tasks import start_detached, stop
from kstore.client import StoreClient
from kstore.errors import Compacted, StoreError
from kstore.model import Do, KeyValue, RangeReply, Relation, SortOrder, SortTarget, Target, TxnReply, prefix_end

NEVER = (1 << 63) - 1
"""A revision that no key has."""
TTL_S = 10
"""Default life of a lease whose owner is silent."""


class LockLost(StoreError):
    """The lease ended: somebody else may hold the lock."""


class Session:
    """A lease that is kept alive while the session is open; its end deletes every key that hangs on it."""

    def __init__(self, client: StoreClient, ttl_s: int = TTL_S) -> None:
        self.client = client
        self.lease = 0
        self.lost = asyncio.Event()
        """Set when the lease has ended under us."""
        self._ttl_s = ttl_s
        self._keeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self.lease = await self.client.lease_grant(self._ttl_s)
        self._keeper = start_detached('lease keeper', self._keep())
        return self

    async def __aexit__(self, *exc: object) -> None:
        await stop(self._keeper)
        if not self.lost.is_set():
            await self.client.lease_revoke(self.lease)

    async def until_lost(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work`, and give it up when the lease ends."""
        loss, task = start_detached('lease loss', self.lost.wait()), start_detached('until lost', work)
        try:
            await asyncio.wait((task, loss), return_when=asyncio.FIRST_COMPLETED)
        finally:
            await stop(loss, task)

    async def _keep(self) -> None:
        while not self.lost.is_set():
            try:
                async with asyncio.timeout(self._ttl_s / 3):
                    await self.lost.wait()
            except TimeoutError:
                if not await self._alive():
                    self.lost.set()

    async def _alive(self) -> bool:
        try:
            return bool(await self.client.lease_keepalive(self.lease))
        except StoreError:  # nobody answers: the store, not we, knows whether the lease still lives
            return True


class Lock:
    """Mutual exclusion under a prefix: `async with Lock(session, b'/locks/x') as token`. First come, first served."""

    def __init__(self, session: Session, prefix: bytes, value: bytes = b'') -> None:
        self._session = session
        self._client = session.client
        self._prefix = prefix.rstrip(b'/') + b'/'
        self._value = value
        self.key = self._prefix + b'%016x' % session.lease
        self.token = 0
        """Fencing token of the holder: grows from holder to holder. 0 while we do not hold the lock."""

    async def __aenter__(self) -> int:
        return await self.acquire()

    async def __aexit__(self, *exc: object) -> None:
        await self.release()

    async def acquire(self) -> int:
        """Wait for our turn; returns the fencing token. Raises LockLost. Cancelling gives the place up."""
        reply = await self._client.cas(self.key, 0, self._value, lease=self._session.lease)
        mine = reply.revision if reply.succeeded else reply.kv.create_revision if reply.kv else 0
        try:
            while (before := await self._before(mine)).kvs:
                await self._session.until_lost(_gone(self._client, before.kvs[0], before.revision))
                if self._session.lost.is_set():
                    raise LockLost(f'the lease ran out while waiting for {self._prefix!r}')
        except BaseException:
            await self._client.delete(self.key)
            raise
        held = (await self._client.get(self.key)).kv
        if held is None or held.create_revision != mine:
            raise LockLost(f'the lease ran out while waiting for {self._prefix!r}')
        self.token = mine
        return mine

    async def release(self) -> None:
        self.token = 0
        await self._client.delete(self.key)

    async def guard(self, operations: Sequence[Any]) -> TxnReply:
        """Do `operations` only if we still hold the lock, checked in the same transaction. Raises LockLost."""
        reply = await self._client.txn(
            [(self.key, None, Target.CREATE, Relation.EQUAL, self.token or NEVER)], operations
        )
        if not reply.succeeded:
            raise LockLost(f'the lock {self._prefix!r} is not held any more')
        return reply

    async def _before(self, mine: int) -> RangeReply:
        """The waiter right before us, if there is one."""
        return await self._client.range(
            self._prefix, prefix_end(self._prefix), limit=1, bounds=(0, 0, 0, mine - 1),
            sort=(SortTarget.CREATE, SortOrder.DESCEND),
        )  # fmt: skip


class Election:
    """One leader among candidates; its value is there for everyone to see."""

    def __init__(self, session: Session, prefix: bytes) -> None:
        self._session = session
        self._client = session.client
        self._prefix = prefix
        self._lock: Lock | None = None

    async def campaign(self, value: bytes) -> int:
        """Wait until we lead; returns the fencing token of this leadership. Raises LockLost."""
        self._lock = Lock(self._session, self._prefix, value)
        return await self._lock.acquire()

    async def proclaim(self, value: bytes) -> None:
        """Change our value while we lead. Raises LockLost."""
        if self._lock is None:
            raise LockLost('not a leader')
        await self._lock.guard([(Do.PUT, self._lock.key, value, self._session.lease)])

    async def resign(self) -> None:
        if self._lock is not None:
            await self._lock.release()
            self._lock = None

    async def leader(self) -> KeyValue | None:
        """The leader's key and value; None when there is none."""
        stem = self._prefix.rstrip(b'/') + b'/'
        reply = await self._client.range(stem, prefix_end(stem), limit=1, sort=(SortTarget.CREATE, SortOrder.ASCEND))
        return reply.kvs[0] if reply.kvs else None

    async def observe(self) -> AsyncIterator[KeyValue]:
        """Each new leader or value, beginning with the present one. Raises Compacted when too far behind."""
        stem = self._prefix.rstrip(b'/') + b'/'
        shown: KeyValue | None = None
        async with self._client.watch(stem, prefix_end(stem), prev_kv=False) as stream:
            while True:
                now = await self.leader()
                if now is not None and now != shown:
                    shown = now
                    yield now
                await anext(stream)


class Barrier:
    """Everybody waits at a key until it is gone."""

    def __init__(self, client: StoreClient, key: bytes) -> None:
        self._client = client
        self._key = key

    async def hold(self) -> None:
        """Close the barrier; closing a closed one is fine."""
        await self._client.cas(self._key, 0, b'')

    async def release(self) -> None:
        await self._client.delete(self._key)

    async def wait(self) -> None:
        """Return once the barrier is open."""
        reply = await self._client.get(self._key)
        if reply.kv is not None:
            await _gone(self._client, reply.kv, reply.revision)


async def _gone(client: StoreClient, kv: KeyValue, revision: int) -> None:
    """Until this life of the key has ended; it still went on at `revision`."""
    while True:
        try:
            async with client.watch(kv.key, None, revision=revision + 1, prev_kv=False) as stream:
                async for batch in stream:
                    if any(event.type == 'delete' for event in batch.events):
                        return
        except Compacted:  # we were out of reach for as long as history is kept
            reply = await client.get(kv.key)
            if reply.kv is None or reply.kv.create_revision != kv.create_revision:
                return
            revision = reply.revision
