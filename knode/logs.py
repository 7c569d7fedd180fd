"""Reading container logs: the CRI files that the shim writes, rotated ones included, as `kubectl logs` wants them.

Source: pkg/kubelet/kuberuntime/logs/logs.go. Tail counts records of the files, as upstream does.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from kcore.meta.times import parse_time
from kcore.tasks import start_detached, stop
from knode.inotify import DirectoryWatch
from knode.runtime.shim.logs import FILES_MAX

READ_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class LogOptions:
    follow: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    limit_bytes: int | None = None
    since: datetime | None = None
    stream: str = 'All'
    """`All`, `Stdout` or `Stderr`."""


class Formatter:
    """CRI records in, text out; knows when the byte limit is reached."""

    def __init__(self, options: LogOptions) -> None:
        self._options = options
        self._left = options.limit_bytes
        self._since = options.since
        self._stream = None if options.stream == 'All' else options.stream.lower().encode()

    @property
    def full(self) -> bool:
        return self._left is not None and self._left <= 0

    def text(self, records: bytes) -> bytes:
        """`records` are whole lines of the file."""
        out = b''.join(self._record(line) for line in records.splitlines(keepends=True))
        if self._left is not None:
            out = out[: self._left]
            self._left -= len(out)
        return out

    def _record(self, line: bytes) -> bytes:
        parts = line.rstrip(b'\n').split(b' ', 3)
        if len(parts) < 4:
            return b''
        stamp, stream, tag, content = parts
        if self._stream is not None and stream != self._stream:
            return b''
        if self._since is not None:
            if _time(stamp) < self._since:
                return b''
            self._since = None  # the file is in order of time
        end = b'\n' if tag == b'F' else b''
        return b'%s %s%s' % (stamp, content, end) if self._options.timestamps else content + end


def _time(stamp: bytes) -> datetime:
    return parse_time(stamp.decode('ascii', 'replace'))


def files_of(path: Path) -> list[Path]:
    """Oldest first, the live file last; only those that exist."""
    old = [path.with_name(f'{path.name}.{n}') for n in range(FILES_MAX, 0, -1)]
    return [p for p in (*old, path) if p.exists()]


def tail_position(files: list[Path], lines: int) -> tuple[int, int]:
    """(index of the file, offset) from which the last `lines` records are read."""
    if lines <= 0:
        return (len(files) - 1, files[-1].stat().st_size) if files else (0, 0)
    wanted = lines
    for index in range(len(files) - 1, -1, -1):
        found, offset = _from_end(files[index], wanted)
        if found >= wanted:
            return index, offset
        wanted -= found
    return 0, 0


def _from_end(path: Path, lines: int) -> tuple[int, int]:
    """How many of `lines` records the file's end holds, and where the first of them begins."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        position = os.fstat(fd).st_size
        seen = 0
        while position > 0:
            start = max(0, position - READ_BYTES)
            block = os.pread(fd, position - start, start)
            at = len(block)
            while (at := block.rfind(b'\n', 0, at)) >= 0:
                seen += 1
                if seen == lines + 1:
                    return lines, start + at + 1
            position = start
        return seen, 0
    finally:
        os.close(fd)


class _Reader:
    """Whole lines from one open file, from an offset on."""

    def __init__(self, path: Path, offset: int) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.inode = os.fstat(self._fd).st_ino
        os.lseek(self._fd, offset, os.SEEK_SET)
        self._rest = b''

    def read(self) -> Iterator[bytes]:
        while block := os.read(self._fd, READ_BYTES):
            lines, newline, self._rest = (self._rest + block).rpartition(b'\n')
            if newline:
                yield lines + newline

    def close(self) -> None:
        os.close(self._fd)


async def read_log(
    path: Path, options: LogOptions, ended: Callable[[], bool], changed: asyncio.Event
) -> AsyncIterator[bytes]:
    """Pieces of text until the log, the byte limit or (following) the container ends.

    ended:    whether the container writes no more; asked after `changed` and after each change of the files.
    changed:  set when the answer of `ended` may have become another.
    """
    formatter = Formatter(options)
    files = files_of(path)
    if not files:
        return
    index, offset = tail_position(files, options.tail_lines) if options.tail_lines is not None else (0, 0)
    for file in files[index:-1]:
        reader = _Reader(file, offset)
        offset = 0
        try:
            for block in reader.read():
                if text := formatter.text(block):
                    yield text
                if formatter.full:
                    return
        finally:
            reader.close()
    async for text in _live(path, offset, options, formatter, ended=ended, changed=changed):
        yield text


async def _live(
    path: Path,
    offset: int,
    options: LogOptions,
    formatter: Formatter,
    *,
    ended: Callable[[], bool],
    changed: asyncio.Event,
) -> AsyncIterator[bytes]:
    with DirectoryWatch(path.parent) as watch:
        reader = _Reader(path, offset)
        try:
            while True:
                watch.changed.clear()
                changed.clear()
                over = ended() or not options.follow  # asked before the read: what follows the end is the last
                for block in reader.read():
                    if text := formatter.text(block):
                        yield text
                    if formatter.full:
                        return
                if _rotated(path, reader):
                    reader.close()
                    reader = _Reader(path, 0)
                    continue
                if over:
                    return
                await _first(watch.changed, changed)
        finally:
            reader.close()


def _rotated(path: Path, reader: _Reader) -> bool:
    try:
        return path.stat().st_ino != reader.inode
    except FileNotFoundError:
        return False


async def _first(*events: asyncio.Event) -> None:
    """Return when one of the events is set."""
    waits = [start_detached('log wait', e.wait()) for e in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await stop(*waits)
