"""What leaves on the connections of a member, and in how many writes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kcore.env import Env
from kstore.config import StoreConfig
from kstore.connection import Connection
from kstore.engine.layers import Engine
from kstore.engine.memory import MemoryBackend
from kstore.member import Member
from kstore.model import NO_END
from kstore.mvcc.watch import Scope
from kstore.wire import FrameReader, Stream, pack, success, unpack


class Pipe(asyncio.Transport):
    """Adds what was written, as frames, to a log that it shares with others."""

    def __init__(self, name: str, log: list[tuple[str, list[Any]]]) -> None:
        super().__init__()
        self._name, self._log = name, log

    def write(self, data: Any) -> None:
        self._log.append((self._name, [unpack(payload) for payload in FrameReader().feed(bytes(data))]))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return False


@pytest.fixture
async def member(env: Env, tmp_path: Path) -> Member:
    return Member(StoreConfig(data_dir=tmp_path), env, Engine(MemoryBackend()))


def connect(member: Member, name: str, log: list[tuple[str, list[Any]]]) -> Connection:
    connection = member.connection()
    connection.connection_made(Pipe(name, log))
    return connection


async def test_an_answer_leaves_before_events_are_made_but_with_them_where_both_are_awaited(member: Member):
    log: list[tuple[str, list[Any]]] = []
    watching, asking = connect(member, 'watching', log), connect(member, 'asking', log)
    watching.watch(1, Scope(b'/', NO_END, 0), 0)
    watching.watches.pump()
    member.outbox.flush()
    log.clear()
    change = member.store.put(b'/a', b'1', 0, 2, 0)
    watching.answer(7, success(pack('done')))
    asking.answer(8, success(pack('done')))
    member._changed([change], 2)
    (first, (answer,)), (second, (also, event)) = log
    assert (first, answer) == ('asking', [8, 0, 'done'])
    assert (second, also) == ('watching', [7, 0, 'done'])
    assert event[:2] == [0, Stream.FEED]
