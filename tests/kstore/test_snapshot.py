"""Snapshots on their way: what the receiver stores, refuses and survives."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kcore.sim import SimDisk, World
from kstore import snapshot
from kstore.raft.messages import ConfState, Message, MessageType, SnapshotMeta
from kstore.snapshot import Receiver, Sender, SnapshotFiles

META = SnapshotMeta(7, 2, ConfState((1, 2, 3)))
DIRECTORY = Path('/snap')


def chunk(n: int, data: bytes, *, last: bool = False, meta: SnapshotMeta = META, term: int = 2) -> Message:
    return Message(MessageType.SNAPSHOT, 2, 1, term, index=n, context=data, snapshot=meta, hint=int(last))


def receiver() -> tuple[Receiver, SnapshotFiles, SimDisk]:
    disk = SimDisk(random.Random(1))
    files = SnapshotFiles(DIRECTORY, disk)
    return Receiver(files, disk), files, disk


async def stored(files: SnapshotFiles) -> bytes:
    complete = files.completed()
    assert complete is not None
    return b''.join([c async for c in files.chunks(*complete)])


def test_chunks_that_come_twice_late_or_out_of_order_make_one_snapshot() -> None:
    take, files, _ = receiver()

    async def main() -> None:
        wanted = []
        for n, data in ((1, b'b'), (0, b'a'), (0, b'a'), (2, b'c'), (1, b'b'), (0, b'a'), (2, b'c')):
            answer, complete = await take.take(chunk(n, data, last=n == 2))
            wanted.append(answer.index)
            assert complete == (len(wanted) == 7)
        assert wanted == [0, 1, 1, 1, 2, 2, 3]
        assert await stored(files) == b'abc'

    World(1).run(main())


def test_a_newer_stream_replaces_an_unfinished_one() -> None:
    take, files, _ = receiver()
    newer = META._replace(index=9)

    async def main() -> None:
        await take.take(chunk(0, b'old'))
        await take.take(chunk(0, b'new', last=True, meta=newer, term=3))
        assert await stored(files) == b'new'
        answer, _ = await take.take(chunk(1, b'old'))
        assert answer.index == 0

    World(1).run(main())


def test_an_oversized_chunk_and_a_snapshot_without_end_are_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, 'CHUNKS_MAX', 2)
    monkeypatch.setattr(snapshot, 'CHUNK_BYTES_MAX', 10)
    take, _, disk = receiver()

    async def main() -> None:
        answers = [(await take.take(chunk(n, data)))[0].index for n, data in ((0, b'x' * 11), (0, b'a'), (1, b'b'))]
        assert answers == [0, 1, 2]
        assert (await take.take(chunk(2, b'c', last=True)))[0].index == 2
        assert len(disk.listdir(DIRECTORY)) == 2

    World(1).run(main())


def test_a_sender_gives_up_on_a_snapshot_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, 'CHUNKS_MAX', 5)
    sent: list[Message] = []

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b'x'

    async def main() -> None:
        sender = Sender(chunk(0, b''), META, sent.extend)

        def answered(messages: list[Message]) -> None:
            sent.extend(messages)
            loop = asyncio.get_running_loop()
            loop.call_soon(sender.answer, chunk(messages[-1].index + 1, b''))

        sender = Sender(chunk(0, b''), META, answered)
        assert not await sender.run(endless())
        assert len(sent) == 5

    World(1).run(main())


def test_a_crash_in_any_step_leaves_a_whole_snapshot_or_none() -> None:
    for steps in range(4):
        take, files, disk = receiver()

        async def main(take: Receiver = take, steps: int = steps) -> None:
            for n in range(steps):
                await take.take(chunk(n, b'%d' % n, last=n == 2))

        World(1).run(main())
        disk.crash()
        assert (files.completed() is not None) == (steps == 3)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(['00000000000000000007.meta', '00000000000000000007-00000000.chunk']))
def test_arbitrary_bytes_in_the_files_are_refused(noise: bytes, name: str) -> None:
    take, files, disk = receiver()

    async def main() -> None:
        await take.take(chunk(0, b'data', last=True))
        whole = disk.read(DIRECTORY / name)
        disk.replace(DIRECTORY / name, noise)
        try:
            assert await stored(files) == b'data'
            assert noise == whole
        except ValueError:
            assert noise != whole

    World(1).run(main())


def test_a_missing_chunk_says_which_and_what_to_do() -> None:
    take, files, disk = receiver()

    async def main() -> None:
        await take.take(chunk(0, b'data', last=True))
        disk.remove(DIRECTORY / '00000000000000000007-00000000.chunk')
        with pytest.raises(ValueError, match=r'-00000000\.chunk is missing; remove the files in'):
            await stored(files)

    World(1).run(main())
