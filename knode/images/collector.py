"""Removes environments that no container uses when the disk is nearly full, as a kubelet removes images.

Every five minutes, and before pods are evicted for the disk's sake: those unused for longest go first, and none that
was in use within the last two minutes. Source: pkg/kubelet/images/image_gc_manager.go.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import structlog

from kcore.env import Env
from knode.errors import ImageGcFailed, os_text
from knode.images.store import ImageStore
from knode.pods.metrics import KubeletMetrics

log = structlog.get_logger('knode.images')

PERIOD_S = 300.0
EVERYTHING = 1 << 62
"""Bytes, more than any disk has."""


@dataclass(frozen=True, slots=True)
class GcPolicy:
    high_percent: int
    """From this use of the disk on images are removed; 100: never."""
    low_percent: int
    """Until its use is down to this."""
    minimum_age_s: float
    """An image that was in use more recently stays."""
    maximum_age_s: float = 0.0
    """One that was last in use longer ago goes, however much room there is; 0: it stays."""


def excess(available: int, capacity: int, policy: GcPolicy) -> int:
    """Bytes to free; 0: the disk is not that full."""
    if policy.high_percent == 100 or 100 - available * 100 // capacity < policy.high_percent:
        return 0
    return max(0, capacity * (100 - policy.low_percent) // 100 - available)


class ImageCollector:
    """
    in_use:  ids of the images of all containers that are here, whether they run or have ended.
    said:    takes reason and text of a warning about the node.
    """

    def __init__(
        self,
        env: Env,
        store: ImageStore,
        policy: GcPolicy,
        *,
        in_use: Callable[[], set[str]],
        metrics: KubeletMetrics,
        said: Callable[[str, str], None],
    ) -> None:
        self._env, self._store, self._policy = env, store, policy
        self._in_use, self._metrics, self._said = in_use, metrics, said
        self._failed = False
        """The last look was in vain."""
        self.disk: Callable[[Path], tuple[int, int]] = _disk

    async def run(self) -> NoReturn:
        while True:
            await asyncio.sleep(PERIOD_S)
            await self.look()

    async def look(self) -> None:
        """Tells the node of a failure that is not the first in a row."""
        try:
            await self._collect()
        except ImageGcFailed as e:
            log.warning('image garbage collection failed', err=str(e), again=self._failed)
            if self._failed:
                self._said('ImageGCFailed', str(e))
            self._failed = True
        else:
            self._failed = False

    async def _collect(self) -> None:
        """Where nothing was ever built there is nothing to say: the disk is full of something else."""
        if not self._store.built():
            return
        available, capacity = self.disk(self._store.root)
        if not capacity:
            raise self._complaint('InvalidDiskCapacity', 'invalid capacity 0 on image filesystem')
        wanted = excess(available, capacity, self._policy)
        if not wanted and not self._policy.maximum_age_s:
            return
        if (freed := await self.free(wanted)) < wanted:
            raise self._complaint(
                'FreeDiskSpaceFailed',
                f'Failed to garbage collect required amount of images. Attempted to free {wanted} bytes, '
                f'but only found {freed} bytes eligible to free.',
            )

    def _complaint(self, reason: str, text: str) -> ImageGcFailed:
        self._said(reason, text)
        return ImageGcFailed(text)

    async def free(self, wanted: int = EVERYTHING) -> int:
        """Remove unused images until so many bytes are free, and those that are too old. Returns how many are.

        Raises ImageGcFailed when some could not be removed; the others are.
        """
        freed, errors = 0, []
        now = self._env.clock.wall().timestamp()
        in_use = self._in_use()
        for used_at, name in sorted((at, name) for name, at in self._store.built().items()):
            if self._store.id_of(name) in in_use:
                self._store.touch(name)
                continue
            age, most = now - used_at, self._policy.maximum_age_s
            too_old = bool(most) and age > most
            if too_old or (freed < wanted and age >= self._policy.minimum_age_s):
                try:
                    size = await self._store.remove(name)
                except OSError as e:
                    errors.append(f'{self._store.id_of(name)}: {os_text(e)}')
                    continue
                log.info('image removed', image=self._store.id_of(name), bytes=size)
                self._metrics.image_collected('age' if too_old else 'space')
                freed += size
        if errors:
            why = ', '.join(errors)
            raise ImageGcFailed(
                f'wanted to free {wanted} bytes, but freed {freed} bytes space with errors in image deletion: [{why}]'
            )
        return freed


def _disk(root: Path) -> tuple[int, int]:
    """(bytes available, bytes in all)."""
    files = os.statvfs(root)
    return files.f_bavail * files.f_frsize, files.f_blocks * files.f_frsize
