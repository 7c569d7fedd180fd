"""Connections after 101: bounded on both sides, and nothing of the first bytes lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from kcore.sim import World
from kcore.upgrade import READ_BUFFER_BYTES, Address, Duplex, UpgradeError, dial, join, unchunked

PORT = 7000
SWITCH = b'HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nX-Many: a\r\nX-Many: b\r\n\r\n'


def simulate(main: Callable[[World], Coroutine[Any, Any, Any]]) -> Any:
    world = World(1)
    return world.run(main(world))


async def pair(world: World, server: str = 's', client: str = 'c') -> tuple[Duplex, Duplex]:
    """(client's end, server's end)."""
    made: list[Duplex] = []

    def accept() -> Duplex:
        made.append(Duplex())
        return made[-1]

    listening = await world.host(server).env.net.listen(accept, server, PORT)
    _, near = await world.host(client).env.net.connect(Duplex, server, PORT)
    assert isinstance(near, Duplex)
    while not made:
        await asyncio.sleep(0.001)
    listening.close()
    return near, made[0]


def test_a_sender_waits_while_nobody_takes_what_it_sends() -> None:
    async def main(world: World) -> tuple[int, int]:
        near, far = await pair(world)
        sent = 0

        async def pour() -> None:
            nonlocal sent
            for _ in range(1000):
                await near.send(b'x' * 65536)
                sent += 65536

        pouring = asyncio.ensure_future(pour())
        await asyncio.sleep(60)
        stuck_at, got = sent, 0
        while got < 1000 * 65536:
            got += len(await far.receive())
        await pouring
        return stuck_at, got

    stuck_at, got = simulate(main)
    assert stuck_at < 4 * READ_BUFFER_BYTES
    assert got == 1000 * 65536


def test_a_tunnel_passes_everything_and_ends_with_either_side() -> None:
    async def main(world: World) -> tuple[bytes, bytes]:
        client, a = await pair(world, 'proxy', 'client')
        b, server = await pair(world, 'backend', 'proxy')
        tunnel = asyncio.ensure_future(join(a, b))
        await client.send(b'hello')
        assert await server.receive() == b'hello'
        await server.send(b'y' * 1_000_000)
        server.close()
        found = b''
        while data := await client.receive():
            found += data
        await tunnel
        with pytest.raises(ConnectionResetError):
            await a.send(b'more')
        return found[:1], bytes([len(found) == 1_000_000])

    assert simulate(main) == (b'y', b'\1')


def answered(*parts: bytes) -> Any:
    """What `dial` makes of an answer that arrives in these parts."""

    async def main(world: World) -> Any:
        made: list[Duplex] = []

        def accept() -> Duplex:
            made.append(Duplex())
            return made[-1]

        await world.host('s').env.net.listen(accept, 's', PORT)
        dialling = asyncio.ensure_future(
            dial(world.host('c').env.net, Address('s', PORT), ('POST', '/exec'), [('Upgrade', 'x')])
        )
        while not made:
            await asyncio.sleep(0.001)
        assert await made[0].receive() == b'POST /exec HTTP/1.1\r\nUpgrade: x\r\n\r\n'
        for part in parts:
            await made[0].send(part)
            await asyncio.sleep(1)
        made[0].close()
        answer = await dialling
        return answer.status, answer.headers.getall('X-Many', []), await answer.body(100)

    return simulate(main)


def test_bytes_right_behind_the_answer_are_not_lost() -> None:
    assert answered(SWITCH + b'first') == (101, ['a', 'b'], b'first')


def test_an_answer_may_come_in_pieces() -> None:
    assert answered(*(SWITCH[i : i + 7] for i in range(0, len(SWITCH), 7)), b'late') == (101, ['a', 'b'], b'late')


@pytest.mark.parametrize(('raw', 'found'), [
    (b'', (b'', False)), (b'3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n', (b'abcde', True)),
    (b'5\r\nab', (b'ab', False)), (b'nonsense\r\nab', (b'', True)), (b'-1\r\nab', (b'', True)),
])  # fmt: skip
def test_chunks_are_put_together(raw: bytes, found: tuple[bytes, bool]) -> None:
    assert unchunked(raw) == found


def test_the_text_of_a_chunked_refusal_is_read() -> None:
    refusal = b'HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngone\r\n0\r\n\r\n'
    assert answered(refusal)[2] == b'gone'


def test_the_text_of_a_refusal_is_read() -> None:
    refusal = b'HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone and more'
    assert answered(refusal) == (404, [], b'gone')


@pytest.mark.parametrize('nonsense', [b'', b'SSH-2.0-x\r\n\r\n', b'HTTP/1.1 101'])
def test_nonsense_instead_of_an_answer_is_an_error(nonsense: bytes) -> None:
    with pytest.raises(UpgradeError):
        answered(nonsense)
