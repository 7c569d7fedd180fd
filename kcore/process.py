"""The life of one process: settings in, logging set up, event loop run, exit code out.

A component is `async def run(config, env, ready)`: it serves until cancelled and calls `ready()` once it does.
`python -m <package>` and the launcher's forked children enter through the same `main`.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import TypeVar

from kcore import log
from kcore.config import Config
from kcore.env import Env
from kcore.tasks import until_signalled

GC_THRESHOLDS = (10_000, 20, 100)
"""The collector looks for cycles a good deal less often than Python's default of (700, 10, 10): nearly all of our
garbage has none, and a full look at the objects of a big cluster takes tenths of a second."""

C = TypeVar('C', bound=Config)
Ready = Callable[[], None]
Run = Callable[[C, Env, Ready], Awaitable[None]]


def main(component: str, run: Run[C], config: C, *, ready: Ready = lambda: None) -> int:
    """Run a component on uvloop (where there is one) until it ends or is signalled. Returns the exit code."""
    log.setup(component, level=config.log_level)
    gc.set_threshold(*GC_THRESHOLDS)

    def serving() -> None:
        gc.freeze()  # modules, schemas and the objects read first stay; the collector need not look at them again
        ready()

    async def body() -> None:
        await run(config, Env.real(), serving)

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(until_signalled(body()))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 — optional: absent on Windows
    except ImportError:
        return None
    return uvloop.new_event_loop
