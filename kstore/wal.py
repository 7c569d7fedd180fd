"""The log on disk: segmented, checksummed, preallocated; the only thing that makes a promise durable.

A directory holds segments `<number>.wal`, a number being one more than the one before. A segment is a sequence of
records, 8-byte aligned:

    magic u32 │ length u32 │ durable u64 │ crc(header) u32 │ crc(payload) u32 │ payload │ zeros to a multiple of 8

The payload is msgpack: (kind, …). The first record of a segment is its *head*: segment number, hard state, and where
the log begins, so that older segments can be removed at any time. Then follow *batches* (hard state, entries) and
*marks* (the log was replaced by a snapshot). A batch's first entry cuts whatever was stored from its index on.

`durable` is the offset up to which the segment was synced when the record was written. It tells a torn tail, which a
crash leaves and which nobody relied on, from damage to something that had been promised: if any readable record
claims that the unreadable place was already durable, or if the unreadable bytes show no sign of tearing, this member
must not start (it would forget entries that it helped to commit). A torn write leaves a short file or missing 512-byte
sectors, which read as zeros. Same reasoning as etcd's `wal/decoder.go`; the offset is ours. Zeros alone are no tail at
all: the disk writes them ahead of the data (see `kcore.env.Disk.open_append`); a completed segment has none.

Checksums are CRC-32C, which processors have an instruction for: a record of 4 KiB costs 1.5 µs.

Writing is split in two, for the event loop's sake: `append` only encodes, `flush` (called off the loop, one call at a
time) writes all that was appended, syncs once, and starts the next segment when this one is full.

A full disk costs nothing that was promised: a batch that does not fit is taken back, `DiskFull` is raised, and the same
batch may be tried again. The next segment is reserved when the present one is half full, so that `crowded` tells of the
end while there is still room for the other half. An error of `sync` is never survived: after it nobody knows what the
disk holds.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import msgpack
import structlog

from kcore.env import AppendFile, Disk, is_full
from kstore.raft.errors import LogCorrupt
from kstore.raft.messages import NO_ONE, ConfState, Entry, HardState, SnapshotMeta, entries_from_wire

log = structlog.get_logger('kstore.wal')

SEGMENT_BYTES = 32 << 20
"""A segment is closed by the first flush that brings it here."""
PAYLOAD_BYTES_MAX = 64 << 20
"""Larger claims are damage. Batches are split far below."""
BATCH_BYTES = 1 << 20
"""Entry data in one record; larger appends are split over several."""
CROWDED_WRITES = 16
"""Writes between two attempts to reserve a segment on a disk that had no room for it."""
SECTOR = 512
VERSION = 2

_MAGIC = 0x3241576B  # 'kWA2'
_MAGIC_BYTES_OF_1 = b'kWAL'
_MAGIC_BYTES = struct.pack('<I', _MAGIC)
_FRONT = struct.Struct('<IIQ')
_CHECKS = struct.Struct('<II')
_HEADER_BYTES = _FRONT.size + _CHECKS.size
_PADDING = [bytes(n) for n in range(8)]

_HEAD, _BATCH, _MARK = 0, 1, 2

_crc = google_crc32c.value


class WalCorrupt(LogCorrupt):
    """Promised bytes are damaged; starting would lose acknowledged writes. Says what to do."""

    def __init__(self, path: Path, offset: int, why: str) -> None:
        super().__init__(
            f'{path}: {why} at byte {offset}. This member may have acknowledged entries that are now unreadable, so it '
            'does not start. If a majority of the other members is healthy, move this data directory away, remove this '
            'member and add it anew; otherwise restore from a snapshot or a copy of the file'
        )
        self.path, self.offset = path, offset


class DiskFull(Exception):
    """A batch did not fit and left no trace."""


class Recovered(NamedTuple):
    """What the log held: entries follow on `snapshot` without a hole."""

    hard_state: HardState
    snapshot: SnapshotMeta
    entries: Sequence[Entry]
    cut: int
    """Bytes of torn tail that were dropped."""


class Batch(NamedTuple):
    """What one `write` brings to disk: encoded records, and what a head written after them has to say."""

    payloads: Sequence[bytes]
    hard_state: HardState
    begin: SnapshotMeta
    last: int


class _Record(NamedTuple):
    """One decoded record and where it was."""

    path: Path
    offset: int
    kind: int
    body: tuple[Any, ...]


@dataclass(slots=True)
class _Closed:
    """A segment that is written no more, and the highest entry index it holds."""

    number: int
    last: int


class Wal:
    """An open log. `append`, `mark` and `take` on the event loop; `write` and `drop` elsewhere, one at a time."""

    def __init__(self, directory: Path, disk: Disk, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._directory = directory
        self._disk = disk
        self._segment_bytes = segment_bytes
        self._file: AppendFile | None = None
        self._number = 0
        self._closed: list[_Closed] = []
        self._pending: list[bytes] = []
        self._hard_state = HardState(0, NO_ONE, 0)
        self._begin = SnapshotMeta(0, 0, ConfState(()))
        self._last = 0
        self._spare: AppendFile | None = None
        """The next segment, reserved and still empty."""
        self._writes = 0
        self.crowded = False
        """The disk had no room for another segment when it was last asked."""

    # --- reading --------------------------------------------------------------------------------------------------

    def open(self, conf: ConfState) -> Recovered:
        """Read everything, repair a torn tail, be ready to write. `conf` is the membership of a brand-new log.

        Raises WalCorrupt (refuse to start), OSError.
        """
        self._disk.mkdir(self._directory)
        names = [n for n in self._disk.listdir(self._directory) if n.endswith('.wal')]
        records: list[_Record] = []
        cut = self._remove_headless(names)
        for name in names:
            cut += self._read_segment(name, records, newest=name == names[-1])
        found = _fold(records, SnapshotMeta(0, 0, conf))
        self._hard_state, self._begin, entries = found
        self._last = self._begin.index + len(entries)
        if self._number:
            self._file = self._reopen(self._path(self._number))
        else:
            file = self._disk.open_append(self._path(1), preallocate=self._segment_bytes)
            self._start_segment(file, 1, self.take())
        return Recovered(self._hard_state, self._begin, entries, cut)

    def _remove_headless(self, names: list[str]) -> int:
        """A last segment that is reserved or whose head was not synced: nothing was promised in it. Returns bytes."""
        if not names:
            return 0
        path = self._directory / names[-1]
        data = self._disk.read(path)
        if next(_frames(data), None) is not None:
            return 0
        names.pop()
        if data:
            _judge_tail(path, data, 0, newest=True)
        self._disk.remove(path)
        log.info('segment without a head removed', file=str(path), bytes=len(data))
        return len(data)

    def _read_segment(self, name: str, records: list[_Record], *, newest: bool) -> int:
        """Add the segment's records and cut its torn tail. Returns the bytes cut."""
        path = self._directory / name
        stem = name.removesuffix('.wal')
        number = int(stem) if stem.isdigit() else 0
        if not number or (self._number and number != self._number + 1):
            raise WalCorrupt(path, 0, f'a segment is missing before it (found {self._number} last)')
        data = self._disk.read(path)
        end, last = 0, 0
        for offset, payload in _frames(data):
            record = _decode(path, offset, payload)
            if (record.kind == _HEAD) != (offset == 0):
                raise WalCorrupt(path, offset, 'a segment head is not where it belongs')
            if record.kind == _BATCH and record.body[1]:
                last = max(last, record.body[1][-1].index)
            records.append(record)
            end = offset + _frame_bytes(len(payload))
        if end < len(data):
            _judge_tail(path, data, end, newest=newest)
        self._number = number
        if not newest:
            self._closed.append(_Closed(number, last))
        elif end < len(data):
            file = self._disk.open_append(path)
            file.truncate(end)
            file.close()
        cut = len(data) - end
        if data.count(0, end) == cut:
            return 0  # written ahead
        log.warning('torn tail cut', file=str(path), offset=end, bytes=cut)
        return cut

    # --- writing --------------------------------------------------------------------------------------------------

    def append(self, hard_state: HardState | None, entries: Sequence[Entry]) -> None:
        """Encode for the next `take`. The first entry replaces whatever was stored from its index on."""
        if hard_state is not None:
            self._hard_state = hard_state
        if entries:
            self._last = entries[-1].index
            for part in _split(entries):
                self._pending.append(msgpack.packb((_BATCH, self._hard_state, part)))
        elif hard_state is not None:
            self._pending.append(msgpack.packb((_BATCH, hard_state, ())))

    def mark(self, meta: SnapshotMeta, *, replaces: bool) -> None:
        """For the next `take`: the log begins behind `meta` from now on.

        replaces: what was stored after `meta.index` does not follow on it and is void.
        """
        self._begin = meta
        self._last = meta.index if replaces else max(self._last, meta.index)
        self._pending.append(msgpack.packb((_MARK, meta, replaces)))

    def take(self) -> Batch:
        """All that was appended since the last call, for `write`."""
        payloads, self._pending = self._pending, []
        return Batch(payloads, self._hard_state, self._begin, self._last)

    def give_back(self, batch: Batch) -> None:
        """For the next `take`, what was just taken and could not be written."""
        self._pending[:0] = batch.payloads

    def write(self, batch: Batch) -> None:
        """Write and sync; blocking. Raises DiskFull: nothing was written, try the same batch again.

        After an OSError nobody knows what is on disk: the member has to die.
        """
        file = self._file
        if file is None:
            raise OSError(errno.EBADF, 'the log is not open')
        if not batch.payloads:
            return
        durable = file.size
        try:
            file.append(b''.join([_frame(p, durable) for p in batch.payloads]))
        except OSError as e:
            if not is_full(e):
                raise
            file.truncate(durable)
            self.crowded = True
            raise DiskFull(str(e)) from None
        file.sync()
        self._writes += 1
        if file.size < self._segment_bytes // 2:
            self.crowded = False
        elif (self._spare is None or file.size >= self._segment_bytes) and (
            self._writes % CROWDED_WRITES == 0 or not self.crowded
        ):
            self._reserve_next(batch)

    def _reserve_next(self, batch: Batch) -> None:
        """Make room for the next segment in time, and begin it when this one is full; a full disk puts both off."""
        file, number = self._file, self._number + 1
        assert file is not None
        try:
            if self._spare is None:
                self._spare = self._disk.open_append(self._path(number), preallocate=self._segment_bytes)
            if file.size >= self._segment_bytes:
                file.truncate(file.size)  # of what was written ahead: a completed segment ends with its last record
                last = _Closed(self._number, batch.last)
                self._start_segment(self._spare, number, batch)
                self._spare = None
                file.close()
                self._closed.append(last)
            self.crowded = False
        except OSError as e:
            if not is_full(e):
                raise
            self.crowded = True
            if self._spare is not None:
                self._spare.close()
                self._spare = None
            self._disk.remove(self._path(number))

    def _reopen(self, path: Path) -> AppendFile:
        try:
            return self._disk.open_append(path, preallocate=self._segment_bytes)
        except OSError as e:
            if not is_full(e):
                raise
            self.crowded = True
            return self._disk.open_append(path)  # it must not need room to start: what it holds may make some

    def flush(self) -> None:
        """`write(take())`: for callers that may block."""
        self.write(self.take())

    def drop(self, index: int) -> int:
        """Remove segments with nothing beyond `index`, which a written mark must cover. Returns how many went."""
        dropped = 0
        while self._closed and self._closed[0].last <= index:
            self._disk.remove(self._path(self._closed.pop(0).number))
            dropped += 1
        return dropped

    def close(self) -> None:
        """Let go of the file. What was not written is lost."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._spare is not None:
            self._spare.close()
            self._spare = None

    def _start_segment(self, file: AppendFile, number: int, after: Batch) -> None:
        file.append(_frame(msgpack.packb((_HEAD, VERSION, number, after.hard_state, after.begin)), 0))
        file.sync()
        self._file, self._number = file, number

    def _path(self, number: int) -> Path:
        return self._directory / f'{number:016d}.wal'


def _fold(records: Sequence[_Record], fresh: SnapshotMeta) -> tuple[HardState, SnapshotMeta, list[Entry]]:
    """The log that the records describe. Raises WalCorrupt when entries are missing.

    The newest beginning is found first: segments before it may be gone, so that entries up to it need not be whole.
    """
    hard_state, begin = HardState(0, NO_ONE, 0), fresh
    for r in records:
        if r.kind == _HEAD:
            hard_state = r.body[0]
        meta = None if r.kind == _BATCH else r.body[1] if r.kind == _HEAD else r.body[0]
        if meta is not None and meta.index >= begin.index:
            begin = meta
    entries: list[Entry] = []
    for r in records:
        if r.kind == _MARK and r.body[1]:
            entries.clear()
        elif r.kind == _BATCH:
            hard_state = r.body[0]
            if not r.body[1]:
                continue
            first = max(r.body[1][0].index, begin.index + 1)
            if first > begin.index + 1 + len(entries):
                raise WalCorrupt(r.path, r.offset, f'entry {first} follows on {begin.index + len(entries)}')
            del entries[first - begin.index - 1 :]  # also when all of this batch is covered by the beginning
            entries.extend(e for e in r.body[1] if e.index >= first)
    return hard_state, begin, entries


# --- records ----------------------------------------------------------------------------------------------------------


def _split(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    start = size = 0
    for at, e in enumerate(entries):
        if size and size + len(e.data) > BATCH_BYTES:
            yield entries[start:at]
            start, size = at, 0
        size += len(e.data)
    yield entries[start:]


def _frame(payload: bytes, durable: int) -> bytes:
    front = _FRONT.pack(_MAGIC, len(payload), durable)
    checks = _CHECKS.pack(_crc(front), _crc(payload))
    return b''.join((front, checks, payload, _PADDING[-len(payload) % 8]))


def _frame_bytes(payload: int) -> int:
    return _HEADER_BYTES + payload + -payload % 8


def _header(data: bytes, offset: int) -> tuple[int, int, int] | None:
    """(payload length, durable, payload crc) if there is a sound header."""
    if offset + _HEADER_BYTES > len(data):
        return None
    magic, length, durable = _FRONT.unpack_from(data, offset)
    header_crc, payload_crc = _CHECKS.unpack_from(data, offset + _FRONT.size)
    sound = magic == _MAGIC and _crc(data[offset : offset + _FRONT.size]) == header_crc
    return (length, durable, payload_crc) if sound and length <= PAYLOAD_BYTES_MAX else None


def _frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Sound records from the beginning, each with its offset; stops at the first that is not."""
    offset = 0
    while (header := _header(data, offset)) is not None:
        length, _, crc = header
        start = offset + _HEADER_BYTES
        payload = data[start : start + length]
        end = offset + _frame_bytes(length)
        if end > len(data) or _crc(payload) != crc:
            return
        yield offset, payload
        offset = end


def _judge_tail(path: Path, data: bytes, end: int, *, newest: bool) -> None:
    """Is what follows the last sound record a torn write? Raises WalCorrupt when it is not."""
    if data.startswith(_MAGIC_BYTES_OF_1):
        raise WalCorrupt(path, 0, f'a record of version 1, where this program reads {VERSION},')
    if not newest:
        raise WalCorrupt(path, end, 'a record in a completed segment is damaged')
    at = data.find(_MAGIC_BYTES, end + 1)
    while at >= 0:
        header = _header(data, at)
        if header is not None and end < header[1] <= at:
            raise WalCorrupt(path, end, f'a record is damaged, though the one at {at} shows that it had been synced')
        at = data.find(_MAGIC_BYTES, at + 1)
    header = _header(data, end)
    length = 0 if header is None else header[0]
    complete = end + _frame_bytes(length) <= len(data)
    if complete and not _misses_sector(data, end, end + _HEADER_BYTES + length):
        raise WalCorrupt(path, end, 'a complete record is damaged')


def _misses_sector(data: bytes, start: int, end: int) -> bool:
    """Whether some sector's share of [start, end) is all zeros, as after a write that was cut short."""
    at = start
    while at < end:
        stop = min(end, at - at % SECTOR + SECTOR)
        if not data[at:stop].strip(b'\0'):
            return True
        at = stop
    return False


def _decode(path: Path, offset: int, payload: bytes) -> _Record:
    """Raises WalCorrupt: the checksum is right, so this was written by something else."""
    try:
        kind, *rest = msgpack.unpackb(payload, use_list=False)
        body: tuple[Any, ...]
        if kind == _HEAD:
            version, _, hard_state, begin = rest
            if version != VERSION:
                raise ValueError(f'it has version {version}, this program reads {VERSION}')
            body = (_hard_state(hard_state), SnapshotMeta.from_wire(begin))
        elif kind == _BATCH:
            hard_state, entries = rest
            body = (_hard_state(hard_state), _consecutive(entries_from_wire(entries)))
        elif kind == _MARK:
            meta, replaces = rest
            body = (SnapshotMeta.from_wire(meta), bool(replaces))
        else:
            raise ValueError(f'unknown kind {kind!r}')
    except (TypeError, ValueError, msgpack.exceptions.UnpackException) as e:
        raise WalCorrupt(path, offset, f'a record makes no sense ({e})') from None
    return _Record(path, offset, kind, body)


def _consecutive(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    for at, e in enumerate(entries):
        if e.index != entries[0].index + at:
            raise ValueError(f'entry {e.index} is out of place')
    return entries


def _hard_state(raw: Any) -> HardState:
    term, vote, commit = raw
    if not all(isinstance(n, int) and n >= 0 for n in (term, vote, commit)):
        raise ValueError('bad hard state')
    return HardState(term, vote, commit)
