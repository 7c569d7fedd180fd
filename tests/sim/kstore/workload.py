"""What clients do in a simulated store. They record; whether the answers are right is for the judges.

Every value written is unique, so that its way can be followed. One client has one request under way at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from typing import Any

from kstore.client import StoreClient
from kstore.errors import BadRequest, Compacted, FutureRevision, LeaseNotFound, NoSpace, Stopped, StoreError, TooLarge
from kstore.model import Do, Relation, Target, prefix_end
from tests.sim.kstore.history import History, LeaseRun, Operation, WatchRun, plain

CERTAIN = (LeaseNotFound, Compacted, FutureRevision, BadRequest, TooLarge, NoSpace)
"""Errors after which nothing has been done; any other leaves the outcome open."""
KEYS = [b'/k/%d' % n for n in range(6)]
LEASED = [b'/l/%d' % n for n in range(4)]


class Workload:
    """The clients of one seed. Everything runs until `until` (loop time)."""

    def __init__(
        self, history: History, rng: random.Random, until: float, pace: float, *, contended: bool = False
    ) -> None:
        self.history = history
        self.rng = rng
        self.until = until
        self.pace = pace
        """Mean seconds between two requests of one client."""
        self.contended = contended
        """Everyone swaps one key most of the time."""
        self.stop_watching = asyncio.Event()
        self._written = 0
        self._known: dict[bytes, int] = {}
        """Newest revision that some client saw of a key."""
        self.open: list[WatchRun] = []

    def _value(self, name: str) -> bytes:
        self._written += 1
        return b'%s#%d' % (name.encode(), self._written)

    def _over(self) -> bool:
        return asyncio.get_running_loop().time() >= self.until

    async def _do(self, op: Operation, call: Any, shape: Callable[[Any], Any]) -> Any:
        """Await the request and record what came of it."""
        try:
            reply = await call
        except CERTAIN as e:
            self.history.finish(op, e)
            return None
        except StoreError:
            return None
        self.history.finish(op, shape(reply))
        return reply

    # --- key-values -----------------------------------------------------------------------------------------------

    async def keys(self, name: str, client: StoreClient) -> None:
        """Gets, puts, deletes, swaps and transactions on a few keys that everyone fights for."""
        rng = self.rng
        actions = [self._get, self._put, self._put, self._delete, self._cas, self._txn, self._glimpse]
        if self.contended:
            actions += [self._cas] * 14
        while not self._over():
            await asyncio.sleep(rng.expovariate(1 / self.pace))
            await rng.choice(actions)(name, client, rng.choice(KEYS[:1] if self.contended else KEYS))

    def _saw(self, key: bytes, revision: int) -> None:
        self._known[key] = revision

    async def _get(self, name: str, client: StoreClient, key: bytes) -> None:
        op = self.history.begin(name, 'get', key, 0)
        reply = await self._do(op, client.get(key), lambda r: (r.revision, plain(r.kv)))
        if reply is not None:
            self._saw(key, reply.kv.mod_revision if reply.kv else 0)

    async def _glimpse(self, name: str, client: StoreClient, key: bytes) -> None:
        """Read what one member has now, or what everyone had."""
        with contextlib.suppress(StoreError):
            if self.rng.random() < 0.5:
                reply = await client.get(key, serializable=True)
                self.history.glimpses.append((key, reply.revision, plain(reply.kv)))
            elif self._known:
                revision = self.rng.choice(sorted(self._known.values()))
                if revision:
                    reply = await client.get(key, revision=revision)
                    self.history.glimpses.append((key, revision, plain(reply.kv)))

    async def _put(self, name: str, client: StoreClient, key: bytes) -> None:
        value = self._value(name)
        op = self.history.begin(name, 'put', key, value, 0)
        reply = await self._do(op, client.put(key, value), lambda r: r.revision)
        if reply is not None:
            self._saw(key, reply.revision)

    async def _delete(self, name: str, client: StoreClient, key: bytes) -> None:
        op = self.history.begin(name, 'delete', key)
        await self._do(op, client.delete(key), lambda r: (r.revision, r.deleted))

    async def _cas(self, name: str, client: StoreClient, key: bytes) -> None:
        value, expected = self._value(name), self._known.get(key, 0)
        op = self.history.begin(name, 'cas', key, expected, value)
        reply = await self._do(op, client.cas(key, expected, value), lambda r: (r.revision, r.succeeded, plain(r.kv)))
        if reply is not None:
            self._saw(key, reply.revision if reply.succeeded else reply.kv.mod_revision if reply.kv else 0)

    async def _txn(self, name: str, client: StoreClient, key: bytes) -> None:
        """If one key is as last seen: write it, and write or delete another."""
        rng, value = self.rng, self._value(name)
        other = rng.choice([k for k in KEYS if k != key])
        second = ('delete', other) if rng.random() < 0.4 else ('put', other, value)
        writes: tuple[tuple[Any, ...], ...] = (('put', key, value), second)
        compares = ((key, self._known.get(key, 0)),)
        op = self.history.begin(name, 'txn', compares, writes)
        done = client.txn(
            [[k, None, int(Target.MOD), int(Relation.EQUAL), mod] for k, mod in compares],
            [[int(Do.PUT), w[1], w[2], 0] if w[0] == 'put' else [int(Do.DELETE), w[1], None, 0] for w in writes],
        )
        reply = await self._do(op, done, lambda r: (r.revision, r.succeeded))
        if reply is not None and reply.succeeded:
            self._saw(key, reply.revision)

    # --- compaction -------------------------------------------------------------------------------------------------

    async def compactor(self, client: StoreClient, every_s: float) -> None:
        while not self._over():
            await asyncio.sleep(self.rng.expovariate(1 / every_s))
            with contextlib.suppress(StoreError):
                revision = await client.revision()
                await client.compact(max(1, revision - self.rng.choice([0, 0, 3, 30])))

    # --- leases -----------------------------------------------------------------------------------------------------

    async def leases(self, name: str, client: StoreClient, ttls: Sequence[int]) -> None:
        """Grant, hang keys on it, renew for a while, then let it end or revoke it."""
        rng = self.rng
        while not self._over():
            await asyncio.sleep(rng.expovariate(1 / self.pace))
            run = await self._grant(client, rng.choice(ttls))
            if run is None:
                continue
            for _ in range(rng.choice([0, 1, 4, 10])):
                if self._over():
                    return
                await asyncio.sleep(run.ttl_s * rng.choice([0.1, 0.3, 0.6]))
                if rng.random() < 0.5:
                    await self._put_leased(name, client, run.id)
                if not await self._renew(client, run):
                    break
            else:
                if rng.random() < 0.3:
                    await self._revoke(name, client, run)

    async def _grant(self, client: StoreClient, ttl_s: int) -> LeaseRun | None:
        loop = asyncio.get_running_loop()
        asked = loop.time()
        try:
            number = await client.lease_grant(ttl_s)
        except StoreError:
            return None
        run = self.history.leases[number] = LeaseRun(number, ttl_s, asked, [(asked, loop.time())])
        run.last_asked = loop.time()
        return run

    async def _renew(self, client: StoreClient, run: LeaseRun) -> bool:
        """Returns whether it is worth going on with this lease."""
        loop = asyncio.get_running_loop()
        asked = loop.time()
        try:
            ttl_s = await client.lease_keepalive(run.id)
        except StoreError:
            return True
        finally:
            run.last_asked = loop.time() + client.deadline_s  # an abandoned request may still be served
        run.last_asked = loop.time()
        if not ttl_s:
            run.refused_at = loop.time()
            return False
        run.confirmed.append((asked, loop.time()))
        return True

    async def _put_leased(self, name: str, client: StoreClient, lease: int) -> None:
        key, value = self.rng.choice(LEASED), self._value(name)
        op = self.history.begin(name, 'put', key, value, lease)
        await self._do(op, client.put(key, value, lease=lease), lambda r: r.revision)

    async def _revoke(self, name: str, client: StoreClient, run: LeaseRun) -> None:
        run.revoked = True
        op = self.history.begin(name, 'gone', run.id)
        await self._do(op, client.lease_revoke(run.id), lambda _: True)

    # --- watches ----------------------------------------------------------------------------------------------------

    async def watcher(self, name: str, client: StoreClient) -> None:
        """One watch after the other; the last one stays until the history has ended."""
        while not self._over():
            run = await self._open(name, client)
            await self._follow(run, client, self.rng.expovariate(1 / 4))

    async def _open(self, name: str, client: StoreClient) -> WatchRun:
        rng = self.rng
        start, end = rng.choice([(b'/', prefix_end(b'/')), (b'/k/', prefix_end(b'/k/')), (rng.choice(KEYS), None)])
        asked = 0
        if rng.random() < 0.6:
            with contextlib.suppress(StoreError):
                asked = max(1, await client.revision() + rng.choice([-100, -30, -5, 0, 1, 3]))
        deletes = rng.random() < 0.9
        run = WatchRun(name, start, end, asked, deletes=deletes, progress=rng.random() < 0.5)
        self.history.watches.append(run)
        return run

    async def _follow(self, run: WatchRun, client: StoreClient, seconds: float) -> None:
        """Read until the time is up, if it is before the end of the work; else until everything was seen."""
        loop = asyncio.get_running_loop()
        last = loop.time() + seconds >= self.until
        stream = client.watch(run.start, run.end, revision=run.asked, progress=run.progress, deletes=run.deletes)
        run.closed = not last
        try:
            async with asyncio.timeout(None if last else seconds):
                async with stream:
                    run.opened, run.first = self.history.now(), run.asked or _first(stream)
                    self.open.append(run)
                    async for batch in stream:
                        run.batches.append((batch.revision, batch.events))
                        if self.rng.random() < 0.02:
                            await asyncio.sleep(self.rng.random())  # a reader may be slow
        except Compacted as e:
            run.compacted = e.compact_revision or 1
        except TimeoutError:
            pass
        except Stopped:
            if not last:
                raise
        except StoreError:
            run.closed = True  # the watch did not come to stand

    def caught_up(self, newest: Callable[[WatchRun], int]) -> bool:
        """Whether every open watch has read everything up to the `newest` revision that concerns it."""
        return all(
            run.closed or run.compacted or max(run.first - 1, *(r for r, _ in run.batches), 0) >= newest(run)
            for run in self.open
        )


def _first(stream: Any) -> int:
    """Where a watch from now on began: events may have arrived with the answer."""
    waiting = [b.events[0].kv.mod_revision for b in stream._batches if b.events]
    return min([stream.next, *waiting])
