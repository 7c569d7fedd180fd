"""Connections that never come to the point, and too many of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from kapi.server.listener import Listener


@contextlib.asynccontextmanager
async def listening(**bounds: Any) -> AsyncIterator[int]:
    async def answer(request: web.BaseRequest) -> web.Response:
        async for _ in request.content.iter_any():
            pass
        return web.Response(text='ok')

    runner = web.ServerRunner(Listener(answer, **bounds), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, '127.0.0.1', 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def test_a_first_request_that_never_ends_closes_its_connection_and_others_stay():
    async with listening(request_s=0.3) as port, asyncio.timeout(20):
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


HEAD = b'GET / HTTP/1.1\r\nHost: x\r\n'


async def test_a_later_request_that_never_ends_closes_its_connection_too():
    async with listening(request_s=0.3) as port, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection('127.0.0.1', port)
        for _ in range(2):
            writer.write(HEAD + b'\r\n')
            assert b'ok' in await reader.readuntil(b'ok')
        writer.write(HEAD)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b''
        writer.close()


@pytest.mark.parametrize('sent', [
    b'GET /' + b'x' * 100_000 + b' HTTP/1.1\r\nHost: x\r\n\r\n',
    HEAD + b'X-Long: ' + b'x' * 100_000 + b'\r\n\r\n',
    HEAD + b''.join(b'X-%d: y\r\n' % n for n in range(500)) + b'\r\n',
    HEAD + b'Content-Length: x\r\n\r\n',
    HEAD + b'Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    HEAD + b'X Y: z\r\n\r\n',
    b'\x16\x03\x01' + bytes(range(256)) + b'\r\n\r\n',
], ids=['url', 'header', 'headers', 'length', 'smuggling', 'name', 'noise'])  # fmt: skip
async def test_a_head_beyond_all_measure_is_400_and_the_end_of_its_connection(sent: bytes):
    async with listening(max_line_size=65_536, max_field_size=65_536) as port, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection('127.0.0.1', port)
        writer.write(sent)
        assert b' 400 ' in await reader.readline()
        await reader.read()  # to its end
        writer.close()


async def test_many_large_headers_end_a_connection_before_they_are_kept():
    async with listening(max_field_size=65_536) as port, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection('127.0.0.1', port)
        with contextlib.suppress(ConnectionError):
            writer.write(HEAD)
            for n in range(100):
                writer.write(b'X-%d: ' % n + b'x' * 60_000 + b'\r\n')
                await writer.drain()
            assert await reader.read() == b''
        writer.close()


async def test_a_large_body_in_small_pieces_is_no_large_head():
    async with listening() as port, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection('127.0.0.1', port)
        writer.write(b'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n')
        for _ in range(300):
            writer.write(b'x' * 10_000)
            await writer.drain()
        assert b'200' in await reader.readline()
        writer.close()
