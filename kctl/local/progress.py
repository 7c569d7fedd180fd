"""What a person sees while something starts: one line a step, with what is waited for and for how long."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar

from kcore.env import Env
from kcore.tasks import start_detached, stop

T = TypeVar('T')
REDRAW_S = 0.1


class Progress:
    """Writes to standard error; on a terminal the current step's line counts the seconds."""

    def __init__(self, env: Env) -> None:
        self._env = env
        self._began = env.clock.monotonic()
        self._live = sys.stderr.isatty()

    @property
    def elapsed_s(self) -> float:
        return self._env.clock.monotonic() - self._began

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    @asynccontextmanager
    async def step(self, what: str) -> AsyncIterator[None]:
        began = self._env.clock.monotonic()
        ticker = start_detached('progress', self._tick(what, began)) if self._live else None
        mark = '✗'
        try:
            yield
            mark = '✓'
        finally:
            await stop(ticker)
            start = '\r\033[K' if self._live else ''
            self.say(f'{start}{mark} {what}  {self._env.clock.monotonic() - began:.1f} s')

    async def wait(self, what: str, condition: Awaitable[T], *, timeout_s: float) -> T:
        """Show `what` until `condition` holds. Raises TimeoutError."""
        async with self.step(what), asyncio.timeout(timeout_s):
            return await condition

    async def _tick(self, what: str, began: float) -> None:
        while True:
            sys.stderr.write(f'\r\033[K· {what} … {self._env.clock.monotonic() - began:.1f} s')
            sys.stderr.flush()
            await asyncio.sleep(REDRAW_S)
