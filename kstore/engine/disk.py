"""The backend on disk: LMDB, one batch per transaction, the applied index inside it.

LMDB commits copy-on-write and sync twice (pages, then the root), so that a power cut leaves the last or the one
before last batch whole: no `NOSYNC`, no `WRITEMAP`; and no `NOMEMINIT`, which brings to disk, in unused parts of pages,
whatever this process's memory held there before. A commit takes milliseconds, so it runs on a thread of its own; the
records themselves are put from the event loop's thread, a slice at a time, because a thread that puts would fight for
the interpreter lock at every record. LMDB wants one thread to begin and commit, and gets it: only the puts in between
come from here, and never while the other thread holds the transaction.

The map grows before it is full: a flush first makes sure that the file would not pass half of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lmdb
import structlog

from kcore.env import DISK_FULL
from kstore.engine.layers import Layer, Records, Table
from kstore.errors import Corrupt

log = structlog.get_logger('kstore.engine')

MAP_BYTES_MIN = 1 << 30
"""Address space reserved at first (not disk); doubled whenever half of it is used."""
SLICE_RECORDS = 256
"""Records put per turn of the event loop during a flush, at least."""
SLICES = 16
"""Turns that a flush is spread over at most, so that it keeps up with turns that bring more than a small slice each."""
ROOM_BYTES = 1 << 20
"""What a flush may need beside its own pages; with less a failed write is taken for a full disk."""
VIEWS_MAX = 16
"""Fixed views (snapshots under way) at a time."""
_APPLIED = b'\xffapplied'


class LmdbBackend:
    """One LMDB environment in `directory`; see the module's text."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._map_bytes = MAP_BYTES_MIN
        self._open()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix='state')
        self._views = 0
        self._last: lmdb.Transaction | None = None
        self._applied = self._read_applied()

    def _open(self) -> None:
        directory = self._directory
        size = directory / 'data.mdb'
        while size.exists() and size.stat().st_size * 2 > self._map_bytes:
            self._map_bytes *= 2
        try:
            self._env = lmdb.open(
                str(directory),
                map_size=self._map_bytes,
                max_dbs=len(Table),
                max_readers=VIEWS_MAX + 4,
                metasync=True,
                sync=True,
                readahead=False,
                mode=0o600,
            )
            cut = self._fill_up(directory / 'data.mdb')
            self._tables = [self._env.open_db(table.name.lower().encode()) for table in Table]
            if cut:
                self._read_through()
        except lmdb.Error as e:
            raise Corrupt(f'state in {directory} cannot be opened: {e}; restore a snapshot or join as new') from e
        self._env.reader_check()
        self._read = self._env.begin()

    def _fill_up(self, file: Path) -> bool:
        """Give a file that was cut short its length: the kernel would end the process when what is missing is read."""
        if file.stat().st_size >= self.size_bytes:
            return False
        log.warning('state is shorter than it should be', file=str(file), bytes=file.stat().st_size)
        os.truncate(file, self.size_bytes)
        return True

    def _read_through(self) -> None:
        """Raises lmdb.Error when a page in use is none."""
        with self._env.begin() as txn:
            for table in self._tables:
                for _ in txn.cursor(db=table).iternext(values=True):
                    pass

    @property
    def applied(self) -> int:
        return self._applied

    @property
    def size_bytes(self) -> int:
        return int(self._env.info()['last_pgno'] + 1) * int(self._env.stat()['psize'])

    @property
    def used_bytes(self) -> int:
        pages = 0
        for table in self._tables:
            stat = self._read.stat(table)
            pages += stat['branch_pages'] + stat['leaf_pages'] + stat['overflow_pages']
        return int(pages) * int(self._env.stat()['psize'])

    def get(self, table: Table, key: bytes) -> bytes | None:
        value: bytes | None = self._read.get(key, db=self._tables[table])
        return value

    def scan(self, table: Table, start: bytes, end: bytes | None) -> Records:
        return _scan(self._read, self._tables[table], start, end)

    def view(self) -> LmdbView:
        self._views += 1
        return LmdbView(self, self._env.begin(), self._tables)

    def view_closed(self) -> None:
        self._views -= 1

    async def write(self, layer: Layer, applied: int) -> None:
        self._reserve(layer)
        loop = asyncio.get_running_loop()
        txn = await loop.run_in_executor(self._thread, self._begin)
        try:
            await self._fill(txn, layer)
            txn.put(_APPLIED, applied.to_bytes(8, 'big'), db=self._tables[Table.META])
            await loop.run_in_executor(self._thread, txn.commit)
        except BaseException as e:
            with contextlib.suppress(lmdb.Error):
                await loop.run_in_executor(self._thread, txn.abort)
            if isinstance(e, lmdb.Error):
                raise _os_error(e, full=self._no_room(layer)) from e
            raise
        self._renew()
        self._applied = applied

    async def _fill(self, txn: lmdb.Transaction, layer: Layer) -> None:
        budget = slice_records = max(SLICE_RECORDS, -(-layer.records // SLICES))
        for table in Table:
            db = self._tables[table]
            values = layer.values[table]
            for key in layer.keys[table]:  # sorted: neighbours share pages
                value = values[key]
                if value is None:
                    txn.delete(key, db=db)
                else:
                    txn.put(key, value, db=db)
                budget -= 1
                if budget == 0:
                    budget = slice_records
                    await asyncio.sleep(0)

    async def clear(self) -> None:
        loop = asyncio.get_running_loop()
        txn = await loop.run_in_executor(self._thread, self._begin)
        try:
            for db in self._tables:
                txn.drop(db, delete=False)
            await loop.run_in_executor(self._thread, txn.commit)
        except lmdb.Error as e:
            raise _os_error(e) from e
        self._renew()
        self._applied = 0

    async def compact(self) -> None:
        """Copy what is in use to a new file and take that one. Raises OSError, also while a view is open."""
        if self._views:
            raise OSError(errno.EBUSY, 'a snapshot is under way')
        twin = self._directory / 'compact'
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._copy, twin)
            if self._views:
                raise OSError(errno.EBUSY, 'a snapshot is under way')
            self._read.abort()
            self._env.close()
            try:
                (twin / 'data.mdb').replace(self._directory / 'data.mdb')
                _sync_directory(self._directory)
            finally:
                self._open()
        finally:
            await loop.run_in_executor(self._thread, shutil.rmtree, twin, True)

    def _copy(self, twin: Path) -> None:
        shutil.rmtree(twin, ignore_errors=True)
        twin.mkdir(mode=0o700)
        try:
            self._env.copy(str(twin), compact=True)
        except lmdb.Error as e:
            raise OSError(errno.ENOSPC, f'the tables were not copied: {e}') from e
        fd = os.open(twin / 'data.mdb', os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def close(self) -> None:
        self._read.abort()
        self._thread.shutdown(wait=True)
        self._env.close()

    def _begin(self) -> lmdb.Transaction:
        if self._last is not None:  # whoever began it may have been cancelled before he had it
            self._last.abort()  # nothing happens to one that has ended
        self._last = None
        self._last = self._env.begin(write=True)
        return self._last

    def _renew(self) -> None:
        self._read.abort()
        self._read = self._env.begin()

    def _read_applied(self) -> int:
        raw = self._read.get(_APPLIED, db=self._tables[Table.META])
        return int.from_bytes(raw, 'big') if raw else 0

    def _no_room(self, layer: Layer) -> bool:
        """Whether the disk, or the limit on a file's size, may have no room for `layer` and the pages it copies."""
        wanted = 4 * layer.bytes + 4096 * layer.records + ROOM_BYTES
        disk, limit = os.statvfs(self._directory), resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        size = (self._directory / 'data.mdb').stat().st_size
        return disk.f_bavail * disk.f_frsize < wanted or (limit != resource.RLIM_INFINITY and size + wanted > limit)

    def _reserve(self, layer: Layer) -> None:
        """Double the map while the file and four times this batch (copies of its pages) would pass half of it."""
        wanted = self.size_bytes + 4 * layer.bytes + 4096 * layer.records
        if wanted * 2 <= self._map_bytes or self._views:
            return
        while wanted * 2 > self._map_bytes:
            self._map_bytes *= 2
        self._read.abort()
        self._env.set_mapsize(self._map_bytes)
        self._read = self._env.begin()


def _os_error(error: lmdb.Error, *, full: bool = False) -> OSError:
    """LMDB names ENOSPC only; a quota or a limit on the file's size is as full a disk.

    full: there was no room for what was to be written. LMDB says EIO when only a part of a write fitted.
    """
    full = full or isinstance(error, lmdb.DiskError) or any(os.strerror(code) in str(error) for code in DISK_FULL)
    text = f'state was not written: {error}'
    return OSError(errno.ENOSPC, text) if full else OSError(text)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class LmdbView:
    """A read transaction of its own."""

    def __init__(self, backend: LmdbBackend, txn: lmdb.Transaction, tables: list[lmdb._Database]) -> None:
        self._backend = backend
        self._txn = txn
        self._tables = tables
        self._open = True

    def scan(self, table: Table, start: bytes, end: bytes | None) -> Records:
        return _scan(self._txn, self._tables[table], start, end)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._txn.abort()
            self._backend.view_closed()

    def __del__(self) -> None:
        self.close()  # an iterator over it that was never started cannot do so


def _scan(txn: Any, db: lmdb._Database, start: bytes, end: bytes | None) -> Records:
    with txn.cursor(db) as cursor:
        if not (cursor.set_range(start) if start else cursor.first()):
            return
        records: Records = cursor.iternext()
        if end is None:
            yield from records
            return
        for record in records:
            if record[0] >= end:
                return
            yield record
