"""Request deadlines: one timer for all requests, because nearly none of them ever comes due."""

from __future__ import annotations

import asyncio
import math


class Deadlines:
    """When which request must have ended."""

    def __init__(self) -> None:
        self._due: dict[asyncio.Timeout, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    def add(self, timeout: asyncio.Timeout, limit_s: float) -> None:
        """Let `timeout` strike in so many seconds, unless it is dropped before."""
        loop = asyncio.get_running_loop()
        when = self._due[timeout] = loop.time() + limit_s
        if when < self._timer_at:
            self._arm(loop, when)

    def drop(self, timeout: asyncio.Timeout) -> None:
        self._due.pop(timeout, None)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self, loop: asyncio.AbstractEventLoop, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at = loop.call_at(when, self._strike), when

    def _strike(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._timer, self._timer_at = None, math.inf
        for timeout in [t for t, when in self._due.items() if when <= now]:
            self.drop(timeout)
            timeout.reschedule(now)
        if self._due:
            self._arm(loop, min(self._due.values()))
