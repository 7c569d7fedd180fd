"""Where a write's time goes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from kstore.fsm import Command, encode
from kstore.trace import PHASES, Tracer, describe
from kstore.waiters import Waiters

Stores = Callable[..., Awaitable[Any]]


class Clock:
    """Tells the time it was given."""

    at = 0.0

    def monotonic(self) -> float:
        return self.at


def test_each_phase_gets_the_time_that_passed_in_it() -> None:
    clock, waiters, results = Clock(), Waiters(), []
    tracer = waiters.tracer = Tracer(clock, 0.010)  # type: ignore[arg-type]
    trace = tracer.begin(encode(0, 0, 0, False, Command.PUT, b'/a', b'1', 0, 0))
    clock.at = 0.001
    waiters.add(7, results.append, trace)
    for phases, at in ((2, 0.003), (3, 0.006), (4, 0.010)):
        clock.at = at
        waiters.reached(phases, 6)  # others' entries, before ours
        waiters.reached(phases, 8)
    clock.at = 0.015
    with capture_logs() as logs:
        waiters.applied(6, [b'other', b'ours'])
    assert results == [b'ours']
    (line,) = logs
    assert [line[f'{phase}_ms'] for phase in PHASES] == pytest.approx([1, 2, 3, 4, 5])
    assert (line['command'], line['key'], line['total_ms']) == ('put', '/a', 15)


def test_a_quick_write_is_counted_and_not_logged() -> None:
    clock = Clock()
    tracer = Tracer(clock, 0.010)  # type: ignore[arg-type]
    trace = tracer.begin(b'')
    clock.at = 0.009
    with capture_logs() as logs:
        tracer.end(trace)
    assert (logs, tracer.requests, sum(tracer.seconds.values())) == ([], 1, pytest.approx(0.009))


@pytest.mark.parametrize(
    ('command', 'told'),
    [
        ((Command.TXN, [[b'/t', None, 2, 0, 5]], [], []), {'command': 'txn', 'key': '/t'}),
        ((Command.GRANT, 7, 60), {'command': 'grant', 'lease': 7}),
        ((Command.COMPACT, 9), {'command': 'compact', 'number': 9}),
        ((99,), {'command': 'malformed'}),
    ],
)
def test_a_command_is_named_in_words(command: tuple[Any, ...], told: dict[str, Any]) -> None:
    assert describe(encode(0, 0, 0, False, *command)) == told


async def test_a_member_started_with_the_flag_tells_of_every_write(stores: Stores):
    store = await stores(1, trace_ms=0.0001)
    client = await store.client()
    with capture_logs() as logs:
        await client.put(b'/slow', b'1')
    assert [line['command'] for line in logs if line['event'] == 'slow write' and line.get('key') == '/slow'] == ['put']
