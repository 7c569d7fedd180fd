"""Awaiting file descriptors: pipes and terminals, without a thread."""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import termios

READ_BYTES = 32 * 1024


async def _ready(fd: int, *, write: bool) -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    add, remove = (loop.add_writer, loop.remove_writer) if write else (loop.add_reader, loop.remove_reader)
    add(fd, _resolve, future)
    try:
        await future
    finally:
        remove(fd)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def read(fd: int) -> bytes:
    """Some bytes of a non-blocking descriptor; empty at its end (for a terminal: when its last process is gone)."""
    while True:
        try:
            return os.read(fd, READ_BYTES)
        except BlockingIOError:
            await _ready(fd, write=False)
        except OSError:
            return b''


async def write(fd: int, data: bytes) -> bool:
    """All of `data` to a non-blocking descriptor. False: nobody reads any more."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            await _ready(fd, write=True)
        except OSError:
            return False
    return True


def resize(fd: int, width: int, height: int) -> None:
    """Set a terminal's size; its foreground group gets SIGWINCH. Raises OSError when `fd` is no terminal."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack('HHHH', height & 0xFFFF, width & 0xFFFF, 0, 0))
