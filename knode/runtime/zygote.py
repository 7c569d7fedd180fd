"""The agent's end of the zygote: asks it to fork shims, starts a new one when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import structlog

from kcore.env import Env, Process
from kcore.tasks import start_detached, stop
from knode.errors import ShimError

log = structlog.get_logger('knode.zygote')

FORK_TIMEOUT_S = 10.0
SHIM_MAIN = Path(__file__).parent / 'shim' / '__main__.py'


class Zygote:
    """Started at the first `fork`; ends when `close` or the agent's death closes its socket."""

    def __init__(self, env: Env) -> None:
        self._env = env
        self._lock = asyncio.Lock()
        self._process: Process | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reaper: asyncio.Task[int] | None = None
        self._serial = 0

    async def fork(self, directory: str, memory: Mapping[str, int]) -> tuple[int, int]:
        """A new shim in `directory`: (pid, start ticks); its socket listens. Raises ShimError.

        memory:  directories that are a tmpfs for the shim and its children → most bytes, 0: no limit.
        """
        answer = await self._request({'directory': directory, 'memory': dict(memory)})
        return int(answer['pid']), int(answer['start_ticks'])

    async def probe(self) -> dict[str, Any]:
        """What this machine allows: `{'mounts': bool}`. Raises ShimError."""
        return await self._request({'probe': True})

    async def _request(self, request: dict[str, Any]) -> dict[str, Any]:
        async with self._lock:  # one question at a time: a fork takes a millisecond
            for attempt in (1, 2):
                try:
                    async with asyncio.timeout(FORK_TIMEOUT_S):
                        return await self._ask(request)
                except (OSError, TimeoutError, asyncio.IncompleteReadError) as e:
                    log.warning('zygote failed', attempt=attempt, err=f'{type(e).__name__}: {e}')
                    await self._drop()
            raise ShimError('the zygote cannot be started')

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._writer is None:
            await self._start()
        assert self._writer is not None
        assert self._reader is not None
        self._serial += 1
        self._writer.write(orjson.dumps(request | {'id': self._serial}) + b'\n')
        answer: dict[str, Any] = orjson.loads(await self._reader.readuntil(b'\n'))
        if 'error' in answer:
            raise ShimError(f'pod sandbox: {answer["error"]}')
        return answer

    async def _start(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            self._process = await self._env.processes.spawn(
                [sys.executable, '-I', '-S', str(SHIM_MAIN)], stdin=theirs.fileno(), env={}, new_session=True
            )
        finally:
            theirs.close()
        ours.setblocking(False)
        self._reader, self._writer = await asyncio.open_unix_connection(sock=ours)
        self._reaper = start_detached('zygote', self._process.wait())

    async def _drop(self) -> None:
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()
        self._reader = self._writer = None
        if self._process is not None and self._reaper is not None:
            try:
                async with asyncio.timeout(1.0):
                    await asyncio.shield(self._reaper)
            except TimeoutError:
                self._process.signal(9)
                await self._reaper
        self._process = self._reaper = None

    async def close(self) -> None:
        """Shims stay."""
        await self._drop()
        await stop(self._reaper)
