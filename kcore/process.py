"""The life of one process: settings in, logging set up, event loop run, exit code out.

A component is `async def run(config, env, ready)`: it serves until cancelled and calls `ready()` once it does.
`python -m <package>` and the launcher's forked children enter through the same `main`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from kcore import log
from kcore.config import Config
from kcore.env import Env
from kcore.tasks import until_signalled

C = TypeVar('C', bound=Config)
Ready = Callable[[], None]
Run = Callable[[C, Env, Ready], Awaitable[None]]


def main(component: str, run: Run[C], config: C, *, ready: Ready = lambda: None) -> int:
    """Run a component on uvloop (where there is one) until it ends or is signalled. Returns the exit code."""
    log.setup(component, level=config.log_level)

    async def body() -> None:
        await run(config, Env.real(), ready)

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(until_signalled(body()))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 — optional: absent on Windows
    except ImportError:
        return None
    return uvloop.new_event_loop
