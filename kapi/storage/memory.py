"""`memory://`: the whole store in one process, with history, watches and expiry; for tests and single-process use.

Theory: one append-only log of changes is the truth. The current map is an index over it, an old revision is the
current map with the log's tail undone, and a watcher is a position in the log.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right, insort
from collections.abc import AsyncIterator
from urllib.parse import SplitResult

from kapi.storage.base import (
    Batch,
    Change,
    Check,
    Compacted,
    Event,
    FutureRevision,
    KeyExists,
    KeyMissing,
    Page,
    Versioned,
)
from kapi.storage.retry import delete_loop, update_loop
from kcore.env import Env

LOG_EVENTS_MAX = 100_000
"""Changes kept for watches and old revisions; beyond, the older half is forgotten and readers of it get Compacted."""


class MemoryStorage:
    """One log, one map, one sorted list of keys. Single event loop only."""

    def __init__(self, url: SplitResult, env: Env) -> None:
        self._env = env
        self._rv = 1
        self._first = 1
        """Revision before the oldest event in the log."""
        self._log: list[Event] = []
        self._map: dict[str, Versioned] = {}
        self._keys: list[str] = []
        self._expiry: dict[str, asyncio.TimerHandle] = {}
        self._changed = asyncio.Event()

    async def start(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        for timer in self._expiry.values():
            timer.cancel()
        self._expiry.clear()

    async def get(self, key: str) -> Versioned:
        try:
            return self._map[key]
        except KeyError:
            raise KeyMissing(key) from None

    async def list(self, prefix: str, *, rv: int = 0, limit: int = 0, after: str = '') -> Page:
        keys, get = self._keys, self._map
        if rv and rv != self._rv:
            get = self._at(rv)
            keys = sorted(get)
        lo = max(bisect_left(keys, prefix), bisect_right(keys, after) if after else 0)
        hi = bisect_left(keys, prefix + '\U0010ffff')
        end = min(hi, lo + limit) if limit else hi
        return Page([get[k] for k in keys[lo:end]], rv or self._rv, remaining=max(0, hi - end))

    def _at(self, rv: int) -> dict[str, Versioned]:
        """The map as it stood at `rv`, by undoing newer changes."""
        if rv > self._rv:
            raise FutureRevision(current=self._rv)
        if rv < self._first:
            raise Compacted(oldest=self._first)
        past = dict(self._map)
        stamped: dict[str, int] = {}
        for event in reversed(self._log):
            if event.rv <= rv:
                # The undone keys still need the revision that wrote the value they are back to.
                if event.key in stamped and stamped[event.key] == 0:
                    stamped[event.key] = event.rv
                continue
            stamped[event.key] = 0
            before = event.value if event.deleted else event.prev
            if before is None:
                past.pop(event.key, None)
            else:
                past[event.key] = Versioned(event.key, before, 0)
        for key, written in stamped.items():
            if key in past:
                past[key] = Versioned(key, past[key].value, written or self._first)
        return past

    async def create(self, key: str, value: bytes, *, ttl_s: int = 0) -> Versioned:
        if key in self._map:
            raise KeyExists(key)
        return Versioned(key, value, self._put(key, value, ttl_s))

    async def update(self, key: str, change: Change, *, ttl_s: int = 0, origin: Versioned | None = None) -> Versioned:
        async def put_if(seen: Versioned, value: bytes) -> int | None:
            now = self._map.get(key)
            return self._put(key, value, ttl_s) if now is not None and now.rv == seen.rv else None

        return await update_loop(key, change, origin, self.get, put_if)

    async def delete(self, key: str, *, check: Check | None = None, origin: Versioned | None = None) -> Versioned:
        async def delete_if(seen: Versioned) -> int | None:
            now = self._map.get(key)
            return self._remove(key) if now is not None and now.rv == seen.rv else None

        return await delete_loop(key, check, origin, self.get, delete_if)

    async def current_revision(self) -> int:
        return self._rv

    def nudge(self) -> None:
        """Every batch carries the newest revision already."""

    async def watch(self, prefix: str, *, from_rv: int) -> AsyncIterator[Batch]:
        seen = from_rv
        while True:
            if seen < self._first:
                raise Compacted(oldest=self._first)
            changed = self._changed
            if seen < self._rv:
                # Every change is one revision, so the position follows from the revision.
                tail = self._log[seen - self._first :]
                seen = self._rv
                yield Batch(seen, [e for e in tail if e.key.startswith(prefix)])
            else:
                await changed.wait()

    def _put(self, key: str, value: bytes, ttl_s: int) -> int:
        old = self._map.get(key)
        if old is None:
            insort(self._keys, key)
        self._append(Event(key, self._rv + 1, value, old.value if old else None))
        self._map[key] = Versioned(key, value, self._rv)
        self._rearm(key, ttl_s)
        return self._rv

    def _remove(self, key: str) -> int:
        old = self._map.pop(key)
        del self._keys[bisect_left(self._keys, key)]
        self._append(Event(key, self._rv + 1, old.value, old.value, deleted=True))
        self._rearm(key, 0)
        return self._rv

    def _rearm(self, key: str, ttl_s: int) -> None:
        timer = self._expiry.pop(key, None)
        if timer is not None:
            timer.cancel()
        if ttl_s:
            self._expiry[key] = asyncio.get_running_loop().call_later(ttl_s, self._expire, key)

    def _expire(self, key: str) -> None:
        self._expiry.pop(key, None)
        if key in self._map:
            self._remove(key)

    def _append(self, event: Event) -> None:
        self._log.append(event)
        self._rv = event.rv
        if len(self._log) > LOG_EVENTS_MAX:
            drop = len(self._log) - LOG_EVENTS_MAX // 2
            self._first = self._log[drop - 1].rv
            del self._log[:drop]
        self._changed.set()
        self._changed = asyncio.Event()
