"""A data directory belongs to one process: two members writing one log would each destroy what the other promised."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from kcore.env import Disk, is_full
from kstore.errors import Refused

OWNER = 'member'
"""File with the number of the member whose votes and promises the directory holds."""


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


def claim(data_dir: Path, disk: Disk, member: int, *, anew: bool = False) -> None:
    """Make the directory that of `member`, if it is nobody's yet, or anyhow (`anew`).

    Raises Refused for another member's: two members with one past could vote twice in a term. OSError.
    """
    path, ours = data_dir / OWNER, b'%d\n' % member
    owner = disk.read(path) if not anew and disk.exists(path) else b''
    if owner.strip() and owner != ours:
        raise Refused(
            f'{data_dir} holds the data of member {owner.decode("ascii", "replace").strip()}, not of {member}: '
            'was it copied? Give each member its own; a new one begins with an empty directory'
        )
    if owner != ours:
        try:
            disk.replace(path, ours)
        except OSError as e:
            if not is_full(e):
                raise  # a member must start on a full disk: it is written down the next time
