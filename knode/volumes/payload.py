"""Files of a volume made of API objects, replaced as one by a symlink swap.

Layout: `..2026_…` holds the files, `..data` points to it, each visible name is a symlink through `..data`; a reader
sees all old or all new files. Source: pkg/volume/util/atomic_writer.go.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from knode.errors import VolumeError
from knode.runtime.shim import host

Payload = Mapping[str, tuple[bytes, int]]
"""Relative path → content and mode."""


def check_path(path: str) -> str:
    """A relative path that stays inside. Raises VolumeError."""
    parts = PurePosixPath(path).parts
    if not path or PurePosixPath(path).is_absolute() or '..' in parts or parts[0].startswith('..'):
        raise VolumeError(f'invalid path in volume: {path!r}')
    return path


def write(directory: Path, payload: Payload, stamp: str, *, gid: int | None = None) -> bool:
    """Make `directory` hold exactly `payload`. Returns whether anything changed.

    stamp:  distinguishes this version; unique within the directory.
    """
    if _current(directory) == dict(payload):
        return False
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    fresh = directory / f'..{stamp}'
    fresh.mkdir(mode=0o755)
    for name, (content, mode) in payload.items():
        file = fresh / check_path(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(fd, 'wb') as out:
            out.write(content)
        file.chmod(mode if gid is None else mode | 0o040)
        if gid is not None:
            os.chown(file, -1, gid)
    old = os.readlink(directory / '..data') if (directory / '..data').is_symlink() else ''
    draft = directory / '..data_tmp'
    draft.unlink(missing_ok=True)
    draft.symlink_to(fresh.name)
    draft.replace(directory / '..data')
    _link(directory, {PurePosixPath(name).parts[0] for name in payload})
    if old:
        shutil.rmtree(directory / old, ignore_errors=True)
    return True


def _link(directory: Path, names: set[str]) -> None:
    for entry in directory.iterdir():
        if entry.is_symlink() and not entry.name.startswith('..') and entry.name not in names:
            entry.unlink()
    for name in names:
        link = directory / name
        if not link.is_symlink():
            link.symlink_to(f'..data/{name}')


def _current(directory: Path) -> dict[str, tuple[bytes, int]]:
    data = directory / '..data'
    if not data.is_dir():
        return {}
    found = {}
    for base, _, files in os.walk(data.resolve()):
        for name in files:
            file = Path(base) / name
            found[str(file.relative_to(data.resolve()))] = (host.read_file(str(file)), file.stat().st_mode & 0o777)
    return found
