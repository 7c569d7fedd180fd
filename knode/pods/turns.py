"""Whose turn it is to start something: a few at a time, nobody waits for long."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

STARTS_AT_ONCE = 8
"""Of a hundred pods that come at once the first then run soon, and a few connections serve them all."""
PATIENCE_S = 0.5
"""Who has waited this long goes on anyway: those before it may wait for the API or for an image."""


class Turns:
    def __init__(self, at_once: int = STARTS_AT_ONCE, patience_s: float = PATIENCE_S) -> None:
        self._free, self._patience_s = asyncio.Semaphore(at_once), patience_s

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._patience_s):
                await self._free.acquire()
        except TimeoutError:
            yield
            return
        try:
            yield
        finally:
            self._free.release()
