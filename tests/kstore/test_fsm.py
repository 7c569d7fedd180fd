"""The state machine: deterministic, exactly once, restartable at any flush, movable as a snapshot."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kstore import session
from kstore.engine.layers import Engine, Table
from kstore.engine.memory import Image, MemoryBackend
from kstore.errors import BadRequest, LeaseExists, LeaseNotFound, SessionExpired, Stopped, TooLarge
from kstore.fsm import Command, StoreFsm, encode
from kstore.model import RangeQuery
from kstore.raft.messages import ConfState, Entry, EntryKind, SnapshotMeta
from kstore.wire import frame, pack, split_result


class Machine:
    """A state machine and the index it is fed at."""

    def __init__(self, image: Image | None = None) -> None:
        self.image = image or Image()
        self.fsm = StoreFsm(Engine(MemoryBackend(self.image)))

    def do(self, *command: Any, client: int = 0, sequence: int = 1, acked: int = 0, retry: bool = False) -> Any:
        return self.raw(encode(client, sequence, acked, retry, *command))

    def raw(self, data: bytes, kind: int = EntryKind.NORMAL) -> Any:
        (result,) = self.fsm.apply([Entry(1, self.fsm.applied_index + 1, kind, data)])
        self.fsm.publish()
        return None if result is None else split_result(result)

    def state(self) -> list[tuple[int, bytes, bytes]]:
        self.fsm._save()
        scan = self.fsm.engine.scan
        return [(t, k, v) for t in Table if t is not Table.META for k, v in scan(t)]


commands = st.lists(
    st.one_of(
        st.tuples(
            st.just(Command.PUT), st.sampled_from([b'a', b'b', b'c']), st.binary(max_size=4), st.sampled_from([0, 7, 8])
        ),
        st.tuples(st.just(Command.DELETE), st.sampled_from([b'a', b'b']), st.sampled_from([None, b'c'])),
        st.tuples(st.just(Command.GRANT), st.sampled_from([7, 8]), st.integers(0, 99)),
        st.tuples(st.just(Command.REVOKE), st.sampled_from([7, 8])),
        st.tuples(st.just(Command.EXPIRE), st.just([7, 8, 9])),
        st.tuples(st.just(Command.COMPACT), st.integers(0, 20)),
    ),
    max_size=25,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(commands, st.integers(0, 25))
async def test_a_restart_at_any_point_and_a_snapshot_give_the_same_state(history: list[tuple[Any, ...]], flush_at: int):
    steady, crashed = Machine(), Machine()
    for n, command in enumerate(history, 1):
        data = encode(5, n, 0, False, *command)
        assert steady.raw(data) == crashed.raw(data)
        if n == flush_at:
            await crashed.fsm.flush()
    revived = Machine(crashed.image)
    for n, command in enumerate(history, 1):
        if n > revived.fsm.applied_index:
            revived.raw(encode(5, n, 0, False, *command))
    assert revived.state() == steady.state()
    copy = Machine()
    stream = steady.fsm.snapshot()
    steady.do(Command.PUT, b'later', b'')
    steady.do(Command.DELETE, b'later')
    await copy.fsm.restore(SnapshotMeta(len(history), 1, ConfState((1,))), stream)
    assert copy.state() == revived.state()
    assert copy.fsm.store.revision == revived.fsm.store.revision
    assert copy.fsm.durable_index == len(history)


@given(st.binary(max_size=200))
def test_no_bytes_of_a_command_harm_the_machine(data: bytes):
    machine = Machine()
    machine.raw(data or b'\xc0')
    machine.do(Command.PUT, b'a', b'1')
    assert machine.fsm.store.revision == 2


def test_a_repeated_request_gets_the_first_result_and_changes_nothing():
    machine = Machine()
    first = machine.do(Command.PUT, b'a', b'1', client=9, sequence=1)
    assert machine.do(Command.PUT, b'a', b'1', client=9, sequence=1, retry=True) == first
    assert machine.fsm.store.revision == 2
    failed = machine.do(Command.REVOKE, 5, client=9, sequence=2)
    machine.do(Command.GRANT, 5, 10)
    assert machine.do(Command.REVOKE, 5, client=9, sequence=2, retry=True) == failed


async def test_exactly_once_survives_a_restart():
    machine = Machine()
    first = machine.do(Command.PUT, b'a', b'1', client=9, sequence=1)
    await machine.fsm.flush()
    revived = Machine(machine.image)
    assert revived.do(Command.PUT, b'a', b'1', client=9, sequence=1, retry=True) == first
    assert revived.fsm.store.revision == 2


def test_a_retry_of_a_forgotten_client_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(session, 'SESSIONS_MAX', 2)
    machine = Machine()
    for client in (1, 2, 3):
        machine.do(Command.PUT, b'a', b'', client=client)
    code, _ = machine.do(Command.PUT, b'a', b'', client=1, retry=True)
    assert code == SessionExpired.code
    assert machine.fsm.store.revision == 4


def test_acknowledged_results_are_dropped():
    machine = Machine()
    for n in range(1, 100):
        machine.do(Command.PUT, b'a', b'', client=1, sequence=n, acked=n)
    assert machine.fsm.sessions.size < 100
    code, _ = machine.do(Command.PUT, b'a', b'', client=1, sequence=3, acked=99)
    assert code == SessionExpired.code


def test_leases_end_with_their_keys_in_one_revision():
    machine = Machine()
    heard: list[tuple[int, bytes]] = []
    machine.fsm.on_changes = lambda changes, _: heard.extend((c.revision, c.key) for c in changes)
    assert machine.do(Command.GRANT, 7, 60) == (0, [7, 60])
    assert machine.do(Command.GRANT, 7, 60)[0] == LeaseExists.code
    assert machine.do(Command.GRANT, 8, 1 << 40)[0] == TooLarge.code
    assert machine.do(Command.PUT, b'x', b'', 99)[0] == LeaseNotFound.code
    for key in (b'b', b'a'):
        machine.do(Command.PUT, key, b'', 7)
    assert machine.do(Command.EXPIRE, [7, 1234]) == (0, [4])
    assert heard[2:] == [(4, b'a'), (4, b'b')]
    assert machine.do(Command.REVOKE, 7)[0] == LeaseNotFound.code


def test_entries_without_a_command_only_move_the_index():
    machine = Machine()
    assert machine.raw(b'') is None
    assert machine.raw(b'anything', EntryKind.CONF_CHANGE) is None
    assert machine.fsm.applied_index == 2
    assert machine.do(77)[0] == BadRequest.code


async def test_a_snapshot_is_cut_small_and_any_damage_is_noticed():
    machine = Machine()
    for n in range(4):
        machine.do(Command.PUT, b'big%d' % n, bytes([n]) * 1_500_000)
    pieces = [piece async for piece in machine.fsm.snapshot()]
    assert max(map(len, pieces)) <= 1 << 20

    async def stream(data: list[bytes]) -> AsyncIterator[bytes]:
        for piece in data:
            yield piece

    meta = SnapshotMeta(4, 1, ConfState((1,)))
    copy = Machine()
    await copy.fsm.restore(meta, stream(pieces))
    assert copy.fsm.store.range(RangeQuery(b'big0')).kvs == machine.fsm.store.range(RangeQuery(b'big0')).kvs
    broken = bytearray(pieces[1])
    broken[1000] ^= 1
    for damage in (pieces[:-1], [pieces[0], bytes(broken), *pieces[2:]], [b'junk' * 100], []):
        with pytest.raises(ValueError, match='bad snapshot'):
            await Machine().fsm.restore(meta, stream(damage))
    with pytest.raises(ValueError, match='bad snapshot: it is the state after entry 4, not 5'):
        await Machine().fsm.restore(SnapshotMeta(5, 1, ConfState((1,))), stream(pieces))


async def test_nobody_reads_or_flushes_a_state_that_is_half_replaced():
    machine = Machine()
    for n in range(50):
        machine.do(Command.PUT, b'%02d' % n, b'new')
    machine.fsm.chunk_bytes = 500
    pieces = [piece async for piece in machine.fsm.snapshot()]
    half, go_on = asyncio.Event(), asyncio.Event()

    async def stream() -> AsyncIterator[bytes]:
        for n, piece in enumerate(pieces):
            if n == len(pieces) // 2:
                half.set()
                await go_on.wait()
            yield piece

    behind = Machine()
    behind.do(Command.PUT, b'00', b'old')
    restored = asyncio.create_task(behind.fsm.restore(SnapshotMeta(50, 1, ConfState((1,))), stream()))
    await half.wait()
    for ask in (lambda: behind.fsm.store.range(RangeQuery(b'00')), behind.fsm.snapshot):
        with pytest.raises(Stopped, match='taking over a snapshot'):
            ask()
    flushed = asyncio.create_task(behind.fsm.flush())
    await asyncio.sleep(0)
    assert behind.image.applied == 0
    go_on.set()
    await asyncio.gather(restored, flushed)
    assert (behind.fsm.durable_index, behind.fsm.store.revision) == (50, 51)
    assert behind.state() == machine.state()


async def test_a_snapshot_that_found_no_room_can_be_restored_again():
    machine, behind = Machine(), Machine()
    machine.do(Command.PUT, b'a', b'new')
    pieces = [piece async for piece in machine.fsm.snapshot()]

    async def stream() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    meta = SnapshotMeta(1, 1, ConfState((1,)))
    behind.image.error = OSError(errno.ENOSPC, 'full')
    with pytest.raises(OSError, match='full'):
        await behind.fsm.restore(meta, stream())
    behind.image.error = None
    await behind.fsm.restore(meta, stream())
    assert behind.state() == machine.state()


def _small_snapshot() -> bytes:
    machine = Machine()
    machine.do(Command.GRANT, 7, 60)
    for n in range(3):
        machine.do(Command.PUT, b'/%d' % n, b'value', 7, client=5, sequence=n + 1)

    async def whole() -> bytes:
        return b''.join([piece async for piece in machine.fsm.snapshot()])

    return asyncio.run(whole())


SNAPSHOT = _small_snapshot()


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.integers(0, len(SNAPSHOT) - 1).map(lambda n: SNAPSHOT[:n]),
        st.tuples(st.integers(0, len(SNAPSHOT) - 1), st.integers(1, 255)).map(
            lambda at: SNAPSHOT[: at[0]] + bytes([SNAPSHOT[at[0]] ^ at[1]]) + SNAPSHOT[at[0] + 1 :]
        ),
        st.tuples(st.integers(0, len(SNAPSHOT)), st.binary(min_size=1, max_size=40)).map(
            lambda at: SNAPSHOT[: at[0]] + at[1] + SNAPSHOT[at[0] :]
        ),
    ),
    st.integers(1, 400),
)
@example(SNAPSHOT + b'\0', 400)
@example(SNAPSHOT + frame(pack([int(Table.KEYS), []])), 400)
async def test_whatever_is_no_whole_snapshot_is_refused(data: bytes, step: int):
    async def stream() -> AsyncIterator[bytes]:
        for at in range(0, len(data), step):
            yield data[at : at + step]

    with pytest.raises(ValueError, match='bad snapshot'):
        await Machine().fsm.restore(SnapshotMeta(4, 1, ConfState((1,))), stream())
