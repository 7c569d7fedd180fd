"""Who fills the store: live keys and their bytes by prefix, as this member has them.

Counted when somebody asks, a slice of keys at a time, so that nobody else waits; a count that runs while keys change is
true for each slice, not for one moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

import structlog

from kcore.env import Clock
from kcore.tasks import start_detached
from kstore.errors import Overloaded, StoreError
from kstore.mvcc import select
from kstore.mvcc.store import Store

log = structlog.get_logger('kstore.usage')

SLICE_KEYS = 256
"""Keys counted before others get a turn."""
DEPTH_MAX = 16
PREFIXES_MAX = 1_000
"""Prefixes named in one answer, the biggest; the rest is summed up."""
COUNTS_MAX = 4
"""Counts under way at a time; one more is refused."""
METRICS_AGE_S = 60.0
"""A scrape that finds older figures has them counted again, for the next one."""
METRICS_DEPTH = 2
METRICS_PREFIXES_MAX = 20
"""Prefixes in `/metrics`: each is a time series for ever."""
REST = b''
"""Stands for all prefixes that are not named."""


class Use(NamedTuple):
    """What one prefix holds."""

    prefix: bytes
    keys: int
    bytes: int


def prefix_of(key: bytes, depth: int) -> bytes:
    """`/a/b/c/d` → `/a/b/` at depth 2; a key with fewer parts counts under its own last separator.

    A key without a separator stands for itself.
    """
    at = 0 if key.startswith(b'/') else -1
    for _ in range(depth):
        found = key.find(b'/', at + 1)
        if found < 0:
            break
        at = found
    return key[: at + 1] if at >= 0 else key


async def count(store: Store, prefix: bytes, depth: int) -> list[Use]:
    """Usage below `prefix`, the biggest first. Raises Stopped, Compacted."""
    keys: dict[bytes, int] = {}
    sizes: dict[bytes, int] = {}
    start = prefix or b'\x00'
    while True:
        page = store.page(start, store.revision, SLICE_KEYS)
        for kv in page:
            key = select.key_of(kv)
            if not key.startswith(prefix):
                return _biggest(keys, sizes)
            group = prefix_of(key, depth)
            keys[group] = keys.get(group, 0) + 1
            sizes[group] = sizes.get(group, 0) + len(kv)
        if len(page) < SLICE_KEYS:
            return _biggest(keys, sizes)
        start = select.key_of(page[-1]) + b'\x00'
        await asyncio.sleep(0)


def _biggest(keys: dict[bytes, int], sizes: dict[bytes, int]) -> list[Use]:
    found = sorted((Use(p, keys[p], sizes[p]) for p in keys), key=lambda use: (-use.bytes, use.prefix))
    return _cut(found, PREFIXES_MAX)


def _cut(found: list[Use], most: int) -> list[Use]:
    named, rest = found[:most], found[most:]
    if rest:
        named.append(Use(REST, sum(u.keys for u in rest), sum(u.bytes for u in rest)))
    return named


class Usage:
    """Counts for whoever asks, and keeps recent figures for `/metrics`."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._running = 0
        self._counted_at = float('-inf')
        self._metrics: list[Use] = []

    def serve(self, prefix: bytes, depth: int, respond: Callable[[list[Use] | StoreError], None]) -> None:
        """Raises Overloaded."""
        if self._running >= COUNTS_MAX:
            raise Overloaded(f'more than {COUNTS_MAX} counts are under way')
        self._running += 1
        start_detached('usage', self._answer(prefix, depth, respond))

    async def _answer(self, prefix: bytes, depth: int, respond: Callable[[list[Use] | StoreError], None]) -> None:
        try:
            respond(await count(self._store, prefix, depth))
        except StoreError as e:
            respond(e)
        finally:
            self._running -= 1

    def recent(self) -> list[Use]:
        """The last figures; has them counted again, in the background, when they are old."""
        now = self._clock.monotonic()
        if now - self._counted_at >= METRICS_AGE_S and self._running < COUNTS_MAX:
            self._counted_at = now
            self.serve(b'', METRICS_DEPTH, self._counted)
        return self._metrics

    def _counted(self, found: list[Use] | StoreError) -> None:
        if isinstance(found, StoreError):
            log.info('usage was not counted', err=str(found))
        else:
            self._metrics = _cut(found, METRICS_PREFIXES_MAX)
