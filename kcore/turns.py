"""Whose turn it is: a few at a time, nobody waits for long."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Turns:
    def __init__(self, at_once: int, patience_s: float) -> None:
        """What takes longer than `patience_s` hangs, perhaps on somebody who waits for a turn: it counts no more.

        Who has waited that long itself goes on without a turn.
        """
        self._free, self._patience_s = asyncio.Semaphore(at_once), patience_s
        self._began: dict[object, float] = {}
        """The turns that count, the oldest first."""

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        if self._free.locked():
            self._write_off()
            try:
                async with asyncio.timeout(self._patience_s):
                    await self._free.acquire()
            except TimeoutError:
                yield
                return
        else:
            await self._free.acquire()
        mine = object()
        self._began[mine] = asyncio.get_running_loop().time()
        try:
            yield
        finally:
            self._end(mine)

    def _write_off(self) -> None:
        overdue = asyncio.get_running_loop().time() - self._patience_s
        while self._began and next(iter(self._began.values())) <= overdue:
            self._end(next(iter(self._began)))

    def _end(self, turn: object) -> None:
        if self._began.pop(turn, None) is not None:
            self._free.release()
