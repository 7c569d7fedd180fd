"""The CRI log format: written, rotated, read back."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from knode.logs import LogOptions, read_log
from knode.runtime.shim.logs import LINE_BYTES_MAX, LineSplitter, LogFile

NS = 1_700_000_000_123_456_789


def stamp(n: int) -> bytes:
    return b'2026-01-01T00:00:%02d.000000000Z' % n


def test_lines_carry_time_stream_and_tag():
    splitter = LineSplitter(b'stdout')
    assert splitter.feed(b'one\ntw', NS) == b'2023-11-14T22:13:20.123456789Z stdout F one\n'
    assert splitter.feed(b'o\n', NS) == b'2023-11-14T22:13:20.123456789Z stdout F two\n'
    assert splitter.end(NS) == b''


def test_a_long_line_is_cut_into_partial_records():
    splitter = LineSplitter(b'stderr')
    records = splitter.feed(b'x' * (LINE_BYTES_MAX + 5) + b'\n', NS).splitlines()
    assert [r.split(b' ', 3)[2] for r in records] == [b'P', b'F']
    assert b''.join(r.split(b' ', 3)[3] for r in records) == b'x' * (LINE_BYTES_MAX + 5)


def test_an_unfinished_last_line_is_partial():
    splitter = LineSplitter(b'stdout')
    assert splitter.feed(b'tail', NS) == b''
    assert splitter.end(NS).endswith(b' stdout P tail\n')


def test_a_full_file_is_rotated_and_the_oldest_goes(tmp_path):
    log = LogFile(str(tmp_path / '0.log'), file_bytes_max=10, files_max=3)
    for n in range(6):
        log.write(b'%d' % n * 10)
    log.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ['0.log', '0.log.1', '0.log.2']
    assert (tmp_path / '0.log').read_bytes() == b'5' * 10
    assert (tmp_path / '0.log.2').read_bytes() == b'3' * 10


async def text_of(path, ended=lambda: True, **options) -> bytes:
    return b''.join([piece async for piece in read_log(path, LogOptions(**options), ended, asyncio.Event())])


@pytest.fixture
def log(tmp_path):
    path = tmp_path / '0.log'
    old = b''.join(b'%s stdout F old%d\n' % (stamp(n), n) for n in range(3))
    (tmp_path / '0.log.1').write_bytes(old)
    path.write_bytes(b'%s stdout F a\n%s stderr F b\n%s stdout P c\n' % (stamp(10), stamp(11), stamp(12)))
    return path


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        ({}, b'a\nb\nc'),
        ({'tail_lines': 2}, b'b\nc'),
        ({'tail_lines': 99}, b'a\nb\nc'),
        ({'tail_lines': 0}, b''),
        ({'limit_bytes': 3}, b'a\nb'),
        ({'since': datetime(2026, 1, 1, 0, 0, 11, tzinfo=UTC)}, b'b\nc'),
        ({'stream': 'Stderr'}, b'b\n'),
        ({'tail_lines': 1, 'timestamps': True}, stamp(12) + b' c'),
    ],
)
async def test_options_choose_what_is_read_of_the_file_that_is_written(log, options, expected):
    assert await text_of(log, **options) == expected


async def test_who_follows_slowly_misses_no_file_that_is_still_there(log):
    pieces = read_log(log, LogOptions(follow=True), lambda: True, asyncio.Event())
    assert await anext(pieces) == b'a\nb\nc'
    writer = LogFile(str(log), file_bytes_max=40)
    for n in range(4):
        writer.write(b'%s stdout F n%d\n' % (stamp(20 + n), n))
    writer.close()
    assert len(list(log.parent.iterdir())) > 3
    assert b''.join([piece async for piece in pieces]) == b'n0\nn1\nn2\nn3\n'


async def test_following_ends_with_the_container_and_survives_rotation(log):
    over = asyncio.Event()
    changed = asyncio.Event()
    got: list[bytes] = []
    options = LogOptions(follow=True, tail_lines=0)

    async def read() -> None:
        async for piece in read_log(log, options, over.is_set, changed):
            got.append(piece)  # noqa: PERF401 — the other task looks at it meanwhile

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(read())
        await asyncio.sleep(0)
        writer = LogFile(str(log), file_bytes_max=150)
        for n in range(5):
            writer.write(b'%s stdout F n%d\n' % (stamp(20 + n), n))
            while f'n{n}'.encode() not in b''.join(got):
                await asyncio.sleep(0.001)
        writer.close()
        over.set()
        changed.set()
    assert b''.join(got) == b'n0\nn1\nn2\nn3\nn4\n'


async def test_a_log_that_nobody_has_written_to_is_followed_from_its_first_line(tmp_path):
    path = tmp_path / 'logs' / 'c' / '0.log'
    assert await text_of(path) == b''
    assert await text_of(path, follow=True) == b'', 'it ended without a word'
    over, changed = asyncio.Event(), asyncio.Event()
    got: list[bytes] = []

    async def read() -> None:
        async for piece in read_log(path, LogOptions(follow=True), over.is_set, changed):
            got.append(piece)
            over.set()
            changed.set()

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(read())
        while not path.exists():
            await asyncio.sleep(0)
        writer = LogFile(str(path))
        writer.write(b'%s stdout F first\n' % stamp(1))
        writer.close()
    assert got == [b'first\n']


async def test_following_the_log_of_a_removed_pod_makes_nothing(tmp_path):
    assert await text_of(tmp_path / 'gone' / 'logs' / 'c' / '0.log', ended=lambda: False, follow=True) == b''
    assert not list(tmp_path.iterdir())


def test_a_log_is_made_by_its_first_line(tmp_path):
    log = LogFile(str(tmp_path / 'logs' / 'c' / '0.log'))
    assert not list(tmp_path.iterdir())
    log.write(b'x')
    assert (tmp_path / 'logs' / 'c' / '0.log').read_bytes() == b'x'
    log.close()
