"""Connections that never come to the point, too many of them, and whose turn it is to be let in and to be read."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
from aiohttp import web

from kapi.flow.turns import READS_OF_FLOW, Turns
from kapi.server.listener import HANDSHAKES, HELD_BYTES_MAX, Door, Listener
from kcore import tasks


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


async def test_a_client_that_leaves_within_its_body_is_no_error(caplog: pytest.LogCaptureFixture):
    heard = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.Response:
        try:
            async for _ in request.content.iter_any():
                pass
        finally:
            heard.set()
        return web.Response(text='ok')

    runner = web.ServerRunner(Listener(answer), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, '127.0.0.1', 0).start()
    async with asyncio.timeout(20):
        _, writer = await asyncio.open_connection(*runner.addresses[0])
        writer.write(HEAD + b'Content-Length: 100\r\n\r\n{')
        await writer.drain()
        writer.close()
        await heard.wait()
    await runner.cleanup()
    assert not [r for r in caplog.records if r.name.startswith('aiohttp')]


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


REQUEST = b'GET / HTTP/1.1\r\nHost: x\r\n\r\n'


@contextlib.asynccontextmanager
async def crowd(turns: Turns, flows: list[str]) -> AsyncIterator[tuple[list[str], list[asyncio.StreamWriter]]]:
    """(flows of the requests as they are heard, a writer for each connection), each connection known by its flow."""
    heard: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        heard.append(request.protocol.flow or '-')
        request.protocol.flow = request.headers.get('Flow', request.protocol.flow)
        return web.Response(text='ok')

    runner = web.ServerRunner(Listener(answer, turns=turns), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, '127.0.0.1', 0).start()
    writers = []
    async with asyncio.timeout(30):
        for flow in flows:
            reader, writer = await asyncio.open_connection('127.0.0.1', runner.addresses[0][1])
            writer.write(b'GET / HTTP/1.1\r\nHost: x\r\nFlow: %b\r\n\r\n' % flow.encode())
            await reader.readuntil(b'ok')
            writers.append(writer)
        heard.clear()
        yield heard, writers
    for writer in writers:
        writer.close()
    await runner.cleanup()


async def until(heard: list[str], count: int) -> None:
    while len(heard) < count:
        await asyncio.sleep(0)


async def test_of_a_flood_that_comes_at_once_few_are_read_before_a_quiet_client():
    turns = Turns(lambda: 0)
    async with crowd(turns, ['flood'] * 60 + ['quiet']) as (heard, writers):
        for writer in writers:  # the quiet one last
            writer.write(REQUEST)
        await until(heard, len(writers))
        assert heard.index('quiet') <= 3 * READS_OF_FLOW
        assert heard.count('flood') == 60, 'everybody is heard in the end'


async def test_a_body_that_waits_to_be_read_is_bounded_and_arrives_whole():
    turns = Turns(lambda: 0)
    sizes: list[int] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        sizes.append(len(await request.read()))
        request.protocol.flow = 'uploads'
        return web.Response(text='ok')

    runner = web.ServerRunner(Listener(answer, turns=turns), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, '127.0.0.1', 0).start()
    body = b'x' * (5 * HELD_BYTES_MAX)
    post = b'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n' % len(body)

    async def upload() -> None:
        reader, writer = await asyncio.open_connection('127.0.0.1', runner.addresses[0][1])
        for _ in range(3):
            writer.write(post + body)
            await reader.readuntil(b'ok')
        writer.close()

    async with asyncio.timeout(30):
        await asyncio.gather(*(upload() for _ in range(12)))
    await runner.cleanup()
    assert sizes == [len(body)] * 36


async def test_a_client_that_leaves_while_its_bytes_wait_is_no_loss():
    turns = Turns(lambda: 0)
    async with crowd(turns, ['flood'] * 40) as (heard, writers):
        for writer in writers:
            writer.write(REQUEST)
        for writer in writers[20:]:
            writer.transport.abort()
        await until(heard, 20)


@contextlib.asynccontextmanager
async def door(authority: Any, turns: Turns) -> AsyncIterator[tuple[int, ssl.SSLContext]]:
    """(port, how to connect) of a listener behind its door."""

    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(text='ok')

    listener = Listener(answer, turns=turns)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*authority.issue('door', 'localhost'))
    opened = Door(listener, tls, turns)
    port = await opened.open('127.0.0.1', 0)
    running = tasks.start_detached('door', opened.run())
    client = ssl.create_default_context(cafile=str(authority.directory / 'ca.crt'))
    client.check_hostname = False
    async with asyncio.timeout(30):
        yield port, client
    assert not running.done()
    await tasks.stop(running)
    await listener.shutdown(0.1)


async def connect(port: int, client: ssl.SSLContext) -> bytes:
    reader, writer = await asyncio.open_connection('127.0.0.1', port, ssl=client)
    writer.write(REQUEST)
    said = await reader.readuntil(b'ok')
    writer.close()
    return said


async def test_whoever_speaks_no_tls_or_leaves_at_the_door_disturbs_nobody(authority: Any):
    async with door(authority, Turns(lambda: 0)) as (port, client):
        for noise in (REQUEST, b'\x16\x03\x01', b''):
            reader, writer = await asyncio.open_connection('127.0.0.1', port)
            writer.write(noise)
            if noise == REQUEST:
                with contextlib.suppress(ConnectionError):
                    await reader.read()
            writer.transport.abort()
        assert await connect(port, client)


async def test_connections_that_never_shake_hands_keep_nobody_out(authority: Any):
    async with door(authority, Turns(lambda: 0)) as (port, client):
        silent = [await asyncio.open_connection('127.0.0.1', port) for _ in range(3 * HANDSHAKES)]
        assert await connect(port, client)
        assert all(await asyncio.gather(*(connect(port, client) for _ in range(2 * HANDSHAKES))))
        for _, writer in silent:
            writer.transport.abort()


async def test_connections_that_come_at_once_are_let_in_by_turns(authority: Any):
    turns = Turns(lambda: 0)
    order: list[str] = []
    turn = turns.arrivals.turn

    async def arrived() -> None:
        await turn()
        order.append('connection')

    turns.arrivals.turn = arrived

    async def request() -> None:
        await turns.refusals.turn()
        order.append('request')

    async with door(authority, turns) as (port, client):
        asking = [asyncio.ensure_future(request()) for _ in range(5_000)]
        assert all(await asyncio.gather(*(connect(port, client) for _ in range(10))))
        await asyncio.gather(*asking)
    assert order.count('connection') == 10
    last = len(order) - 1 - order[::-1].index('request')
    assert all(pair != ('connection', 'connection') for pair in pairwise(order[:last]))


async def test_connections_that_still_wait_when_the_door_closes_are_closed_with_it(authority: Any):
    turns = Turns(lambda: 0)
    waiting, never = asyncio.Event(), asyncio.Event()

    async def arrived() -> None:
        waiting.set()
        await never.wait()

    turns.arrivals.turn = arrived
    async with door(authority, turns) as (port, _):
        reader, writer = await asyncio.open_connection('127.0.0.1', port)
        await waiting.wait()
    assert await reader.read() == b''
    writer.close()
