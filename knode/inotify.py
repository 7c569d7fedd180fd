"""File change notices from the kernel, as something to await. Linux's inotify through ctypes; no thread, no polling."""

from __future__ import annotations

import asyncio
import ctypes
import os
from pathlib import Path
from typing import Self

IN_MODIFY, IN_MOVED_TO, IN_CREATE, IN_MOVED_FROM, IN_DELETE = 0x2, 0x80, 0x100, 0x40, 0x200
_EVENTS = IN_MODIFY | IN_MOVED_TO | IN_CREATE | IN_MOVED_FROM | IN_DELETE
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC  # IN_NONBLOCK and IN_CLOEXEC have the same values
_libc = ctypes.CDLL(None, use_errno=True)


class DirectoryWatch:
    """`with DirectoryWatch(path) as w: w.changed.clear(); …; await w.changed.wait()`. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self.changed = asyncio.Event()
        self._path = path
        self._fd = -1

    def __enter__(self) -> Self:
        self._fd = _libc.inotify_init1(_FLAGS)
        if self._fd < 0:
            raise _failure(self._path)
        if _libc.inotify_add_watch(self._fd, os.fsencode(self._path), _EVENTS) < 0:
            error = _failure(self._path)
            os.close(self._fd)
            raise error
        asyncio.get_running_loop().add_reader(self._fd, self._read)
        return self

    def _read(self) -> None:
        try:
            while os.read(self._fd, 1 << 14):
                pass
        except BlockingIOError:
            pass
        self.changed.set()

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)


def _failure(path: Path) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), str(path))
