"""Snapshots on their way from a leader to a follower that fell behind the log.

The sender streams the state machine's own chunks, numbered, a few at a time; the receiver answers with the number it
wants next, so a lost chunk or answer is simply sent again from there. Received chunks are kept as files beside the log:
`<index>-<n>.chunk` (CRC-32 and bytes), and, when all are there, `<index>.meta`. The files stay until state machine and
log both stand on the snapshot, so that a crash in the middle can finish the work from them.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgpack
import structlog

from kcore.env import Disk
from kstore.raft.messages import Message, MessageType, SnapshotMeta

log = structlog.get_logger('kstore.snapshot')

WINDOW = 4
"""Chunks sent and not yet asked beyond; a receiver drops what comes out of order."""
CHUNKS_MAX = 1 << 20
"""Chunks of one snapshot; the sender gives up and the receiver takes no more (half a terabyte at the usual size)."""
CHUNK_BYTES_MAX = 1 << 20
"""A larger chunk is none of ours and is not stored."""
ANSWER_S = 1.0
"""Silence after which the window is sent again."""
TRIES = 10
"""Silences in a row after which the stream is given up; the leader probes the follower again later."""
_CRC_BYTES = 4


class SnapshotFiles:
    """The snapshot directory of one member. All methods block."""

    def __init__(self, directory: Path, disk: Disk) -> None:
        self._directory = directory
        self._disk = disk

    def clear(self) -> None:
        """Remove everything, the completed marker first."""
        for name in sorted(self._disk.listdir(self._directory), key=lambda n: not n.endswith('.meta')):
            self._disk.remove(self._directory / name)

    def put(self, index: int, n: int, chunk: bytes) -> None:
        """Store chunk `n` durably."""
        self._disk.mkdir(self._directory)
        self._disk.replace(self._chunk(index, n), zlib.crc32(chunk).to_bytes(_CRC_BYTES, 'big') + chunk)

    def complete(self, meta: SnapshotMeta, chunks: int) -> None:
        """All `chunks` are stored."""
        body = msgpack.packb((meta, chunks))
        self._disk.replace(self._meta(meta.index), zlib.crc32(body).to_bytes(_CRC_BYTES, 'big') + body)

    def completed(self) -> tuple[SnapshotMeta, int] | None:
        """The newest complete snapshot and its number of chunks. Raises ValueError when it is damaged."""
        names = [n for n in self._disk.listdir(self._directory) if n.endswith('.meta')]
        if not names:
            return None
        body = self._checked(self._directory / names[-1])
        try:
            meta, chunks = msgpack.unpackb(body, use_list=False)
            return SnapshotMeta.from_wire(meta), int(chunks)
        except (TypeError, msgpack.exceptions.UnpackException) as e:
            raise ValueError(f'{names[-1]}: {e}') from None

    async def chunks(self, meta: SnapshotMeta, count: int) -> AsyncIterator[bytes]:
        """The stored chunks in order. Raises ValueError when one is damaged."""
        for n in range(count):
            yield await self._disk.offload(self._checked, self._chunk(meta.index, n))

    def _checked(self, path: Path) -> bytes:
        try:
            data = self._disk.read(path)
        except FileNotFoundError:
            raise ValueError(f'{path} is missing; remove the files in {path.parent} and start again') from None
        if zlib.crc32(data[_CRC_BYTES:]).to_bytes(_CRC_BYTES, 'big') != data[:_CRC_BYTES]:
            raise ValueError(f'{path}: checksum mismatch; remove the files in {path.parent} and start again')
        return data[_CRC_BYTES:]

    def _chunk(self, index: int, n: int) -> Path:
        return self._directory / f'{index:020d}-{n:08d}.chunk'

    def _meta(self, index: int) -> Path:
        return self._directory / f'{index:020d}.meta'


class Receiver:
    """Takes numbered chunks in, answers with the next number wanted. One stream at a time; a newer one replaces it."""

    def __init__(self, files: SnapshotFiles, disk: Disk) -> None:
        self._files = files
        self._disk = disk
        self._stream: tuple[int, int, SnapshotMeta] | None = None
        self._next = 0
        self._done = False

    async def take(self, m: Message) -> tuple[Message, bool]:
        """Store one chunk. Returns the answer, and whether the snapshot became complete by it. Raises OSError."""
        assert m.snapshot is not None
        stream = (m.frm, m.term, m.snapshot)
        if stream != self._stream and m.index == 0:
            await self._disk.offload(self._files.clear)
            self._stream, self._next, self._done = stream, 0, False
        became_complete = False
        sound = m.index < CHUNKS_MAX and len(m.context) <= CHUNK_BYTES_MAX
        if sound and stream == self._stream and m.index == self._next and not self._done:
            await self._disk.offload(self._files.put, m.snapshot.index, m.index, m.context)
            self._next += 1
            if m.hint:
                await self._disk.offload(self._files.complete, m.snapshot, self._next)
                self._done = became_complete = True
        wanted = self._next if stream == self._stream else 0
        answer = Message(MessageType.SNAPSHOT_RESP, m.frm, m.to, m.term, index=wanted, snapshot=m.snapshot)
        return answer, became_complete

    def reset(self) -> None:
        """The snapshot was taken over or refused."""
        self._stream = None


class Sender:
    """One stream to one follower."""

    def __init__(self, first: Message, meta: SnapshotMeta, send: Callable[[list[Message]], None]) -> None:
        """first: the core's SNAPSHOT message, addressed to the follower."""
        self._first = first
        self._meta = meta
        self._send = send
        self._window: deque[Message] = deque()
        self._wanted = 0
        self._answered = asyncio.Event()

    def answer(self, m: Message) -> None:
        """A SNAPSHOT_RESP arrived."""
        if m.snapshot == self._meta and m.index > self._wanted:
            self._wanted = m.index
            self._answered.set()

    async def run(self, chunks: AsyncIterator[bytes]) -> bool:
        """Returns whether the follower has everything."""
        silences, sent, ended = 0, 0, False
        ahead = await anext(chunks, b'')
        while not (ended and self._wanted >= sent):
            while not ended and len(self._window) < WINDOW:
                if sent >= CHUNKS_MAX:
                    log.error('snapshot too long', chunks=sent, index=self._meta.index)
                    return False
                following = await anext(chunks, None)
                ended = following is None
                m = self._first._replace(index=sent, context=ahead, snapshot=self._meta, hint=int(ended))
                self._window.append(m)
                self._send([m])
                sent += 1
                ahead = following or b''
            try:
                async with asyncio.timeout(ANSWER_S):
                    await self._answered.wait()
                silences = 0
            except TimeoutError:
                silences += 1
                if silences >= TRIES:
                    return False
                self._send(list(self._window))
            self._answered.clear()
            while self._window and self._window[0].index < self._wanted:
                self._window.popleft()
        return True
