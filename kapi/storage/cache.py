"""The watch cache: the whole registry in memory, kept current by one watch, read by everybody.

Theory: the store has one revision counter, so one watch of `/registry/` gives every resource's changes in one order,
and its progress is the progress of all of them. Reads are linearizable because they ask the store for its revision
first and wait until the cache has seen it; concurrent readers share one question. Lists and watches never touch the
store otherwise. The cache is itself a `Storage`, so the conformance suite runs on it too.

Losing the watch with its place (`Compacted`) is the one case that cannot be bridged: the cache reads everything
again and cuts all watchers, who then find their revision too old and list. Differs from upstream: one cache, not one
per resource with its own progress; see docs/divergences.md.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from heapq import heappop, heappush

import structlog

from kapi.storage.base import (
    Batch,
    Change,
    Check,
    Compacted,
    Event,
    FutureRevision,
    KeyMissing,
    Page,
    Storage,
    StorageUnavailable,
    Versioned,
)
from kapi.storage.entries import CacheEvent, Entry
from kapi.storage.watchers import Hub, Matches, Watcher, replay
from kcore import tasks
from kcore.env import Env

log = structlog.get_logger('kapi.cache')

REGISTRY = '/registry/'
HISTORY_EVENTS_MAX = 10_000
"""Recent changes kept per resource for watches that resume; an older start gets 410 and lists."""
FUTURE_WAIT_S = 3.0
"""How long a read waits for a revision that the cache has not seen (upstream's blockTimeout)."""
NUDGE_S = 0.05
"""A revision not seen by then may be one outside of the registry: the store is asked how far its watch is."""
RETRY_S = 0.1
LOAD_PAGE_KEYS = 5_000
"""Keys per read of the first load: bounds one reply, not the total."""
_LAST = '\U0010ffff'


def resource_prefix(key: str) -> str:
    """`/registry/pods/` or `/registry/apps/deployments/` of a key; groups are the first parts that are no core plural.

    Core plurals never contain a dot, and the dotless groups are few and fixed, so the key alone tells.
    """
    parts = key.split('/', 4)
    if '.' in parts[2] or parts[2] in {'apps', 'autoscaling', 'batch', 'policy'}:
        return f'/registry/{parts[2]}/{parts[3]}/'
    return f'/registry/{parts[2]}/'


class ResourceCache:
    """One resource: entries by key, keys in order, recent events, watchers."""

    def __init__(self, prefix: str, floor: int) -> None:
        self.prefix = prefix
        self.entries: dict[str, Entry] = {}
        self.keys: list[str] = []
        self.hub = Hub()
        self.history: deque[CacheEvent] = deque()
        self.changes = 0
        """Grows with every change, so that what is derived from the entries can be kept until then."""
        self.floor = floor
        """Watches may start at this revision or later."""

    def range(self, prefix: str, after: str = '') -> list[str]:
        """Keys under `prefix`, in order."""
        if prefix == self.prefix and not after:
            return self.keys
        lo = bisect_right(self.keys, after) if after > prefix else bisect_left(self.keys, prefix)
        return self.keys[lo : bisect_left(self.keys, prefix + _LAST)]

    def select(self, prefix: str) -> Iterator[Entry]:
        entries = self.entries
        return (entries[k] for k in self.range(prefix))

    def load(self, item: Versioned) -> None:
        """An object of the first load, in key order or not."""
        self.changes += 1
        if item.key not in self.entries:
            if self.keys and item.key < self.keys[-1]:
                insort(self.keys, item.key)
            else:
                self.keys.append(item.key)
        self.entries[item.key] = Entry(item.key, item.value, item.rv)

    def apply(self, event: Event) -> int:
        """Take a change in and tell the watchers; how many they were."""
        prev = self.entries.get(event.key)
        if event.deleted:
            if prev is None:
                return 0
            del self.entries[event.key]
            del self.keys[bisect_left(self.keys, event.key)]
            change = CacheEvent('DELETED', Entry(event.key, event.value or prev.value, event.rv), prev)
        else:
            entry = Entry(event.key, event.value, event.rv)
            if prev is None:
                insort(self.keys, event.key)
            self.entries[event.key] = entry
            change = CacheEvent('MODIFIED' if prev is not None else 'ADDED', entry, prev)
        self.changes += 1
        self.history.append(change)
        if len(self.history) > HISTORY_EVENTS_MAX:
            self.floor = self.history.popleft().rv
        below = event.key[len(self.prefix) :]
        namespace = below.partition('/')[0] if '/' in below else ''
        scopes = (self.prefix, f'{self.prefix}{namespace}/', event.key) if namespace else (self.prefix, event.key)
        return self.hub.publish(change, scopes)

    def since(self, rv: int, scope: str) -> Iterator[CacheEvent]:
        """Events after `rv` under `scope`. The caller has compared `rv` with `floor`."""
        recent: list[CacheEvent] = []
        for event in reversed(self.history):
            if event.rv <= rv:
                break
            if event.entry.key.startswith(scope):
                recent.append(event)
        return reversed(recent)


class Cache:
    """A `Storage` that answers reads from memory. `run` must be running for it to move."""

    def __init__(self, storage: Storage, env: Env) -> None:
        self.storage = storage
        self._env = env
        self._resources: dict[str, ResourceCache] = {}
        self.revision = 0
        """The cache reflects the store at this revision."""
        self.told = 0
        """How often a watcher was told of a change."""
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._ticket = 0
        self._asking: asyncio.Future[int] | None = None
        self._next: asyncio.Future[int] | None = None
        self._following: asyncio.Task[None] | None = None
        self._base = 0
        """Revision of the last load; every change after it has been seen."""

    # — keeping up —

    async def start(self) -> None:
        """Read everything once; the cache answers from here on."""
        await self.storage.start()
        await self._load()

    async def close(self) -> None:
        await self.storage.close()

    async def _load(self) -> None:
        fresh: dict[str, ResourceCache] = {}
        page = await self.storage.list(REGISTRY, limit=LOAD_PAGE_KEYS)
        rv = page.rv
        while True:
            for item in page.items:
                prefix = resource_prefix(item.key)
                cache = fresh.get(prefix)
                if cache is None:
                    cache = fresh[prefix] = ResourceCache(prefix, rv)
                cache.load(item)
            if not page.remaining:
                break
            page = await self.storage.list(REGISTRY, rv=rv, limit=LOAD_PAGE_KEYS, after=page.items[-1].key)
        for old in self._resources.values():
            for watcher in old.hub.everyone():
                watcher.cut()
            # Whoever holds the resource's cache keeps a live one.
            new = fresh.get(old.prefix) or ResourceCache(old.prefix, rv)
            old.entries, old.keys, old.floor = new.entries, new.keys, rv
            old.history.clear()
            old.changes += 1
            fresh[old.prefix] = old
        self._resources = fresh
        self._base = rv
        self._advance(rv)
        log.info('registry loaded', rv=rv, resources=len(fresh))

    async def run(self) -> None:
        """Follow the store for ever; resumes after lost connections, reads all again after a compaction."""
        while True:
            try:
                async for batch in self.storage.watch(REGISTRY, from_rv=self.revision):
                    self._absorb(batch)
            except Compacted:
                log.warning('watch of the store lost its place', rv=self.revision)
                await self._reload()
            except StorageUnavailable as e:
                log.warning('watch of the store broke', err=str(e), rv=self.revision)
                await asyncio.sleep(RETRY_S)

    async def _reload(self) -> None:
        while True:
            try:
                return await self._load()
            except StorageUnavailable as e:
                log.warning('reading the store failed', err=str(e))
                await asyncio.sleep(RETRY_S)

    def _absorb(self, batch: Batch) -> None:
        for event in batch.events:
            if event.rv > self.revision:  # a resumed watch may repeat its last revision
                self.told += self.resource(resource_prefix(event.key)).apply(event)
        self._advance(batch.rv)

    def _advance(self, rv: int) -> None:
        self.revision = max(self.revision, rv)
        waiting = self._waiting
        while waiting and waiting[0][0] <= self.revision:
            _, _, future = heappop(waiting)
            if not future.done():
                future.set_result(None)

    # — reading —

    def resource(self, prefix: str) -> ResourceCache:
        cache = self._resources.get(prefix)
        if cache is None:
            # Nothing of the resource existed up to now, so its history is complete from the last load on.
            cache = self._resources[prefix] = ResourceCache(prefix, self._base)
        return cache

    async def reach(self, rv: int) -> None:
        """Wait until the cache reflects `rv`. Raises FutureRevision after FUTURE_WAIT_S."""
        if rv <= self.revision:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ticket += 1
        heappush(self._waiting, (rv, self._ticket, future))
        nudge = asyncio.get_running_loop().call_later(NUDGE_S, self.storage.nudge)
        try:
            async with asyncio.timeout(FUTURE_WAIT_S):
                await future
        except TimeoutError:
            raise FutureRevision(current=self.revision) from None
        finally:
            nudge.cancel()

    def nudge(self) -> None:
        self.storage.nudge()

    async def fresh(self) -> int:
        """Make the cache as new as the store was when this was called; returns the cache's revision.

        Raises StorageUnavailable when the store has no quorum or its watch lags behind for FUTURE_WAIT_S.
        """
        rv = await self.current_revision()
        try:
            await self.reach(rv)
        except FutureRevision:
            raise StorageUnavailable('the watch cache lags behind the store') from None
        return self.revision

    async def current_revision(self) -> int:
        """As the driver's; callers that arrive while a question is under way share the next one."""
        # A question already asked may have been answered before this caller's own last write.
        if self._asking is None:
            return await self._ask()
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self._next)

    async def _ask(self) -> int:
        loop = asyncio.get_running_loop()
        self._asking = loop.create_future()
        try:
            rv = await self.storage.current_revision()
        finally:
            self._asking = None
            followers, self._next = self._next, None
            if followers is not None:
                self._answer_followers(followers)
        return rv

    def _answer_followers(self, followers: asyncio.Future[int]) -> None:
        async def ask() -> None:
            try:
                rv = await self._ask()
            except Exception as e:
                if not followers.done():
                    followers.set_exception(e)
            else:
                if not followers.done():
                    followers.set_result(rv)

        self._following = tasks.start_detached('ask revision', ask())

    async def get(self, key: str) -> Versioned:
        await self.fresh()
        entry = self.peek(key)
        if entry is None:
            raise KeyMissing(key)
        return entry.versioned

    def peek(self, key: str) -> Entry | None:
        """What the cache holds now, however old."""
        cache = self._resources.get(resource_prefix(key))
        return cache.entries.get(key) if cache is not None else None

    async def list(self, prefix: str, *, rv: int = 0, limit: int = 0, after: str = '') -> Page:
        if rv and rv != self.revision:
            return await self.storage.list(prefix, rv=rv, limit=limit, after=after)
        now = rv or await self.fresh()
        entries = [c.entries[key] for c in self._under(prefix) for key in c.range(prefix, after)]
        taken = entries[:limit] if limit else entries
        return Page([e.versioned for e in taken], now, remaining=len(entries) - len(taken))

    def _under(self, prefix: str) -> Iterable[ResourceCache]:
        caches = self._resources.values()
        return sorted(
            (c for c in caches if c.prefix.startswith(prefix) or prefix.startswith(c.prefix)), key=lambda c: c.prefix
        )

    # — writing: straight through —

    async def create(self, key: str, value: bytes, *, ttl_s: int = 0) -> Versioned:
        return await self.storage.create(key, value, ttl_s=ttl_s)

    async def update(self, key: str, change: Change, *, ttl_s: int = 0, origin: Versioned | None = None) -> Versioned:
        if origin is None:
            entry = self.peek(key)
            origin = entry.versioned if entry is not None else None
        return await self.storage.update(key, change, ttl_s=ttl_s, origin=origin)

    async def delete(self, key: str, *, check: Check | None = None, origin: Versioned | None = None) -> Versioned:
        if origin is None:
            entry = self.peek(key)
            origin = entry.versioned if entry is not None else None
        return await self.storage.delete(key, check=check, origin=origin)

    # — watching —

    def subscribe(self, prefix: str, scope: str, from_rv: int, matches: Matches | None) -> Watcher:
        """A watcher of `scope` that will get every change after `from_rv`. Raises Compacted; no await, so no gap."""
        cache = self.resource(prefix)
        if from_rv < cache.floor:
            raise Compacted(oldest=cache.floor)
        watcher = Watcher(matches)
        for _, event in replay(None, cache.since(from_rv, scope)):
            watcher.offer(event)
        cache.hub.add(scope, watcher)
        return watcher

    def unsubscribe(self, prefix: str, scope: str, watcher: Watcher) -> None:
        self.resource(prefix).hub.remove(scope, watcher)

    async def watch(self, prefix: str, *, from_rv: int) -> AsyncIterator[Batch]:
        own = resource_prefix(prefix)
        await self.reach(from_rv)
        watcher = self.subscribe(own, prefix, from_rv, None)
        try:
            while True:
                taken = await watcher.take()
                events = [_as_event(e) for _, e in taken]
                if events:
                    yield Batch(events[-1].rv, events)
        finally:
            self.unsubscribe(own, prefix, watcher)


def _as_event(change: CacheEvent) -> Event:
    entry, prev = change.entry, change.prev
    return Event(entry.key, change.rv, entry.value, prev.value if prev else None, change.type == 'DELETED')
