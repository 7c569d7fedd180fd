"""Proposals on their way through the log, in its order: who hears of the result, and when each phase was over."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from kstore.ports import Done
from kstore.trace import Trace, Tracer


class _Waiter:
    __slots__ = ('done', 'index', 'trace')

    def __init__(self, index: int, done: Done, trace: Trace | None) -> None:
        self.index = index
        self.done = done
        self.trace = trace


class Waiters:
    """Those of one term of leadership: what they wait for may be replaced in a later one."""

    def __init__(self) -> None:
        self._waiting: deque[_Waiter] = deque()
        self.term = 0
        self.tracer: Tracer | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, index: int, done: Done, trace: Trace | None = None) -> None:
        """Entry `index` is in the log; indices only grow."""
        if trace is not None and self.tracer is not None:
            trace.mark(1, self.tracer.now())
        self._waiting.append(_Waiter(index, done, trace))

    def reached(self, phases: int, index: int) -> None:
        """Everything up to `index` has its first `phases` phases behind it: see `kstore.trace`."""
        if self.tracer is None:
            return
        now = self.tracer.now()
        for waiter in self._waiting:
            if waiter.index > index:
                break
            if waiter.trace is not None:
                waiter.trace.mark(phases, now)

    def applied(self, first: int, results: Sequence[Any]) -> None:
        """The results of the entries from `first` on."""
        waiting = self._waiting
        while waiting and waiting[0].index < first + len(results):
            waiter = waiting.popleft()
            if waiter.trace is not None and self.tracer is not None:
                self.tracer.end(waiter.trace)
            waiter.done(results[waiter.index - first])

    def fail(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, deque()
        for waiter in waiting:
            waiter.done(error)
