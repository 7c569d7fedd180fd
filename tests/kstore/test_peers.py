"""What leaves on a link to a peer, and when."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kcore.env import Env
from kstore.peers import NEWS_S, PeerLink, Peers
from kstore.raft.messages import Entry, Message, MessageType
from kstore.wire import FrameReader, Hello, Peer, Role, unpack

HELLO = Hello(Role.PEER, 1, 1)


class Pipe(asyncio.Transport):
    """What was written, frame by frame."""

    def __init__(self) -> None:
        super().__init__()
        self._reader = FrameReader()
        self.frames: list[Any] = []

    def write(self, data: Any) -> None:
        self.frames += map(unpack, self._reader.feed(bytes(data)))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0


def append(commit: int, *entries: Entry, index: int = 4, term: int = 1) -> Message:
    return Message(MessageType.APPEND, 2, 1, term, index=index, log_term=1, commit=commit, entries=entries)


@pytest.fixture
async def pipe() -> Pipe:
    return Pipe()


@pytest.fixture
async def peers(env: Env, pipe: Pipe) -> Peers:
    """With a link to member 2."""
    link = PeerLink(HELLO, 2)
    link.connection_made(pipe)
    pipe.frames.clear()
    found = Peers(HELLO, {}, env)
    found._links[2] = link
    return found


def sent(pipe: Pipe) -> list[Message]:
    found = []
    for kind, items in pipe.frames:
        assert kind == Peer.RAFT
        found += map(Message.from_wire, items)
    return found


async def test_entries_leave_at_once(peers: Peers, pipe: Pipe):
    message = append(4, Entry(1, 5, 0, b'x'))
    peers.send([message])
    assert sent(pipe) == [message]


async def test_news_of_a_commit_travel_with_the_next_append(peers: Peers, pipe: Pipe):
    peers.send([append(4)])
    await asyncio.sleep(0)
    assert sent(pipe) == []
    message = append(4, Entry(1, 5, 0, b'x'))
    peers.send([message])
    assert sent(pipe) == [message], 'it says the same'
    await asyncio.sleep(3 * NEWS_S)
    assert sent(pipe) == [message]


async def test_news_of_a_commit_do_not_wait_for_ever(peers: Peers, pipe: Pipe):
    peers.send([append(4)])
    async with asyncio.timeout(5):
        while not pipe.frames:
            await asyncio.sleep(0.001)
    assert sent(pipe) == [append(4)]


@pytest.mark.parametrize('other', [append(5, Entry(1, 6, 0, b'x'), index=5), append(4, Entry(2, 5, 0, b'x'), term=2)])
async def test_news_of_another_place_or_term_are_not_lost(peers: Peers, pipe: Pipe, other: Message):
    peers.send([append(4)])
    peers.send([other])
    assert sent(pipe) == [append(4), other]
