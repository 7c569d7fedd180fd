"""Files of a volume made of API objects, replaced as one by a symlink swap.

Layout: `..2026_…` holds the files, `..data` points to it, each visible name is a symlink through `..data`; a reader
sees all old or all new files. Source: pkg/volume/util/atomic_writer.go.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from knode.errors import VolumeError
from knode.runtime.shim import host


@dataclass(frozen=True, slots=True)
class File:
    content: bytes
    mode: int
    uid: int | None = None
    """Its owner; None: the agent."""

    def shared(self) -> File:
        """As a group may read it."""
        return replace(self, mode=self.mode | 0o040)


Payload = Mapping[str, File]
"""By relative path."""


def check_path(path: str) -> str:
    """A relative path that stays inside. Raises VolumeError."""
    parts = PurePosixPath(path).parts
    if not path or PurePosixPath(path).is_absolute() or '..' in parts or parts[0].startswith('..'):
        raise VolumeError(f'invalid path in volume: {path!r}')
    return path


def write(directory: Path, payload: Payload, stamp: str, *, gid: int | None = None) -> bool:
    """Make `directory` hold exactly `payload`. Returns whether anything changed.

    stamp:  distinguishes this version; unique within the directory.
    gid:    the group that may read all of it; None: nobody in particular.
    """
    wanted = dict(payload) if gid is None else {name: file.shared() for name, file in payload.items()}
    if (directory / '..data').is_dir() and _current(directory) == _bare(wanted):
        return False
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    fresh = directory / f'..{stamp}'
    fresh.mkdir(mode=0o755)
    for name, file in wanted.items():
        _write(fresh / check_path(name), file, gid)
    draft = directory / '..data_tmp'
    draft.unlink(missing_ok=True)
    draft.symlink_to(fresh.name)
    draft.replace(directory / '..data')
    _link(directory, {PurePosixPath(name).parts[0] for name in payload})
    for entry in directory.glob('..*'):  # the version before, and what an interrupted write has left
        if entry.name not in {'..data', fresh.name}:
            shutil.rmtree(entry, ignore_errors=True)
    return True


def _write(path: Path, file: File, gid: int | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, 'wb') as out:
        out.write(file.content)
    if file.uid is not None or gid is not None:
        os.chown(path, -1 if file.uid is None else file.uid, -1 if gid is None else gid)
    path.chmod(file.mode)


def _link(directory: Path, names: set[str]) -> None:
    for entry in directory.iterdir():
        if entry.is_symlink() and not entry.name.startswith('..') and entry.name not in names:
            entry.unlink()
    for name in names:
        link = directory / name
        if not link.is_symlink():
            link.symlink_to(f'..data/{name}')


def _bare(payload: Payload) -> dict[str, tuple[bytes, int]]:
    return {name: (file.content, file.mode) for name, file in payload.items()}


def _current(directory: Path) -> dict[str, tuple[bytes, int]]:
    data = (directory / '..data').resolve()
    found = {}
    for base, _, files in os.walk(data):
        for name in files:
            file = Path(base) / name
            found[str(file.relative_to(data))] = (host.read_file(str(file)), file.stat().st_mode & 0o7777)
    return found
