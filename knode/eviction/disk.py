"""What a pod has written: its logs, its containers' own files, its emptyDir volumes. Blocking: walks directories."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path


def usage(root: Path) -> tuple[int, int]:
    """(bytes, inodes) below `root`, as `du` counts: blocks, not lengths, and links once. Mounts are not entered."""
    total = count = 0
    seen: set[int] = set()
    try:
        device = os.lstat(root).st_dev
    except OSError:
        return 0, 0
    for stat in _walk(root):
        if stat.st_dev != device or (stat.st_nlink > 1 and stat.st_ino in seen):
            continue
        seen.add(stat.st_ino)
        total, count = total + stat.st_blocks * 512, count + 1
    return total, count


def _walk(root: Path) -> Iterator[os.stat_result]:
    waiting = [str(root)]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError:  # gone, or closed to us
            continue
        for entry in entries:
            try:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                yield entry.stat(follow_symlinks=False)
            except OSError:
                continue


def of_pod(root: Path, containers: Iterable[str], volumes: Iterable[str]) -> tuple[dict[str, int], dict[str, int], int]:
    """Bytes by container, bytes by volume, inodes of them all."""
    disk: dict[str, int] = {}
    inodes = 0
    for name in containers:
        for part in ('containers', 'logs'):
            size, count = usage(root / part / name)
            disk[name], inodes = disk.get(name, 0) + size, inodes + count
    kept: dict[str, int] = {}
    for name in volumes:
        kept[name], count = usage(root / 'volumes' / name)
        inodes += count
    return disk, kept, inodes
