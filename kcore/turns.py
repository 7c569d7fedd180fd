"""Whose turn it is: a few at a time, nobody waits for long."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Turns:
    def __init__(self, at_once: int, patience_s: float) -> None:
        """Who has waited `patience_s` goes on anyway: those before it may wait for somebody themselves."""
        self._free, self._patience_s = asyncio.Semaphore(at_once), patience_s

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        if self._free.locked():
            try:
                async with asyncio.timeout(self._patience_s):
                    await self._free.acquire()
            except TimeoutError:
                yield
                return
        else:
            await self._free.acquire()
        try:
            yield
        finally:
            self._free.release()
