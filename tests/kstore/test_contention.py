"""Swaps of one key take turns: who is answered when, and who never without a read round."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from kstore.contention import LET_GO_SHARE, Contention
from kstore.errors import NoLeader, StoreError
from kstore.proposals import Ticket
from kstore.wire import Op

KEY = b'/k'
LOST = b'lost'


class Leader:
    """State machine and proposals in one: a swap's body is the revision that it wants."""

    def __init__(self) -> None:
        self.revision = 0
        self.proposed: list[tuple[Ticket, Callable[[], None]]] = []
        self.rounds: list[Callable[[StoreError | None], None]] = []
        self.lost: list[Ticket] = []
        self.again: list[Ticket] = []
        self.drops = False

    def refusal(self, body: bytes) -> bytes | None:
        return None if int(body) == self.revision else LOST

    def propose(self, ticket: Ticket, after: Callable[[], None] = lambda: None) -> None:
        if self.drops:
            self.again.append(ticket)
            after()
        else:
            self.proposed.append((ticket, after))

    def read(self, ready: Callable[[StoreError | None], None]) -> None:
        self.rounds.append(ready)

    def finish(self, ticket: Ticket, result: bytes) -> None:
        assert result == LOST
        self.lost.append(ticket)

    def retry(self, ticket: Ticket, *, uncertain: bool) -> None:
        assert not uncertain
        self.again.append(ticket)

    def apply(self) -> None:
        """The oldest swap under way wins."""
        ticket, after = self.proposed.pop(0)
        assert int(ticket.body) == self.revision
        self.revision += 1
        after()

    def prove(self, error: StoreError | None = None) -> None:
        """All read rounds that were asked for are over."""
        rounds, self.rounds = self.rounds, []
        for ready in rounds:
            ready(error)


def ticket(revision: int) -> Ticket:
    return Ticket(Op.WRITE, b'%d' % revision, lambda _: None, 0.0, KEY)


@pytest.fixture
async def leader() -> Leader:
    return Leader()


@pytest.fixture
async def line(leader: Leader) -> Contention:
    return Contention(leader, leader)  # type: ignore[arg-type]


async def test_losers_come_back_one_at_a_time_and_each_of_them_wins(leader: Leader, line: Contention):
    tickets = [ticket(0) for _ in range(8)]
    for t in tickets:
        line.submit(t)
    assert [t for t, _ in leader.proposed] == tickets[:1]
    leader.prove()
    leader.prove()  # of those who came while the first round was under way
    for n in range(1, 8):
        leader.apply()
        assert leader.lost == tickets[1 : n + 1], 'in order of arrival'
        line.submit(ticket(leader.revision))
        assert len(leader.proposed) == 1
    leader.apply()
    assert leader.revision == 9 - 1
    assert not leader.rounds


async def test_nobody_waits_long_for_one_that_does_not_come_back(leader: Leader, line: Contention):
    tickets = [ticket(0) for _ in range(20 * LET_GO_SHARE)]
    for t in tickets:
        line.submit(t)
    leader.prove()
    leader.prove()
    leader.apply()
    assert 1 < len(leader.lost) < len(tickets) / 4, 'a long line moves faster'
    async with asyncio.timeout(10):
        while len(leader.lost) < len(tickets) - 1:
            await asyncio.sleep(0.001)
    assert leader.lost == tickets[1:]


async def test_a_loser_is_told_only_after_a_read_round_that_began_after_it_came(leader: Leader, line: Contention):
    first, second, third = (ticket(0) for _ in range(3))
    line.submit(first)
    line.submit(second)
    line.submit(third)
    assert len(leader.rounds) == 1, 'it began with the second, before the third had come'
    leader.apply()
    assert leader.lost == []
    leader.prove()
    assert leader.lost == [second]
    await asyncio.sleep(0.01)
    assert leader.lost == [second], 'the third waits for its own round'
    leader.prove()
    assert leader.lost == [second, third]


async def test_without_a_leader_all_who_wait_are_tried_again(leader: Leader, line: Contention):
    tickets = [ticket(0) for _ in range(5)]
    for t in tickets:
        line.submit(t)
    leader.prove(NoLeader('nobody leads'))
    assert leader.again == tickets[1:]
    leader.apply()
    assert leader.lost == []


async def test_proposals_that_come_to_nothing_at_once_do_not_pile_up(leader: Leader, line: Contention):
    tickets = [ticket(0) for _ in range(3000)]
    for t in tickets:
        line.submit(t)
    leader.prove()
    leader.prove()
    leader.drops = True
    leader.proposed.pop()[1]()  # its fate: dropped
    assert leader.again == tickets[1:]
    leader.drops = False
    line.submit(ticket(0))
    assert len(leader.proposed) == 1


async def test_keys_do_not_wait_for_each_other(leader: Leader, line: Contention):
    line.submit(ticket(0))
    other = ticket(0)
    other.guard = b'/other'
    line.submit(other)
    assert len(leader.proposed) == 2
