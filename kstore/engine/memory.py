"""A backend in memory, for simulation and unit tests: an `Image` plays the disk and outlives the process."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

from kstore.engine.layers import Layer, Records, Table


@dataclass(slots=True)
class Image:
    """What a crash leaves."""

    tables: list[dict[bytes, bytes]] = field(default_factory=lambda: [{} for _ in Table])
    applied: int = 0
    error: OSError | None = None
    """What every write fails with while it is set: a full disk, a broken one."""


class MemoryBackend:
    """Durable after one turn of the event loop, so that a simulated crash can fall into a flush."""

    def __init__(self, image: Image | None = None) -> None:
        self._image = image or Image()
        self._keys: list[list[bytes]] = [sorted(t) for t in self._image.tables]

    @property
    def applied(self) -> int:
        return self._image.applied

    @property
    def size_bytes(self) -> int:
        return sum(len(k) + len(v) for t in self._image.tables for k, v in t.items())

    @property
    def used_bytes(self) -> int:
        return self.size_bytes

    def get(self, table: Table, key: bytes) -> bytes | None:
        return self._image.tables[table].get(key)

    def scan(self, table: Table, start: bytes, end: bytes | None) -> Records:
        return _scan(self._image.tables[table], self._keys[table], start, end)

    def view(self) -> MemoryView:
        return MemoryView([dict(t) for t in self._image.tables])

    async def write(self, layer: Layer, applied: int) -> None:
        await asyncio.sleep(0)
        if self._image.error is not None:
            raise self._image.error
        for table in Table:
            records = self._image.tables[table]
            for key, value in layer.values[table].items():
                if value is None:
                    records.pop(key, None)
                else:
                    records[key] = value
            if layer.values[table]:
                self._keys[table] = sorted(records)
        self._image.applied = applied

    async def clear(self) -> None:
        self._image.tables = [{} for _ in Table]
        self._image.applied = 0
        self._keys = [[] for _ in Table]

    async def compact(self) -> None:
        """There is no file."""

    def close(self) -> None:
        """Nothing to let go of."""


class MemoryView:
    """A copy of all tables."""

    def __init__(self, tables: list[dict[bytes, bytes]]) -> None:
        self._tables = tables

    def scan(self, table: Table, start: bytes, end: bytes | None) -> Records:
        return _scan(self._tables[table], sorted(self._tables[table]), start, end)

    def close(self) -> None:
        self._tables = [{} for _ in Table]


def _scan(records: dict[bytes, bytes], keys: Sequence[bytes], start: bytes, end: bytes | None) -> Records:
    low = bisect_left(keys, start)
    high = len(keys) if end is None else bisect_left(keys, end)
    for key in keys[low:high]:
        yield key, records[key]
