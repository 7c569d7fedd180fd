"""Running a command beside a container and keeping what it says: exec probes and exec hooks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any

from knode.runtime.driver import Handle, Record, RuntimeDriver, Streams
from knode.runtime.shim import host

OUTPUT_BYTES_MAX = 10 * 1024
"""What is kept of a probe's or hook's output; the rest is read and dropped."""


def exec_spec(record: Record, argv: Sequence[str]) -> dict[str, Any]:
    """A command with the surroundings that the container was started with (they outlive an agent in /proc)."""
    pairs = (p.partition(b'=') for p in host.environ(record.pid).split(b'\0') if p)
    meta = record.meta
    return {
        'argv': list(argv),
        'env': {os.fsdecode(k): os.fsdecode(v) for k, _, v in pairs},
        'cwd': meta.get('cwd') or '/',
        'uid': meta.get('uid'),
        'gid': meta.get('gid'),
        'groups': meta.get('groups') or [],
        'no_new_privs': meta.get('no_new_privs', False),
        'capabilities': meta.get('capabilities'),
        'cgroups': meta.get('cgroups') or [],
        'mount_pid': record.pid if meta.get('mounts') else 0,
    }


async def capture(driver: RuntimeDriver, handle: Handle, record: Record, argv: Sequence[str]) -> tuple[int, str]:
    """Exit code and the beginning of stdout and stderr together. Raises ShimError. Cancelling kills the command."""
    loop = asyncio.get_running_loop()
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.set_blocking(write, True)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    kept = bytearray()

    def drain() -> None:
        try:
            while data := os.read(read, 1 << 16):
                kept.extend(data[: OUTPUT_BYTES_MAX - len(kept)])
        except BlockingIOError:
            return
        loop.remove_reader(read)

    loop.add_reader(read, drain)
    try:
        code = await driver.exec(handle, record.id, exec_spec(record, argv), Streams(null, write, write))
        drain()
        return code, kept.decode(errors='replace')
    finally:
        loop.remove_reader(read)
        for fd in (read, write, null):
            os.close(fd)
