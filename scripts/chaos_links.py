"""The wires between members under test: one proxy a direction, which can be cut and healed without root.

What arrives while a wire is cut waits, as TCP's bytes would; new connections across it are accepted and stay silent,
which is what a lost packet looks like to whoever dials.
"""

from __future__ import annotations

import asyncio
import contextlib

from kcore import tasks
from kcore.env import Env

PIECE_BYTES = 64 * 1024


class Link:
    """From one member to another."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._open = {True: asyncio.Event(), False: asyncio.Event()}
        """By direction: towards the target, and back."""
        self.heal()
        self._flows: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def serve(self) -> int:
        """The port that leads to the target."""
        self._server = await asyncio.start_server(self._accepted, '127.0.0.1', 0)
        return int(self._server.sockets[0].getsockname()[1])

    def cut(self, *, towards: bool = True, back: bool = True) -> None:
        for direction, cut in ((True, towards), (False, back)):
            if cut:
                self._open[direction].clear()

    def heal(self) -> None:
        for event in self._open.values():
            event.set()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        await tasks.stop(*self._flows)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self._open[True].wait()
            far_reader, far_writer = await asyncio.open_connection('127.0.0.1', self._target)
            flows = [
                tasks.start_detached('link', self._flow(reader, far_writer, True)),
                tasks.start_detached('link', self._flow(far_reader, writer, False)),
            ]
            self._flows.update(flows)
            await asyncio.wait(flows, return_when=asyncio.FIRST_COMPLETED)
            await tasks.stop(*flows)
            self._flows.difference_update(flows)
            far_writer.close()
        writer.close()

    async def _flow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, towards: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(PIECE_BYTES):
                await self._open[towards].wait()
                writer.write(data)
                await writer.drain()


class Links:
    """All wires of a cluster, by (from, to)."""

    def __init__(self, env: Env) -> None:
        self._env = env
        self._links: dict[tuple[int, int], Link] = {}

    async def lay(self, source: int, target: int, port: int) -> int:
        """The port at which `source` reaches member `target`, which listens on `port`."""
        link = self._links[source, target] = Link(port)
        return await link.serve()

    def cut(self, member: int, *, both: bool) -> None:
        """Nothing that `member` says arrives; with `both` it hears nothing either."""
        for (source, target), link in self._links.items():
            if source == member:
                link.cut(back=both)
            elif target == member:
                link.cut(towards=both)

    def heal(self, member: int | None = None) -> None:
        for ends, link in self._links.items():
            if member is None or member in ends:
                link.heal()

    async def close(self) -> None:
        for link in self._links.values():
            await link.close()
