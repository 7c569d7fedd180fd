"""The agent's end of the zygote: asks it to fork shims, starts a new one when it dies.

Each question goes with one end of a new connection, and the answer comes on the other: a shim's first connection is
there before it is, and the zygote itself has nothing to wait for.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import structlog

from kcore.env import Env, Process
from kcore.tasks import start_detached
from knode.errors import ShimError, ShimGone
from knode.runtime.shim.state import State
from knode.runtime.shim_client import ShimConnection

log = structlog.get_logger('knode.zygote')

FORK_TIMEOUT_S = 10.0
FORKS_AT_ONCE = 64
"""Questions that wait in the zygote's socket; the kernel holds some hundred for it."""
SHIM_MAIN = Path(__file__).parent / 'shim' / '__main__.py'


class Zygote:
    """Started at the first question; ends when `close` or the agent's death closes its socket."""

    def __init__(self, env: Env) -> None:
        self._env = env
        self._slots = asyncio.Semaphore(FORKS_AT_ONCE)
        self._changing = asyncio.Lock()
        self._control: socket.socket | None = None
        self._process: Process | None = None
        self._reaper: asyncio.Task[int] | None = None

    async def fork(self, directory: str, memory: Mapping[str, int]) -> tuple[ShimConnection, State]:
        """A new shim in `directory`, and its state; `shim.sock` listens. Raises ShimError.

        memory:  directories that are a tmpfs for the shim and its children → most bytes, 0: no limit.
        """
        return await self._request({'directory': directory, 'memory': dict(memory)})

    async def probe(self) -> dict[str, Any]:
        """What this machine allows: `{'mounts': bool}`. Raises ShimError."""
        connection, answer = await self._request({'probe': True})
        connection.close()
        return dict(answer)

    async def _request(self, request: dict[str, Any]) -> tuple[ShimConnection, Any]:
        async with self._slots:
            for attempt in (1, 2):
                control = None
                try:
                    async with asyncio.timeout(FORK_TIMEOUT_S):
                        control = await self._running()
                        return await self._ask(control, request)
                except (OSError, TimeoutError, ShimGone) as e:
                    log.warning('zygote failed', attempt=attempt, err=f'{type(e).__name__}: {e}')
                    await self._drop(control)
            raise ShimError('the zygote cannot be started')

    async def _ask(self, control: socket.socket, request: dict[str, Any]) -> tuple[ShimConnection, Any]:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                socket.send_fds(control, [orjson.dumps(request)], [theirs.fileno()])
        except OSError:
            ours.close()
            raise
        return await ShimConnection.born(ours)

    async def _running(self) -> socket.socket:
        async with self._changing:
            if self._control is None:
                self._control = await self._start()
            return self._control

    async def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        try:
            with theirs:
                self._process = await self._env.processes.spawn(
                    [sys.executable, '-I', '-S', str(SHIM_MAIN)], stdin=theirs.fileno(), env={}, new_session=True
                )
        except BaseException:
            ours.close()
            raise
        self._reaper = start_detached('zygote', self._process.wait())
        return ours

    async def _drop(self, control: socket.socket | None) -> None:
        """Let a new one be started in the place of that which `control` belongs to, unless that has been done."""
        async with self._changing:
            if control is not None and control is self._control:
                await self._end()

    async def _end(self) -> None:
        control, process, reaper = self._control, self._process, self._reaper
        self._control = self._process = self._reaper = None
        if control is not None:
            control.close()
        if process is not None and reaper is not None:
            try:
                async with asyncio.timeout(1.0):
                    await asyncio.shield(reaper)
            except TimeoutError:
                process.signal(9)
                await reaper

    async def close(self) -> None:
        """Shims stay."""
        async with self._changing:
            await self._end()
