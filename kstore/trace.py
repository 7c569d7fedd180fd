"""Where a write spends its time at the leader: `--trace-ms N` logs each one that took longer than N milliseconds.

A write passes five phases. *queue*: from its arrival to the turn in which Raft takes it. *append*: until the disk is
asked to write it. *fsync*: until this member's own disk has it. *replicate*: until a majority has it, too. *apply*:
until the state machine has its result. Their totals are in `/metrics`. Without the flag nothing of this costs anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog

from kcore.env import Clock
from kstore.errors import ProtocolError
from kstore.fsm import Command
from kstore.wire import unpack

log = structlog.get_logger('kstore.trace')

PHASES = ('queue', 'append', 'fsync', 'replicate', 'apply')
KEY_CHARS_MAX = 120
"""Of a key in the log."""


class Trace:
    """One write under way: the moments at which its phases ended, the first being that of its arrival."""

    __slots__ = ('data', 'marks')

    def __init__(self, data: bytes, now: float) -> None:
        self.data = data
        self.marks = [now]

    def mark(self, phases: int, now: float) -> None:
        """The first `phases` phases are over; those that were not seen to end took no time."""
        self.marks += [now] * (phases + 1 - len(self.marks))


class Tracer:
    """Makes traces, and says what came of the slow ones."""

    def __init__(self, clock: Clock, slow_s: float) -> None:
        self._slow_s = slow_s
        self.now: Callable[[], float] = clock.monotonic
        self.requests = 0
        self.seconds = dict.fromkeys(PHASES, 0.0)
        """Total of each phase, over all requests."""

    def begin(self, data: bytes) -> Trace:
        return Trace(data, self.now())

    def end(self, trace: Trace) -> None:
        """The result is there."""
        trace.mark(len(PHASES), self.now())
        marks = trace.marks
        took = {phase: after - before for phase, before, after in zip(PHASES, marks, marks[1:], strict=False)}
        self.requests += 1
        for phase, seconds in took.items():
            self.seconds[phase] += seconds
        total = marks[-1] - marks[0]
        if total >= self._slow_s:
            spent = {f'{phase}_ms': round(seconds * 1000, 3) for phase, seconds in took.items()}
            log.info(
                'slow write', **describe(trace.data), bytes=len(trace.data), total_ms=round(total * 1000, 3), **spent
            )


def describe(data: bytes) -> dict[str, Any]:
    """What a command is, in words: its name, and the first key it names."""
    try:
        _, _, _, retry, what, *arguments = unpack(data)
        named: dict[str, Any] = {'command': Command(what).name.lower()}
    except (ProtocolError, ValueError, TypeError):
        return {'command': 'malformed'}
    if retry:
        named['retry'] = True
    found = arguments[0] if arguments else None
    while isinstance(found, list) and found:  # a transaction's first compare
        found = found[0]
    if isinstance(found, bytes):
        named['key'] = found.decode('utf-8', 'backslashreplace')[:KEY_CHARS_MAX]
    elif isinstance(found, int):
        named['lease' if what in (Command.GRANT, Command.REVOKE) else 'number'] = found
    return named
