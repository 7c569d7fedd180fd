"""A disk in memory that keeps its promises and nothing more.

What `Disk` calls durable is durable; what was appended and not synced is, after `crash()`, there in part: some prefix
of it, possibly with sectors missing (zeros), or gone. A file with a reservation then ends in zeros. `sync_error` makes
syncs fail, `capacity` makes appends fail half way with ENOSPC, `latency_s` makes them slow, `damage` flips a bit at
rest. Handles from before a crash are dead.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar('T')
SECTOR = 512
LATENCY_S = 0.0002


class _File:
    """Content, and how much of it a crash cannot take."""

    def __init__(self, data: bytes = b'') -> None:
        self.data = bytearray(data)
        self.durable = len(data)
        self.reserved = False
        self.zeros_ahead = False
        """The data is written over zeros: a crash leaves whole sectors of either."""


class SimAppendFile:
    """A handle; dies with its disk's incarnation."""

    def __init__(self, disk: SimDisk, file: _File) -> None:
        self._disk = disk
        self._file = file
        self._incarnation = disk.incarnation

    @property
    def size(self) -> int:
        return len(self._file.data)

    def append(self, data: bytes) -> None:
        self._check()
        fits = self._disk.room()
        self._file.data += data[:fits]
        self._file.zeros_ahead = self._file.reserved
        if fits < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def sync(self) -> None:
        self._check()
        if self._disk.sync_error is not None:
            raise self._disk.sync_error
        self._file.durable = len(self._file.data)

    def truncate(self, size: int) -> None:
        self._check()
        del self._file.data[size:]
        self._file.durable = size
        self._file.zeros_ahead = False

    def close(self) -> None:
        self._incarnation = -1

    def _check(self) -> None:
        if self._incarnation != self._disk.incarnation:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))


class SimDisk:
    """The files of one host."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._files: dict[Path, _File] = {}
        self._directories: set[Path] = set()
        self.incarnation = 0
        self.latency_s = LATENCY_S
        self.prompt = False
        """Short writes take no time at all while nothing makes the disk slow."""
        self.capacity: int | None = None
        """Bytes that fit; None for enough."""
        self.sync_error: OSError | None = None

    # --- faults -------------------------------------------------------------------------------------------------------

    def crash(self) -> None:
        """Power off: unsynced bytes are lost from some point on, and maybe torn before it."""
        self.incarnation += 1
        for file in self._files.values():
            pending = len(file.data) - file.durable
            if pending:
                kept = self._rng.choice([0, pending, self._rng.randint(0, pending)])
                if file.zeros_ahead and kept < pending:
                    kept = max(0, kept - (file.durable + kept) % SECTOR)
                del file.data[file.durable + kept :]
                if kept and self._rng.random() < 0.5:
                    self._tear(file)
                file.durable = len(file.data)
            if file.zeros_ahead:
                file.data += bytes(SECTOR + -file.durable % SECTOR)
                file.durable = len(file.data)

    def _tear(self, file: _File) -> None:
        """One sector of the unsynced part was never written."""
        at = self._rng.randrange(file.durable, len(file.data))
        lo, hi = max(file.durable, at - at % SECTOR), min(len(file.data), at - at % SECTOR + SECTOR)
        file.data[lo:hi] = bytes(hi - lo)

    def damage(self, path: Path, offset: int, bit: int = 0) -> None:
        """Flip one bit at rest."""
        self._files[path].data[offset] ^= 1 << bit

    @property
    def used(self) -> int:
        """Bytes in all files."""
        return sum(len(f.data) for f in self._files.values())

    def room(self) -> int:
        """Bytes that still fit."""
        return 1 << 62 if self.capacity is None else max(0, self.capacity - self.used)

    def reserve(self, size: int) -> None:
        """Raises OSError (ENOSPC) when `size` more bytes do not fit."""
        if size > self.room():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    # --- kcore.env.Disk -----------------------------------------------------------------------------------------------

    def read(self, path: Path) -> bytes:
        return bytes(self._find(path).data)

    def exists(self, path: Path) -> bool:
        return path in self._files or path in self._directories

    def listdir(self, path: Path) -> list[str]:
        return sorted(p.name for p in {*self._files, *self._directories} if p.parent == path and p != path)

    def mkdir(self, path: Path, mode: int = 0o700) -> None:
        self._directories.update([path, *path.parents])

    def replace(self, path: Path, data: bytes, mode: int = 0o600, *, sync: bool = True) -> None:
        self.reserve(len(data))
        self._files[path] = _File(data)
        if not sync:
            self._files[path].durable = 0

    def rename(self, old: Path, new: Path) -> None:
        self._files[new] = self._find(old)
        del self._files[old]

    def remove(self, path: Path) -> None:
        self._files.pop(path, None)

    def open_append(self, path: Path, *, preallocate: int = 0, mode: int = 0o600) -> SimAppendFile:
        if path not in self._files:
            self.reserve(0)
        file = self._files.setdefault(path, _File())
        file.reserved = preallocate > 0
        return SimAppendFile(self, file)

    async def offload(self, call: Callable[..., T], *args: Any) -> T:
        await asyncio.sleep(self.latency_s * (0.5 + self._rng.random()))
        return call(*args)

    @property
    def quick(self) -> bool:
        return self.prompt and self.latency_s <= LATENCY_S

    async def sync_soon(self, call: Callable[..., T], *args: Any) -> T:
        return self.sync_now(call, *args) if self.quick else await self.offload(call, *args)

    def sync_now(self, call: Callable[..., T], *args: Any) -> T:
        return call(*args)

    def _find(self, path: Path) -> _File:
        file = self._files.get(path)
        if file is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return file
