"""The simulated world: time, order, disk and network, each with the faults it is there for."""

from __future__ import annotations

import asyncio
import errno
import random
from pathlib import Path

import pytest

from kcore.env import AppendFile, Env
from kcore.sim import Deadlock, World
from kcore.sim.disk import SimDisk


async def _sleepers(log: list[int], n: int) -> None:
    async def one(i: int) -> None:
        await asyncio.sleep(1)
        log.append(i)

    await asyncio.gather(*(one(i) for i in range(n)))


def test_hours_pass_at_once() -> None:
    world = World(1)
    world.run(asyncio.sleep(7200))
    assert world.clock.monotonic() >= 7200
    assert world.clock.wall().hour == 2


def test_a_seed_fixes_the_interleaving_and_seeds_differ() -> None:
    def order(seed: int) -> tuple[int, ...]:
        log: list[int] = []
        World(seed).run(_sleepers(log, 6))
        return tuple(log)

    assert order(3) == order(3)
    assert len({order(seed) for seed in range(30)}) > 5


def test_callbacks_keep_their_order() -> None:
    """asyncio promises first in, first out for `call_soon`; only tasks are shuffled."""

    async def main() -> list[int]:
        seen: list[int] = []
        for i in range(20):
            asyncio.get_running_loop().call_soon(seen.append, i)
        await asyncio.sleep(0.1)
        return seen

    assert World(5).run(main()) == list(range(20))


def test_waiting_for_nothing_is_a_deadlock() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Deadlock):
        World(1).run(main())


def test_an_env_needs_no_running_loop() -> None:
    env = Env.sim(4)
    assert env.new_uid() == Env.sim(4).new_uid()
    assert env.clock.monotonic() == 0


def crashed(seed: int, preallocate: int = 0) -> tuple[bytes, AppendFile]:
    """What is left of 1500 bytes that were not synced after 600 that were, and the dead handle."""
    disk = SimDisk(random.Random(seed))
    file = disk.open_append(Path('/a'), preallocate=preallocate)
    file.append(b'x' * 600)
    file.sync()
    file.append(b'y' * 1500)
    disk.crash()
    data = disk.read(Path('/a'))
    assert data[:600] == b'x' * 600
    return data[600:], file


def test_a_crash_takes_only_what_was_not_synced() -> None:
    outcomes = set()
    for seed in range(60):
        rest, file = crashed(seed)
        outcomes.add('gone' if not rest else 'torn' if b'\0' in rest else 'whole' if len(rest) == 1500 else 'short')
        with pytest.raises(OSError, match='Bad file descriptor'):
            file.append(b'z')
    assert outcomes == {'gone', 'torn', 'whole', 'short'}


def test_a_crash_leaves_whole_sectors_of_what_was_written_over_zeros() -> None:
    outcomes = set()
    for seed in range(60):
        rest, _ = crashed(seed, preallocate=1 << 20)
        assert rest[1500:].strip(b'\0') == b''
        sectors = [rest[:424], rest[424:936], rest[936:1448], rest[1448:1500]]
        assert all(len(set(s)) <= 1 for s in sectors)
        outcomes.add(tuple(s[:1] == b'y' for s in sectors))
    assert len(outcomes) > 4


def test_a_full_disk_and_a_failing_sync_are_errors() -> None:
    disk = SimDisk(random.Random(1))
    disk.capacity = 10
    file = disk.open_append(Path('/a'))
    file.append(b'0123456789')
    with pytest.raises(OSError, match='No space left') as full:
        file.append(b'!')
    assert full.value.errno == errno.ENOSPC
    disk.sync_error = OSError(errno.EIO, 'bad disk')
    with pytest.raises(OSError, match='bad disk'):
        file.sync()


class Recorder(asyncio.Protocol):
    """Remembers what happened to a connection."""

    def __init__(self) -> None:
        self.data = b''
        self.made = asyncio.Event()
        self.lost: Exception | str | None = 'open'

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.made.set()

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = exc


async def _pair(world: World) -> tuple[Recorder, asyncio.Transport, Recorder]:
    server, client = Recorder(), Recorder()
    listening = await world.host('b').env.net.listen(lambda: server, 'b', 0)
    transport, _ = await world.host('a').env.net.connect(lambda: client, *listening.address)
    return client, transport, server


def test_bytes_arrive_in_order_and_the_end_after_them() -> None:
    world = World(2)

    async def main() -> None:
        _, transport, server = await _pair(world)
        for i in range(100):
            transport.write(b'%d,' % i)
            if i % 10 == 0:
                await asyncio.sleep(0.0003)
        transport.close()
        await asyncio.sleep(1)
        assert server.data == b''.join(b'%d,' % i for i in range(100))
        assert server.lost is None

    world.run(main())


def test_a_cut_holds_bytes_back_until_it_heals_one_way_only_if_so_asked() -> None:
    world = World(2)

    async def main() -> None:
        client, transport, server = await _pair(world)
        world.net.cut('a', 'b', both=False)
        transport.write(b'late')
        peer = next(t for t in world.net._transports if t.local == 'b')
        peer.write(b'passes')
        await asyncio.sleep(5)
        assert (client.data, server.data) == (b'passes', b'')
        world.net.heal()
        await asyncio.sleep(1)
        assert server.data == b'late'

    world.run(main())


def test_a_killed_host_resets_its_connections_and_refuses_new_ones() -> None:
    world = World(2)

    async def main() -> None:
        client, _, _ = await _pair(world)
        world.net.kill('b')
        await asyncio.sleep(1)
        assert isinstance(client.lost, ConnectionResetError)
        with pytest.raises(ConnectionRefusedError, match='b:20000'):
            await world.host('a').env.net.connect(Recorder, 'b', 20_000)

    world.run(main())


def test_there_are_no_processes() -> None:
    async def main() -> None:
        with pytest.raises(FileNotFoundError, match='sh'):
            await Env.sim(1).processes.spawn(['sh'])

    World(1).run(main())


def test_a_paused_host_does_nothing_and_then_everything_in_its_order() -> None:
    world = World(3)
    log: list[tuple[str, float]] = []

    async def ticks(name: str) -> None:
        while True:
            await asyncio.sleep(1)
            log.append((name, world.clock.monotonic()))

    async def main() -> None:
        a, b = world.host('a'), world.host('b')
        running = [a.start(ticks('a')), b.start(ticks('b'))]
        await asyncio.sleep(2.5)
        a.pause()
        assert a.paused
        await asyncio.sleep(10)
        assert [t for n, t in log if n == 'a'] == [1, 2]
        assert len(log) == 14
        a.resume()
        await asyncio.sleep(2)
        assert [round(t, 3) for n, t in log if n == 'a'][2:] == [12.5, 13.5]
        for task in running:
            task.cancel()

    world.run(main())


def test_a_paused_host_keeps_its_connections_and_reads_what_came_meanwhile() -> None:
    world = World(2)

    async def main() -> None:
        done = asyncio.Event()
        received = bytearray()

        class Sink(asyncio.Protocol):
            def data_received(self, data: bytes) -> None:
                received.extend(data)

        async def serve() -> None:
            await world.host('b').env.net.listen(Sink, 'b', 1)
            await done.wait()

        server = world.host('b').start(serve())
        await asyncio.sleep(0.1)
        world.host('b').pause()
        await asyncio.sleep(0)
        transport, _ = await world.host('a').env.net.connect(asyncio.Protocol, 'b', 1)
        transport.write(b'hello')
        await asyncio.sleep(5)
        assert not received
        world.host('b').resume()
        await asyncio.sleep(1)
        assert received == b'hello'
        done.set()
        await server

    world.run(main())


def test_what_a_callback_raises_fails_the_run() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 // 0)
        await asyncio.sleep(1)

    with pytest.raises(ZeroDivisionError):
        World(1).run(main())


def test_sending_to_an_end_that_is_gone_resets_the_connection() -> None:
    world = World(2)

    async def main() -> None:
        client, transport, _ = await _pair(world)
        world.net.cut('a', 'b')
        world.net.kill('b')
        await asyncio.sleep(1)
        world.net.heal()
        assert client.lost == 'open'
        transport.write(b'anybody there?')
        await asyncio.sleep(1)
        assert isinstance(client.lost, ConnectionResetError)

    world.run(main())


def test_timers_go_off_after_years_too():
    world = World(1)

    async def main() -> list[float]:
        clock, seen = asyncio.get_running_loop().time, []
        for days in (1, 100, 1000, 10_000):
            await asyncio.sleep(days * 86400.0 - clock())
            await asyncio.sleep(0.1)
            seen.append(round(clock() / 86400))
        return seen

    assert world.run(main()) == [1, 100, 1000, 10_000]
