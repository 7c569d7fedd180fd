"""Files of a volume made of API objects, replaced as one by a symlink swap.

Layout: `..2026_…` holds the files, `..data` points to it, each visible name is a symlink through `..data`; a reader
sees all old or all new files. Source: pkg/volume/util/atomic_writer.go.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
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
    old = (directory / '..data').is_dir()
    if old and _current(directory) == _bare(wanted):
        return False
    if not old:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    fresh = f'..{stamp}'
    os.mkdir(directory / fresh, 0o755)
    try:
        for name, file in wanted.items():
            _write(f'{directory}/{fresh}/{check_path(name)}', file, gid)
    except (OSError, VolumeError):  # the disk is full: the next try must find no less room than this one
        shutil.rmtree(directory / fresh, ignore_errors=True)
        raise
    draft = directory / '..data_tmp'
    draft.unlink(missing_ok=True)
    os.symlink(fresh, draft)
    os.replace(draft, directory / '..data')
    there = os.listdir(directory)
    _link(directory, {PurePosixPath(name).parts[0] for name in payload}, there)
    for name in there:  # the version before, and what an interrupted write has left
        if name.startswith('..') and name not in {'..data', fresh}:
            shutil.rmtree(directory / name, ignore_errors=True)
    return True


def _write(path: str, file: File, gid: int | None) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, 0o600)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path))
        fd = os.open(path, flags, 0o600)
    try:
        host.write_all(fd, file.content)
        if file.uid is not None or gid is not None:
            os.chown(fd, -1 if file.uid is None else file.uid, -1 if gid is None else gid)
        os.fchmod(fd, file.mode)
    finally:
        os.close(fd)


def _link(directory: Path, names: set[str], there: Sequence[str]) -> None:
    """there: what is in the directory."""
    for name in there:
        if not name.startswith('..') and name not in names and (directory / name).is_symlink():
            os.unlink(directory / name)
    for name in names.difference(there):
        os.symlink(f'..data/{name}', directory / name)


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
