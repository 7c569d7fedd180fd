"""A data directory belongs to one process: two members writing one log would each destroy what the other promised."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from kstore.errors import Refused


@contextlib.contextmanager
def hold(data_dir: Path) -> Iterator[None]:
    """Keep others out of an existing directory until the block ends, or this process does, however it ends.

    Raises Refused, OSError.
    """
    fd = os.open(data_dir / 'lock', os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(fd, 20).decode('ascii', 'replace').strip() or 'unknown'
            raise Refused(f'{data_dir} is in use: a member runs there, process {holder}') from None
        os.ftruncate(fd, 0)
        with contextlib.suppress(OSError):  # a full disk: who holds it is only said to be helpful
            os.pwrite(fd, b'%d\n' % os.getpid(), 0)
        yield
    finally:
        os.close(fd)
