"""Reading container logs: the CRI file that the shim writes, as `kubectl logs` wants it.

What was rotated away stays on the node's disk and is not read, as upstream; who follows stays with the file that takes
its place. Tail counts records. Source: pkg/kubelet/kuberuntime/logs/logs.go.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
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


def tail_position(path: Path, lines: int) -> int:
    """Where in the file its last `lines` records begin."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        position = os.fstat(fd).st_size
        if lines <= 0:
            return position
        seen = 0
        while position > 0:
            start = max(0, position - READ_BYTES)
            block = os.pread(fd, position - start, start)
            at = len(block)
            while (at := block.rfind(b'\n', 0, at)) >= 0:
                seen += 1
                if seen == lines + 1:
                    return start + at + 1
            position = start
        return 0
    finally:
        os.close(fd)


def end_of(path: Path, most: int) -> bytes:
    """At most so many bytes from the end of a file; empty when there is none, or it is something else than a file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # it is the container's own: who puts a link or a pipe there has no message
        return b''
    try:
        found = os.fstat(fd)
        return os.pread(fd, most, max(0, found.st_size - most)) if stat.S_ISREG(found.st_mode) else b''
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
    if options.follow and not ended():
        _make(path)
    try:
        reader = _Reader(path, 0 if options.tail_lines is None else tail_position(path, options.tail_lines))
    except FileNotFoundError:
        return
    formatter = Formatter(options)
    try:
        with DirectoryWatch(path.parent) as watch:
            while True:
                watch.changed.clear()
                changed.clear()
                over = ended() or not options.follow  # asked before the read: what follows the end is the last
                for block in reader.read():
                    if text := formatter.text(block):
                        yield text
                    if formatter.full:
                        return
                if options.follow and (newer := _successor(path, reader.inode)) is not None:
                    reader.close()
                    reader = _Reader(newer, 0)
                    continue
                if over:
                    return
                await _first(watch.changed, changed)
    finally:
        reader.close()


def _make(path: Path) -> None:
    """The log of a container that has said nothing yet, for a reader to wait at; nothing when its pod is gone."""
    with contextlib.suppress(FileNotFoundError):
        for folder in (path.parent.parent, path.parent):
            if not folder.exists():
                folder.mkdir(0o750, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640))


def _successor(path: Path, inode: int) -> Path | None:
    """The file that was begun when the one with this inode was full, or the oldest there is; None: nothing is newer.

    A slow reader may find that its file has been followed by several.
    """
    names = (path, *(path.with_name(f'{path.name}.{n}') for n in range(1, FILES_MAX)))
    newer = None
    for name in names:
        try:
            if name.stat().st_ino == inode:
                return newer
        except FileNotFoundError:  # there are no older ones; or the newest is just being made
            continue
        newer = name
    return newer


async def _first(*events: asyncio.Event) -> None:
    """Return when one of the events is set."""
    waits = [start_detached('log wait', e.wait()) for e in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await stop(*waits)
