"""Supervision: returning is a failure, restarts are paced, an orderly stop awaits."""

from __future__ import annotations

import asyncio
import os
import random
import signal

import pytest

from kcore.backoff import Backoff
from kcore.tasks import Died, causes, essential, leaves, restarting, stop, until_signalled


async def test_an_essential_task_that_returns_is_a_failure() -> None:
    async def quiet() -> None:
        return None

    with pytest.raises(Died, match='quiet returned'):
        await essential('quiet', quiet())


async def test_an_essential_task_that_raises_names_itself_and_its_cause() -> None:
    async def broken() -> None:
        raise OSError('disk on fire')

    with pytest.raises(Died, match='broken: disk on fire') as died:
        await essential('broken', broken())
    assert isinstance(died.value.__cause__, OSError)


async def test_a_restarting_task_runs_again_after_returning_and_after_raising() -> None:
    runs = 0
    thrice = asyncio.Event()

    async def flaky() -> None:
        nonlocal runs
        runs += 1
        if runs == 3:
            thrice.set()
            await asyncio.Event().wait()
        if runs == 1:
            raise ValueError('once')

    task = asyncio.ensure_future(restarting('flaky', flaky, Backoff(0.0, 0.0, random.Random(1))))
    await thrice.wait()
    await stop(task)
    assert task.cancelled()


async def test_a_signal_cancels_the_main_task_and_is_a_clean_exit() -> None:
    cleaned = False

    async def serve() -> None:
        nonlocal cleaned
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            await asyncio.Event().wait()
        finally:
            cleaned = True

    assert await until_signalled(serve()) == 0
    assert cleaned


async def test_a_main_task_that_dies_is_exit_code_one() -> None:
    async def die() -> None:
        raise ExceptionGroup('g', [ValueError('x')])

    assert await until_signalled(die()) == 1


def test_the_leaves_of_nested_groups_are_the_plain_exceptions() -> None:
    a, b = ValueError('a'), KeyError('b')
    assert leaves(ExceptionGroup('o', [ExceptionGroup('i', [a]), b])) == [a, b]


async def test_the_causes_look_through_what_died_of_them() -> None:
    async def broken() -> None:
        raise ExceptionGroup('inner', [OSError('disk on fire')])

    with pytest.raises(Died) as died:
        await essential('outer', essential('inner', broken()))
    assert [str(e) for e in causes(died.value)] == ['disk on fire']


def test_a_backoff_doubles_up_to_its_cap_and_starts_anew_after_a_reset() -> None:
    backoff = Backoff(1.0, 5.0, random.Random(1), jitter=0.0)
    assert [backoff.next() for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    backoff.reset()
    assert backoff.next() == 1.0
