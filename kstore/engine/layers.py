"""Ordered tables under the state machine: recent writes in memory, the rest in a backend that is flushed behind.

The log on disk makes an acknowledged write durable, so the tables may follow lazily. Writes go to the *active* layer;
a flush freezes it, hands it to the backend as one atomic batch together with the index of the last applied entry,
and drops it once the batch is on disk. Reads look at active, frozen and backend, in this order. A crash loses the
layers and nothing else: the log is replayed from the index that the backend's last batch carried.

Keys of one table are unique and ordered bytewise. All calls come from the event loop's thread.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections.abc import Iterator
from enum import IntEnum
from typing import Protocol

LAYER_RECORDS_MAX = 8_192
"""Changed records in memory that ask for a flush."""
LAYER_BYTES_MAX = 16 * 1024 * 1024
"""Bytes of changed records in memory that ask for a flush."""


class Table(IntEnum):
    """Numbers are part of the snapshot format."""

    KEYS = 0
    """Live key → place of its newest version."""
    DEAD = 1
    """Deleted key → place of its tombstone, until that is compacted."""
    LOG = 2
    """Revision and sub-revision → the version written then."""
    META = 3
    """Counters of the store."""
    LEASED = 4
    """Lease id and key → nothing: which keys hang on which lease."""
    LEASES = 5
    """Lease id → TTL."""
    SESSIONS = 6
    """Client id → its recent results."""
    MEMBERS = 7
    """Member id → address, empty once it was removed; what `--peers` says holds for the others."""


Records = Iterator[tuple[bytes, bytes]]


class View(Protocol):
    """A fixed state of all tables; close it, it holds pages."""

    def scan(self, table: Table, start: bytes, end: bytes | None) -> Records: ...

    def close(self) -> None: ...


class Backend(Protocol):
    """What survives a restart."""

    @property
    def applied(self) -> int:
        """Index that the newest durable batch carried; 0 when empty."""

    @property
    def size_bytes(self) -> int:
        """Bytes on the disk."""

    @property
    def used_bytes(self) -> int:
        """Bytes in use; the rest is reused before the file grows."""

    def get(self, table: Table, key: bytes) -> bytes | None: ...

    def scan(self, table: Table, start: bytes, end: bytes | None) -> Records:
        """Records with start <= key < end, ascending; `None` has no end. Use it up before the next `write` ends."""

    def view(self) -> View: ...

    async def write(self, layer: Layer, applied: int) -> None:
        """All of `layer` and `applied`, atomically; durable and visible on return. Raises OSError when it is not."""

    async def clear(self) -> None:
        """Forget everything, `applied` included."""

    async def compact(self) -> None:
        """Give unused space back to the disk. Not during `write`. Raises OSError; then nothing has changed."""

    def close(self) -> None: ...


class Layer:
    """Changed records of every table: a value, or `None` for a deleted record."""

    __slots__ = ('bytes', 'keys', 'records', 'values')

    def __init__(self) -> None:
        self.values: list[dict[bytes, bytes | None]] = [{} for _ in Table]
        self.keys: list[list[bytes]] = [[] for _ in Table]
        """The same keys, sorted, so that a scan needs no sorting."""
        self.records = 0
        self.bytes = 0

    def set(self, table: int, key: bytes, value: bytes | None) -> None:
        values = self.values[table]
        if key not in values:
            keys = self.keys[table]
            if not keys or key > keys[-1]:
                keys.append(key)
            else:
                insort(keys, key)
            self.records += 1
        values[key] = value
        self.bytes += len(key) + (len(value) if value is not None else 0)

    def between(self, table: int, start: bytes, end: bytes | None) -> list[bytes]:
        keys = self.keys[table]
        if not keys:
            return keys
        low = bisect_left(keys, start)
        high = len(keys) if end is None else bisect_left(keys, end)
        return keys[low:high]

    def copy(self) -> Layer:
        twin = Layer()
        twin.values = [dict(v) for v in self.values]
        twin.keys = [list(k) for k in self.keys]
        twin.records, twin.bytes = self.records, self.bytes
        return twin


def merged(base: Records, layers: tuple[Layer, ...], table: int, start: bytes, end: bytes | None) -> Records:
    """`base` with the changes of `layers` (oldest first) on top of it."""
    changes: dict[bytes, bytes | None] = {}
    for layer in layers:
        values = layer.values[table]
        for key in layer.between(table, start, end):
            changes[key] = values[key]
    if not changes:
        yield from base
        return
    pending = sorted(changes, reverse=True)
    for key, value in base:
        while pending and pending[-1] <= key:
            changed = pending.pop()
            new = changes[changed]
            if new is not None:
                yield changed, new
        if key not in changes:
            yield key, value
    while pending:
        changed = pending.pop()
        new = changes[changed]
        if new is not None:
            yield changed, new


class Engine:
    """Tables with layers over one backend; see the module's text."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._active = Layer()
        self._frozen = Layer()
        self.turn = asyncio.Lock()
        """Held by whoever flushes, compacts or replaces the tables: one at a time."""

    @property
    def durable_index(self) -> int:
        return self.backend.applied

    @property
    def dirty(self) -> bool:
        return self._active.records > 0

    @property
    def full(self) -> bool:
        """Whether the active layer asks for a flush now."""
        return self._active.records >= LAYER_RECORDS_MAX or self._active.bytes >= LAYER_BYTES_MAX

    @property
    def pending_bytes(self) -> int:
        return self._active.bytes + self._frozen.bytes

    def get(self, table: Table, key: bytes) -> bytes | None:
        for layer in (self._active, self._frozen):
            values = layer.values[table]
            if key in values:
                return values[key]
        return self.backend.get(table, key)

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        self._active.set(table, key, value)

    def delete(self, table: Table, key: bytes) -> None:
        self._active.set(table, key, None)

    def scan(self, table: Table, start: bytes = b'', end: bytes | None = None) -> Records:
        """Records with start <= key < end, ascending. Use it up before the next write or `await`."""
        base = self.backend.scan(table, start, end)
        return merged(base, (self._frozen, self._active), table, start, end)

    def view(self) -> EngineView:
        """A fixed state, unmoved by later writes and flushes."""
        return EngineView(self.backend.view(), (self._frozen.copy(), self._active.copy()))

    async def flush(self, applied: int) -> None:
        """Make everything written so far durable, as the state after entry `applied`. The caller has the `turn`."""
        if self._frozen.records == 0:  # else an earlier flush failed: its layer goes first, with this one on top
            self._frozen, self._active = self._active, Layer()
        else:
            self._fold()
        await self.backend.write(self._frozen, applied)
        self._frozen = Layer()

    def _fold(self) -> None:
        for table in Table:
            for key, value in self._active.values[table].items():
                self._frozen.set(table, key, value)
        self._active = Layer()

    async def compact(self) -> None:
        """Give unused space back to the disk; writes meanwhile stay in memory. Raises OSError."""
        async with self.turn:
            await self.backend.compact()

    async def clear(self) -> None:
        """Forget everything, layers included. The caller has the `turn`."""
        await self.backend.clear()
        self._active, self._frozen = Layer(), Layer()

    def close(self) -> None:
        self.backend.close()


class EngineView:
    """See `Engine.view`."""

    def __init__(self, base: View, layers: tuple[Layer, ...]) -> None:
        self._base = base
        self._layers = layers

    def scan(self, table: Table, start: bytes = b'', end: bytes | None = None) -> Records:
        return merged(self._base.scan(table, start, end), self._layers, table, start, end)

    def close(self) -> None:
        self._base.close()
