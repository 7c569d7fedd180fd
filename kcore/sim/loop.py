"""An event loop whose clock jumps to the next timer, and whose ready tasks run in an order drawn from a seed.

Only steps of tasks are shuffled: `call_soon` promises first in, first out, and protocols rely on it. It leans on
CPython's private `_ready` and `_run_once`; a test of its own pins them. Threads are outside virtual time.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import selectors
from collections import deque
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
"""Wall time at the start of every simulation."""


RESOLUTION_S = 1e-9
"""Timers so close to each other are due together."""


HOST: ContextVar[str] = ContextVar('HOST', default='')
"""The simulated host whose code runs; inherited by every task, callback and timer that this code starts."""


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


class _ReadyQueue(deque[asyncio.Handle]):
    """Callbacks about to run; those of a paused host are put aside instead."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[str, list[asyncio.Handle]] = {}

    def append(self, handle: asyncio.Handle) -> None:
        held = self.held.get(host_of(handle)) if self.held else None
        if held is None:
            super().append(handle)
        else:
            held.append(handle)


class _SimTask(asyncio.Task[Any]):
    """Hashed by order of birth: sets of tasks, such as a TaskGroup's, have the same order in every run of a seed."""

    def __init__(self, number: int, coro: Any, **options: Any) -> None:
        self._number = number
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._number


class SimLoop(asyncio.SelectorEventLoop):
    """Virtual time on `clock`; interleavings from `rng`."""

    _ready: _ReadyQueue

    def __init__(self, clock: SimClock, rng: random.Random) -> None:
        super().__init__(_JumpSelector(clock))
        self._clock = clock
        self._rng = rng
        self._ready = _ReadyQueue()
        self.errors: list[BaseException] = []
        """What callbacks raised; `World.run` raises the first of them."""
        self.set_exception_handler(self._note)
        self._tasks_made = 0
        self.set_task_factory(self._make_task)

    def _make_task(self, _: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> _SimTask:
        self._tasks_made += 1
        return _SimTask(self._tasks_made, coro, loop=self, **options)

    def _note(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if 'handle' in context and 'exception' in context:
            self.errors.append(context['exception'])
        else:
            self.default_exception_handler(context)

    def pause(self, host: str) -> None:
        """Run nothing of `host` from the next turn on, as SIGSTOP does; its timers become due and wait."""
        self._ready.held.setdefault(host, [])

    def resume(self, host: str) -> None:
        """Run what waited, in its order; fine when `host` is not paused."""
        for handle in self._ready.held.pop(host, ()):
            self._ready.append(handle)

    def is_paused(self, host: str) -> bool:
        return host in self._ready.held

    def _put_aside(self) -> None:
        ready = list(self._ready)
        self._ready.clear()
        for handle in ready:
            self._ready.append(handle)

    def time(self) -> float:
        return self._clock.monotonic()

    def _run_once(self) -> None:
        # A timer is due within the clock's resolution; after a hundred days that is finer than a float can tell.
        self._clock_resolution = max(RESOLUTION_S, 2 * math.ulp(self._clock.monotonic()))
        ready = self._ready
        if ready.held:
            self._put_aside()
        at = [i for i, h in enumerate(ready) if _is_step(h)]
        if len(at) > 1:
            steps = [ready[i] for i in at]
            self._rng.shuffle(steps)
            for i, step in zip(at, steps, strict=True):
                ready[i] = step
        super()._run_once()  # type: ignore[misc]

    def drain(self) -> None:
        """Cancel what is left and let it end, so that closing the loop leaves nothing half-done."""
        for host in list(self._ready.held):
            self.resume(host)
        left = asyncio.all_tasks(self)
        for task in left:
            task.cancel()
        if left:
            with contextlib.suppress(Deadlock):
                self.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self.run_until_complete(self.shutdown_asyncgens())


def host_of(handle: asyncio.Handle) -> str:
    return handle._context.get(HOST, '')  # type: ignore[attr-defined,no-any-return]


def _is_step(handle: asyncio.Handle) -> bool:
    """Whether it runs a task on."""
    return isinstance(getattr(handle._callback, '__self__', None), asyncio.Task)  # type: ignore[attr-defined]
