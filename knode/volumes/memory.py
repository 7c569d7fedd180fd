"""Where volumes lie that must not reach a disk: a directory of the node's own on a tmpfs that the machine has anyway.

Upstream mounts a tmpfs for each volume of Secrets, tokens or pod fields, which takes privilege. /dev/shm is there for
everybody, so its owner and mode are looked at: one that somebody else has made ahead of us is not used. In it
`<pod uid>/<volume>`; the node's data directory has a link to it. It is there while a pod is. A reboot empties it, and
ends all who have read it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
from pathlib import Path

import psutil
import structlog

log = structlog.get_logger('knode.volumes')

SYSTEMS = frozenset(('tmpfs', 'ramfs'))
LINK = 'memory'
"""In the node's data directory: leads to its directory in memory."""


class Memory:
    """Directories of pods in memory; without a tmpfs, or without trust in what is there, none."""

    def __init__(self, root: Path | None = None) -> None:
        self._root = root

    @classmethod
    def open(cls, parent: str, data_dir: Path) -> Memory:
        """parent: a directory on a tmpfs; empty: nothing is to lie in memory."""
        if not parent:
            return cls()
        root = Path(parent) / f'kubeling-{hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]}'
        if (system := _file_system(root)) not in SYSTEMS:
            log.warning('volumes of Secrets and tokens lie on disk', directory=parent, file_system=system)
            return cls()
        link = data_dir / LINK
        if not link.is_symlink() or Path(os.readlink(link)) != root:  # a full disk must not keep an agent from starting
            link.unlink(missing_ok=True)
            link.symlink_to(root)
        return cls(root)

    def directory(self, uid: str) -> Path | None:
        """Of one pod; made when it is missing. None: its volumes lie on disk."""
        if self._root is None:
            return None
        try:
            _make_private(self._root)
            _make_private(self._root / uid)
        except OSError as e:
            log.warning('volumes of Secrets and tokens lie on disk', directory=str(self._root), err=str(e))
            return None
        return self._root / uid

    def remove(self, uid: str) -> None:
        if self._root is not None:
            shutil.rmtree(self._root / uid, ignore_errors=True)
            with contextlib.suppress(OSError):  # other pods are in it
                self._root.rmdir()

    def sweep(self, known: set[str]) -> None:
        """Remove what belongs to no known pod."""
        if self._root is not None and self._root.exists():
            for uid in set(os.listdir(self._root)) - known:
                self.remove(uid)


def discard(data_dir: Path) -> None:
    """Remove what a node that runs no more has left in memory."""
    with contextlib.suppress(OSError):  # it has left nothing, or what is there is not ours
        root = Path(os.readlink(data_dir / LINK))
        (data_dir / LINK).unlink()
        _make_private(root)
        shutil.rmtree(root)


def _file_system(path: Path) -> str:
    """What kind of file system `path` is in, or would be."""
    around = (p for p in psutil.disk_partitions(all=True) if path.is_relative_to(p.mountpoint))
    return max(around, key=lambda p: len(p.mountpoint)).fstype


def _make_private(path: Path) -> None:
    """A directory that its owner alone can enter. Raises OSError, also when somebody else's is there."""
    try:
        path.mkdir(0o700)
    except FileExistsError:
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise PermissionError(f'{path} is not ours alone') from None
