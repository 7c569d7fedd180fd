"""An event loop whose clock jumps to the next timer, and whose ready tasks run in an order drawn from a seed.

Only steps of tasks are shuffled: `call_soon` promises first in, first out, and protocols rely on it. It leans on
CPython's private `_ready` and `_run_once`; a test of its own pins them. Threads are outside virtual time.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import selectors
from datetime import UTC, datetime, timedelta
from typing import Any

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
"""Wall time at the start of every simulation."""


class Deadlock(Exception):
    """Every task waits and no timer is armed."""


class SimClock:
    """Virtual time; moves only by `advance` or by a `SimLoop`."""

    def __init__(self) -> None:
        self._now = 0.0
        self._wall_offset = 0.0

    def monotonic(self) -> float:
        return self._now

    def wall(self) -> datetime:
        return EPOCH + timedelta(seconds=self._now + self._wall_offset)

    def advance(self, seconds: float) -> None:
        """Let time pass. Raises ValueError for a negative duration."""
        if seconds < 0:
            raise ValueError('time does not go back')
        self._now += seconds

    def jump_wall(self, seconds: float) -> None:
        """Somebody set the wall clock; durations are not concerned."""
        self._wall_offset += seconds


class _JumpSelector(selectors.SelectSelector):
    """Never waits: time jumps instead."""

    def __init__(self, clock: SimClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise Deadlock('every task waits and no timer is armed')
        self._clock.advance(max(0.0, timeout))
        return []


class SimLoop(asyncio.SelectorEventLoop):
    """Virtual time on `clock`; interleavings from `rng`."""

    _ready: Any

    def __init__(self, clock: SimClock, rng: random.Random) -> None:
        super().__init__(_JumpSelector(clock))
        self._clock = clock
        self._rng = rng

    def time(self) -> float:
        return self._clock.monotonic()

    def _run_once(self) -> None:
        ready = self._ready
        at = [i for i, h in enumerate(ready) if isinstance(getattr(h._callback, '__self__', None), asyncio.Task)]
        if len(at) > 1:
            steps = [ready[i] for i in at]
            self._rng.shuffle(steps)
            for i, step in zip(at, steps, strict=True):
                ready[i] = step
        super()._run_once()  # type: ignore[misc]

    def drain(self) -> None:
        """Cancel what is left and let it end, so that closing the loop leaves nothing half-done."""
        left = asyncio.all_tasks(self)
        for task in left:
            task.cancel()
        if left:
            with contextlib.suppress(Deadlock):
                self.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self.run_until_complete(self.shutdown_asyncgens())
