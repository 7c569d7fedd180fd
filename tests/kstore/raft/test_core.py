"""Corner cases of the core that no scenario shows."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kstore.raft.core import RaftConfig, RaftCore, Stored
from kstore.raft.errors import LogCorrupt, NotLeader
from kstore.raft.messages import ConfState, Entry, HardState, Message, MessageType, SnapshotMeta

CONF = ConfState((1, 2, 3))


def core(entries: int = 10, offset: int = 0, applied: int = 8) -> RaftCore:
    log = [Entry(1, i, 0, b'%d' % i) for i in range(offset + 1, entries + 1)]
    stored = Stored(HardState(1, 0, applied), SnapshotMeta(offset, 1 if offset else 0, CONF), log, applied)
    return RaftCore(RaftConfig(1), stored, random.Random(1))


def test_a_late_snapshot_does_not_replace_a_longer_log() -> None:
    c = core(offset=6)
    c.step(Message(MessageType.SNAPSHOT, 1, 2, 1, snapshot=SnapshotMeta(4, 1, CONF)))
    rd = c.ready()
    assert rd is not None
    assert rd.snapshot is None
    assert rd.send_durable[0].index == 8
    assert (c.log.offset, c.log.last) == (6, 10)


def test_a_snapshot_that_the_log_proves_only_moves_the_commit() -> None:
    c = core()
    c.step(Message(MessageType.SNAPSHOT, 1, 2, 1, snapshot=SnapshotMeta(9, 1, CONF)))
    assert (c.log.committed, c.log.last) == (9, 10)


def test_a_heartbeat_beyond_the_log_means_that_entries_were_lost() -> None:
    with pytest.raises(LogCorrupt, match='add it anew'):
        core().step(Message(MessageType.HEARTBEAT, 1, 2, 1, commit=11))


def test_a_hole_in_the_stored_log_is_refused() -> None:
    log = [Entry(1, 1, 0, b''), Entry(1, 3, 0, b'')]
    with pytest.raises(LogCorrupt, match='entry 2 is missing'):
        RaftCore(RaftConfig(1), Stored(HardState(1, 0, 0), SnapshotMeta(0, 0, CONF), log), random.Random(1))


@pytest.mark.parametrize(('conf', 'at_once'), [(ConfState((1,), (), (2,)), True), (ConfState((1, 2)), False),
                                               (ConfState((1,), (1, 2)), False), (ConfState((2,)), False)])  # fmt: skip
def test_who_is_the_only_voter_waits_for_no_one(conf: ConfState, at_once: bool) -> None:
    c = RaftCore(RaftConfig(1), Stored(HardState(1, 0, 0), SnapshotMeta(0, 0, conf), []), random.Random(1))
    c.tick()
    assert (c.term > 1) == at_once


def test_nobody_proposes_or_reads_without_a_leader() -> None:
    c = core()
    with pytest.raises(NotLeader, match='no leader is known'):
        c.propose(b'x')
    with pytest.raises(NotLeader):
        c.read_index(b'x')


def test_a_configuration_that_would_flap_is_refused() -> None:
    with pytest.raises(ValueError, match='three times heartbeat_ticks'):
        RaftConfig(1, election_ticks=5, heartbeat_ticks=2)
    with pytest.raises(ValueError, match='numbered from 1'):
        RaftConfig(0)


NOISE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.binary(max_size=4) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=13).map(tuple),
    max_leaves=30,
)


@given(st.lists(NOISE, max_size=14).map(tuple) | NOISE)
def test_anything_from_the_wire_is_a_message_or_a_value_error(raw: object) -> None:
    try:
        Message.from_wire(raw)  # type: ignore[arg-type]
    except ValueError:
        return


@given(st.integers(0, 20), st.integers(0, 12), st.integers(0, 3), st.integers(0, 12), st.booleans())
def test_odd_numbers_in_a_sound_message_never_crash_a_follower(
    kind: int, index: int, term: int, hint: int, reject: bool
) -> None:
    c = core()
    c.step(Message(kind, 1, 2, term, index, term, 0, reject, hint))
    while c.ready() is not None:
        c.advance()


@pytest.mark.parametrize(('conf', 'busy'), [(ConfState((1,)), 10), (ConfState((1,), (), (2,)), 60)])
def test_a_leader_without_followers_lets_time_pass(conf: ConfState, busy: int) -> None:
    c = RaftCore(RaftConfig(1), Stored(HardState(1, 0, 0), SnapshotMeta(0, 0, conf), []), random.Random(1))
    c.tick()
    settle(c)
    assert c.leading is not None
    seen = 0
    for _ in range(120):
        c.tick()
        seen += not c.settled
        settle(c)
    assert seen == busy, 'once an election, and at each heartbeat where there is somebody to hear it'


@pytest.mark.parametrize(('conf', 'slack'), [(ConfState((1,)), 9), (ConfState((1,), (), (2,)), 1)])
def test_only_a_leader_without_followers_may_be_told_the_time_late(conf: ConfState, slack: int) -> None:
    c = RaftCore(RaftConfig(1), Stored(HardState(1, 0, 0), SnapshotMeta(0, 0, conf), []), random.Random(1))
    assert c.slack == 1, 'it does not lead yet'
    c.tick()
    settle(c)
    for _ in range(3):
        c.tick()
    assert c.slack == slack
    for _ in range(20):
        c.tick()
        assert 1 <= c.slack <= 12


def settle(c: RaftCore) -> None:
    while c.ready() is not None:
        c.advance()
