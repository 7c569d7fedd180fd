"""Task supervision: one TaskGroup a process, every task *essential* or *restarting*, every task named.

Returning is a failure: a task that was meant to run for ever and ends quietly is the bug that nobody sees.
Nothing else in the tree calls `asyncio.create_task` (a tidy test sees to it).
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NoReturn, TypeVar

import structlog

from kcore.backoff import Backoff
from kcore.env import Env

T = TypeVar('T')
log = structlog.get_logger('kcore.tasks')


class BadSetting(Exception):
    """Something that a person configured cannot be used; the text names it and is enough, without a traceback."""


class Died(Exception):
    """An essential task ended; the process must end too."""


async def essential(name: str, coro: Coroutine[Any, Any, object]) -> NoReturn:
    """Run for ever. Raises Died when `coro` raises or returns, which a TaskGroup turns into a shutdown."""
    try:
        await coro
    except Exception as e:
        raise Died(f'{name}: {e}') from e
    raise Died(f'{name} returned')


async def restarting(name: str, start: Callable[[], Awaitable[object]], backoff: Backoff) -> NoReturn:
    """Run `start` again each time it raises or returns, after a growing pause; cancellation passes through."""
    while True:
        try:
            await start()
            log.warning('task returned', task=name)
        except Exception as e:
            log.warning('task failed', task=name, err=f'{type(e).__name__}: {e}', exc_info=backoff.attempts == 0)
        await asyncio.sleep(backoff.next())


def start(group: asyncio.TaskGroup, name: str, coro: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A named task in `group`; if it raises, the group is cancelled."""
    return group.create_task(coro, name=name)


def start_essential(group: asyncio.TaskGroup, name: str, coro: Coroutine[Any, Any, object]) -> asyncio.Task[NoReturn]:
    return start(group, name, essential(name, coro))


def start_restarting(
    group: asyncio.TaskGroup, name: str, run: Callable[[], Awaitable[object]], env: Env
) -> asyncio.Task[NoReturn]:
    """A task that restarts with pauses of 0.1 s up to 10 s."""
    return start(group, name, restarting(name, run, Backoff(0.1, 10.0, env.rng)))


def start_detached(name: str, coro: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task that its owner cancels and awaits by hand (`stop`); for objects with `start`/`close` of their own."""
    return asyncio.get_running_loop().create_task(coro, name=name)


async def stop(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel and await; raises what a task raised other than its cancellation."""
    live = [t for t in tasks if t is not None]
    for t in live:
        t.cancel()
    for t in live:
        with contextlib.suppress(asyncio.CancelledError):
            await t


async def until_signalled(main: Coroutine[Any, Any, object]) -> int:
    """Run `main` until it ends or the process gets SIGTERM or SIGINT, then cancel it and wait for it.

    Returns the process's exit code: 0 after a signal or a clean return, 1 when `main` died.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(main, name='main')
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        return 0
    except BaseException as e:  # the last net of a process: say it, then exit
        for leaf in causes(e):
            if isinstance(leaf, BadSetting):
                log.error('these settings cannot be used', err=str(leaf))
            else:
                log.error('process died', err=f'{type(leaf).__name__}: {leaf}', exc_info=leaf)
        return 1
    return 0


def causes(e: BaseException) -> list[BaseException]:
    """What was raised first: the leaves, and for a Died what it died of."""
    return [
        cause
        for leaf in leaves(e)
        for cause in (causes(leaf.__cause__) if isinstance(leaf, Died) and leaf.__cause__ else [leaf])
    ]


def leaves(e: BaseException) -> list[BaseException]:
    """The plain exceptions inside nested exception groups."""
    if isinstance(e, BaseExceptionGroup):
        return [leaf for child in e.exceptions for leaf in leaves(child)]
    return [e]
