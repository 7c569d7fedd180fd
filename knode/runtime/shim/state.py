"""The shim's book, `shim.json`: one JSON object a line, each the whole state, of which the last whole one counts.

A line appended costs a third of a file replaced: no file is made, none deleted, and on ext4 both cost the more, the
more of it has been done of late (the kernel passes over every freed inode).
"""

from __future__ import annotations

import json
import os
from typing import Any

from knode.runtime.shim import host

STATE_FILE = 'shim.json'
STATE_BYTES_MAX = 64 * 1024
"""Longer than this the book is begun anew with the next state."""

State = dict[str, Any]


def latest(book: bytes) -> State:
    """The last whole state: of the one after it only a part may have been written. Raises ValueError: there is none."""
    for line in reversed(book.splitlines()):
        try:
            state: State = json.loads(line)
        except ValueError:
            continue
        return state
    raise ValueError('no whole state')


class Book:
    """Writes states; begun anew by each shim. In the working directory."""

    def __init__(self) -> None:
        self._fd = -1
        self._size = 0

    def write(self, state: State, *, sync: bool) -> None:
        """A reader finds the old or the new state, never a mixture. `sync`: also after a power cut. Raises OSError."""
        line = json.dumps(state).encode() + b'\n'
        if self._fd < 0 or self._size + len(line) > STATE_BYTES_MAX:
            self._begin(line, sync=sync)
            return
        try:
            host.write_all(self._fd, line)
        except OSError:
            os.ftruncate(self._fd, self._size)  # the disk took a part of it
            raise
        self._size += len(line)
        if sync:
            os.fsync(self._fd)

    def _begin(self, line: bytes, *, sync: bool) -> None:
        host.replace_file(STATE_FILE, line, sync=sync)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = os.open(STATE_FILE, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._size = len(line)
