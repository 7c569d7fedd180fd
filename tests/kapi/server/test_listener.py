"""Connections that never come to the point, and too many of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from kapi.server.listener import Listener


@contextlib.asynccontextmanager
async def listening(**bounds: Any) -> AsyncIterator[int]:
    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(text='ok')

    runner = web.ServerRunner(Listener(answer, **bounds), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, '127.0.0.1', 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def test_a_first_request_that_never_ends_closes_its_connection_and_others_stay():
    async with listening(first_request_s=0.3) as port, asyncio.timeout(20):
        kept, say = await asyncio.open_connection('127.0.0.1', port)
        say.write(b'GET / HTTP/1.1\r\nHost: x\r\n\r\n')
        assert b'200 OK' in await kept.readline()
        reader, writer = await asyncio.open_connection('127.0.0.1', port)
        writer.write(b'GET / HTTP/1.1\r\nHost: ')
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b''
        assert b'ok' in await kept.readuntil(b'ok')
        say.write(b'GET / HTTP/1.1\r\nHost: x\r\n\r\n')  # an idle connection that has spoken is kept
        assert b'200 OK' in await kept.readline()
        for end in (say, writer):
            end.close()


async def test_one_connection_too_many_is_closed_at_once():
    async with listening(connections_max=2) as port, asyncio.timeout(20):
        held = [await asyncio.open_connection('127.0.0.1', port) for _ in range(2)]
        for reader, writer in held:
            writer.write(b'GET / HTTP/1.1\r\nHost: x\r\n\r\n')
            assert b'200 OK' in await reader.readline()
        reader, extra = await asyncio.open_connection('127.0.0.1', port)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b''
        extra.close()
        held[0][1].write(b'GET / HTTP/1.1\r\nHost: x\r\n\r\n')
        assert b'ok' in await held[0][0].readuntil(b'ok')
        for _, writer in held:
            writer.close()
