"""The log on disk: what comes back after any end, and what refuses to."""

from __future__ import annotations

import contextlib
import errno
import random
import tempfile
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kcore.env import RealDisk
from kcore.sim import SimDisk
from kstore import wal as wal_module
from kstore.raft.messages import ConfState, Entry, HardState, SnapshotMeta
from kstore.wal import DiskFull, Recovered, Wal, WalCorrupt

CONF = ConfState((1, 2, 3))
STATE = HardState(1, 1, 0)


def entries(lo: int, hi: int, term: int = 1, size: int = 20) -> list[Entry]:
    return [Entry(term, i, 0, b'%d' % i * size) for i in range(lo, hi + 1)]


def open_wal(directory: Path, segment_bytes: int = 1 << 20) -> tuple[Wal, Recovered]:
    wal = Wal(directory, RealDisk(), segment_bytes=segment_bytes)
    return wal, wal.open(CONF)


def reopen(directory: Path) -> Recovered:
    wal, found = open_wal(directory)
    wal.close()
    return found


def written(directory: Path, batches: Sequence[Sequence[Entry]], segment_bytes: int = 1 << 20) -> Path:
    """A log with one flush per batch. Returns its newest segment."""
    wal, _ = open_wal(directory, segment_bytes)
    for batch in batches:
        wal.append(STATE, batch)
        wal.flush()
    wal.close()
    return max(directory.glob('*.wal'))


def test_a_new_log_is_empty_and_knows_its_members(tmp_path: Path) -> None:
    assert reopen(tmp_path) == Recovered(HardState(0, 0, 0), SnapshotMeta(0, 0, CONF), [], 0)


def test_what_was_flushed_comes_back(tmp_path: Path) -> None:
    written(tmp_path, [entries(1, 3), entries(4, 4)])
    found = reopen(tmp_path)
    assert found.hard_state == STATE
    assert found.entries == entries(1, 4)


def test_what_was_not_flushed_does_not(tmp_path: Path) -> None:
    wal, _ = open_wal(tmp_path)
    wal.append(STATE, entries(1, 2))
    wal.flush()
    wal.append(STATE, entries(3, 4))
    wal.close()
    assert reopen(tmp_path).entries == entries(1, 2)


def test_a_term_and_vote_alone_are_kept(tmp_path: Path) -> None:
    wal, _ = open_wal(tmp_path)
    wal.append(HardState(7, 3, 0), ())
    wal.flush()
    wal.close()
    assert reopen(tmp_path).hard_state == HardState(7, 3, 0)


def test_a_later_append_replaces_the_suffix_it_conflicts_with(tmp_path: Path) -> None:
    written(tmp_path, [entries(1, 9), entries(4, 5, term=2)])
    assert reopen(tmp_path).entries == entries(1, 3) + entries(4, 5, term=2)


def test_segments_follow_each_other_and_old_ones_can_go(tmp_path: Path) -> None:
    wal, _ = open_wal(tmp_path, segment_bytes=1_000)
    for i in range(1, 101):
        wal.append(STATE, entries(i, i))
        wal.flush()
    before = len(list(tmp_path.glob('*.wal')))
    wal.mark(SnapshotMeta(60, 1, CONF), replaces=False)
    wal.flush()
    dropped = wal.drop(60)
    wal.close()
    assert before > 5
    assert 0 < dropped < before
    found = reopen(tmp_path)
    assert found.snapshot == SnapshotMeta(60, 1, CONF)
    assert found.entries == entries(61, 100)


def test_a_snapshot_that_replaces_the_log_voids_what_was_there(tmp_path: Path) -> None:
    wal, _ = open_wal(tmp_path)
    wal.append(STATE, entries(1, 30))
    wal.mark(SnapshotMeta(20, 3, CONF), replaces=True)
    wal.append(HardState(3, 0, 20), entries(21, 22, term=3))
    wal.flush()
    wal.close()
    found = reopen(tmp_path)
    assert found.snapshot == SnapshotMeta(20, 3, CONF)
    assert found.entries == entries(21, 22, term=3)


def test_a_rewrite_below_a_later_beginning_still_cuts_what_followed(tmp_path: Path) -> None:
    wal, _ = open_wal(tmp_path)
    wal.append(STATE, entries(1, 10))
    wal.append(HardState(2, 0, 0), entries(5, 6, term=2))
    wal.mark(SnapshotMeta(6, 2, CONF), replaces=False)
    wal.flush()
    wal.close()
    assert reopen(tmp_path).entries == []


def test_large_appends_are_split_and_come_back_whole(tmp_path: Path) -> None:
    big = [Entry(1, i, 0, bytes([i]) * 400_000) for i in range(1, 12)]
    written(tmp_path, [big])
    assert reopen(tmp_path).entries == big


@pytest.mark.parametrize('lost', [1, 7, 8, 100, 700])
def test_a_torn_tail_is_cut_and_writing_goes_on(tmp_path: Path, lost: int) -> None:
    path = written(tmp_path, [entries(1, 5), entries(6, 9, size=300)])
    path.write_bytes(path.read_bytes()[:-lost])
    wal, found = open_wal(tmp_path)
    assert found.entries == entries(1, 5)
    assert found.cut > 0
    wal.append(STATE, entries(6, 6))
    wal.flush()
    wal.close()
    assert reopen(tmp_path).entries == entries(1, 6)


def test_a_missing_sector_in_the_last_write_is_a_torn_tail(tmp_path: Path) -> None:
    path = written(tmp_path, [entries(1, 5), entries(6, 9, size=900)])
    data = bytearray(path.read_bytes())
    data[1024:1536] = bytes(512)
    path.write_bytes(data)
    assert reopen(tmp_path).entries == entries(1, 5)


def test_zeros_written_ahead_are_no_torn_tail(tmp_path: Path) -> None:
    wal, _ = open_wal(tmp_path / 'log')
    for i in range(1, 4):
        wal.append(STATE, entries(i, i))
        wal.flush()
    (path,) = (tmp_path / 'log').iterdir()
    data = path.read_bytes()  # as a crash would leave it
    assert data.endswith(bytes(1000))
    path.write_bytes(data)
    wal, found = open_wal(tmp_path / 'log')
    assert (found.entries, found.cut) == (entries(1, 3), 0)
    wal.append(STATE, entries(4, 4))
    wal.flush()
    wal.close()
    assert reopen(tmp_path / 'log').entries == entries(1, 4)


@pytest.mark.parametrize('sector', [2, 3, 4])
def test_a_write_over_zeros_that_misses_a_sector_is_a_torn_tail(tmp_path: Path, sector: int) -> None:
    wal, _ = open_wal(tmp_path)
    wal.append(STATE, entries(1, 5))
    wal.flush()
    wal.append(STATE, entries(6, 9, size=900))
    wal.flush()
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    data[sector * 512 : sector * 512 + 512] = bytes(512)
    path.write_bytes(data)
    found = reopen(tmp_path)
    assert found.entries == entries(1, 5)
    assert found.cut > 0


def test_damage_before_zeros_written_ahead_refuses_to_start(tmp_path: Path) -> None:
    wal, _ = open_wal(tmp_path)
    wal.append(STATE, entries(1, 5))
    wal.flush()
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    data[len(data.rstrip(b'\0')) - 10] ^= 1
    path.write_bytes(data)
    with pytest.raises(WalCorrupt, match='complete record'):
        reopen(tmp_path)


def test_a_completed_segment_ends_with_its_last_record(tmp_path: Path) -> None:
    wal, _ = open_wal(tmp_path, segment_bytes=5_000)
    i = 0
    while len(names := sorted(tmp_path.glob('*.wal'))) < 5:
        i += 1
        wal.append(STATE, entries(i, i))
        wal.flush()
    assert not any(name.read_bytes().endswith(bytes(8)) for name in names[:-2])


@pytest.mark.parametrize('seed', range(40))
def test_a_crash_loses_nothing_that_was_flushed(seed: int) -> None:
    rng = random.Random(seed)
    disk = SimDisk(rng)
    i = 0
    for _ in range(8):
        wal = Wal(Path('/wal'), disk, segment_bytes=2_000)
        found = wal.open(CONF)
        assert list(found.entries[:i]) == entries(1, i, size=7)
        i = len(found.entries)
        for _ in range(rng.randrange(20)):
            n = rng.randint(1, 9)
            wal.append(STATE, entries(i + 1, i + n, size=7))
            i += n
            wal.flush()
        wal.append(STATE, entries(i + 1, i + rng.randint(1, 60), size=7))
        sync, disk.sync_error = disk.sync_error, OSError(errno.EIO, 'power off')
        with pytest.raises(OSError, match='power off'):
            wal.flush()
        disk.sync_error = sync
        disk.crash()


def test_damage_before_synced_records_refuses_to_start_and_says_what_to_do(tmp_path: Path) -> None:
    path = written(tmp_path, [entries(1, 5), entries(6, 9), entries(10, 12)])
    data = bytearray(path.read_bytes())
    data[300] ^= 1
    path.write_bytes(data)
    with pytest.raises(WalCorrupt, match='remove this member and add it anew'):
        reopen(tmp_path)


def test_a_missing_sector_before_synced_records_is_damage_too(tmp_path: Path) -> None:
    path = written(tmp_path, [entries(1, 5), entries(6, 9, size=900), entries(10, 12)])
    data = bytearray(path.read_bytes())
    data[1024:1536] = bytes(512)
    path.write_bytes(data)
    with pytest.raises(WalCorrupt, match='had been synced'):
        reopen(tmp_path)


def test_a_flipped_bit_in_a_complete_last_record_is_damage(tmp_path: Path) -> None:
    path = written(tmp_path, [entries(1, 5), entries(6, 9)])
    data = bytearray(path.read_bytes())
    data[-20] ^= 4
    path.write_bytes(data)
    with pytest.raises(WalCorrupt, match='complete record'):
        reopen(tmp_path)


def test_a_missing_segment_refuses_to_start(tmp_path: Path) -> None:
    written(tmp_path, [entries(i, i) for i in range(1, 101)], segment_bytes=1_000)
    sorted(tmp_path.glob('*.wal'))[2].unlink()
    with pytest.raises(WalCorrupt, match='a segment is missing'):
        reopen(tmp_path)


def test_a_missing_beginning_refuses_to_start(tmp_path: Path) -> None:
    written(tmp_path, [entries(i, i) for i in range(1, 101)], segment_bytes=1_000)
    min(tmp_path.glob('*.wal')).unlink()
    with pytest.raises(WalCorrupt, match='follows on 0'):
        reopen(tmp_path)


def test_a_segment_without_its_head_is_left_over_from_a_crash(tmp_path: Path) -> None:
    written(tmp_path, [entries(1, 5)])
    (tmp_path / f'{2:016d}.wal').write_bytes(b'')
    wal, found = open_wal(tmp_path)
    wal.append(STATE, entries(6, 6))
    wal.flush()
    wal.close()
    assert found.entries == entries(1, 5)
    assert reopen(tmp_path).entries == entries(1, 6)


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 4000))
def test_any_truncation_recovers_a_prefix(cut: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = written(Path(name), [entries(1, 4), entries(5, 30), entries(31, 33)])
        data = path.read_bytes()
        path.write_bytes(data[: max(0, len(data) - cut)])
        found = reopen(Path(name))
        assert list(found.entries) in ([], entries(1, 4), entries(1, 30), entries(1, 33))


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 3000), bit=st.integers(0, 7))
def test_a_flipped_bit_is_noticed_or_was_padding(at: int, bit: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = written(Path(name), [entries(1, 4), entries(5, 30), entries(31, 33)])
        data = bytearray(path.read_bytes())
        data[at % len(data)] ^= 1 << bit
        path.write_bytes(data)
        try:
            found = reopen(Path(name))
        except WalCorrupt:
            return
        assert list(found.entries) == entries(1, 33)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=3000), st.booleans())
def test_arbitrary_bytes_never_crash_the_reader(noise: bytes, behind: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / f'{1:016d}.wal'
        good = written(Path(name), [entries(1, 4)]).read_bytes() if behind else b''
        path.write_bytes(good + noise)
        try:
            found = reopen(Path(name))
        except WalCorrupt:
            return
        assert list(found.entries) == (entries(1, 4) if behind else [])


values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.binary(max_size=8) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.integers(0, 9), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), values, values, values), min_size=1, max_size=3), st.integers(1, 4))
def test_sound_records_around_nonsense_are_refused_or_read(records: list[tuple[Any, ...]], fields: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = written(Path(name), [entries(1, 4)])
        noise = b''.join(wal_module._frame(msgpack.packb(record[:fields]), 0) for record in records)
        path.write_bytes(path.read_bytes() + noise)
        with contextlib.suppress(WalCorrupt):
            assert len(reopen(Path(name)).entries) <= 4


def test_a_log_of_the_first_version_is_refused_as_such() -> None:
    with tempfile.TemporaryDirectory() as name:
        path = written(Path(name), [entries(1, 4)])
        data = path.read_bytes()
        path.write_bytes(wal_module._MAGIC_BYTES_OF_1 + data[4:])
        with pytest.raises(WalCorrupt, match='version 1, where this program reads 2'):
            reopen(Path(name))
        assert path.read_bytes()[4:] == data[4:]


def test_a_record_that_claims_to_be_huge_reserves_nothing() -> None:
    with tempfile.TemporaryDirectory() as name:
        path = written(Path(name), [entries(1, 4)])
        front = wal_module._FRONT.pack(wal_module._MAGIC, wal_module.PAYLOAD_BYTES_MAX, 0)
        head = front + wal_module._CHECKS.pack(wal_module._crc(front), 0)
        bomb = wal_module._frame(b'\x93\x02\xdd\xff\xff\xff\xff', 0)
        sound = path.read_bytes()
        for tail in (head, bomb):
            path.write_bytes(sound + tail)
            tracemalloc.start()
            with contextlib.suppress(WalCorrupt):
                reopen(Path(name))
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 2 << 20


def small(capacity: int, segment_bytes: int = 2_000) -> tuple[Wal, SimDisk]:
    """A log on a simulated disk with `capacity` bytes."""
    disk = SimDisk(random.Random(1))
    disk.capacity = capacity
    wal = Wal(Path('/wal'), disk, segment_bytes=segment_bytes)
    wal.open(CONF)
    return wal, disk


def reopened(disk: SimDisk) -> Recovered:
    return Wal(Path('/wal'), disk, segment_bytes=2_000).open(CONF)


def test_a_batch_that_does_not_fit_leaves_no_trace_and_fits_once_there_is_room() -> None:
    wal, disk = small(600)
    wal.append(STATE, entries(1, 5))
    wal.flush()
    before = disk.used
    wal.append(STATE, entries(6, 40))
    batch = wal.take()
    for _ in range(3):
        with pytest.raises(DiskFull):
            wal.write(batch)
        assert disk.used == before
    assert wal.crowded
    disk.crash()
    assert reopened(disk).entries == entries(1, 5)
    wal = Wal(Path('/wal'), disk, segment_bytes=2_000)
    wal.open(CONF)
    disk.capacity = None
    wal.write(batch)
    assert reopened(disk).entries == entries(1, 40)


def test_a_full_disk_is_told_while_half_a_segment_is_left() -> None:
    wal, disk = small(1 << 20)
    i = 0
    while disk.used < 1_200:
        i += 1
        wal.append(STATE, entries(i, i))
        wal.flush()
    assert not wal.crowded
    assert len(disk.listdir(Path('/wal'))) == 2, 'the next segment is reserved'
    disk.capacity = 2_100  # this segment can be filled, its successor not begun
    while not wal.crowded:
        i += 1
        wal.append(STATE, entries(i, i))
        wal.flush()
    assert disk.used < disk.capacity
    disk.capacity = None
    for _ in range(40):
        i += 1
        wal.append(STATE, entries(i, i))
        wal.flush()
    assert not wal.crowded
    wal.close()
    assert reopened(disk).entries == entries(1, i)


def test_a_failed_sync_is_not_taken_for_a_full_disk() -> None:
    wal, disk = small(1 << 20)
    disk.sync_error = OSError(errno.EIO, 'bad disk')
    wal.append(STATE, entries(1, 1))
    with pytest.raises(OSError, match='bad disk'):
        wal.flush()


def test_a_torn_tail_before_a_reserved_segment_is_cut() -> None:
    wal, disk = small(1 << 20)
    for i in range(1, 30):
        wal.append(STATE, entries(i, i))
        wal.flush()
        if len(names := disk.listdir(Path('/wal'))) == 2:
            break
    file = disk.open_append(Path('/wal') / names[0])
    file.append(b'half a record')
    found = reopened(disk)
    assert found.entries == entries(1, i)
    assert found.cut == len(b'half a record')
    assert disk.listdir(Path('/wal')) == names[:1]


def test_a_log_opens_on_a_full_disk() -> None:
    wal, disk = small(1 << 20)
    wal.append(STATE, entries(1, 3))
    wal.flush()
    disk.capacity = 0
    assert reopened(disk).entries == entries(1, 3)
