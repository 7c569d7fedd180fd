"""What a majority has agreed on: vote and commit arithmetic for plain and joint memberships.

In joint consensus (thesis §4.3) the old and the new majority must both agree, so every answer here is the weaker of
the two halves. An empty half agrees to everything, which makes "not joint" need no special case.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from enum import Enum

from kstore.raft.messages import ConfState

EVERYTHING = sys.maxsize
"""What an empty half has agreed to."""


class Vote(Enum):
    """The outcome of an election so far."""

    PENDING = 'pending'
    WON = 'won'
    LOST = 'lost'


def agreed(conf: ConfState, value: Callable[[int], int]) -> int:
    """The largest number that a quorum of `conf` has reached or passed, where `value(id)` is what one member reached.

    With match indices this is the commit index; with acknowledged read rounds, the newest confirmed round.
    """
    reached = _agreed_by_half(conf.voters, value)
    return min(reached, _agreed_by_half(conf.outgoing, value)) if conf.outgoing else reached


def _agreed_by_half(voters: Sequence[int], value: Callable[[int], int]) -> int:
    if not voters:
        return EVERYTHING
    ordered = sorted(map(value, voters))
    return ordered[(len(ordered) - 1) // 2]


def vote_result(conf: ConfState, votes: Mapping[int, bool]) -> Vote:
    """`votes` holds the answers that arrived; whoever is missing may still answer either way."""
    halves = (_vote_of_half(conf.voters, votes), _vote_of_half(conf.outgoing, votes))
    if Vote.LOST in halves:
        return Vote.LOST
    return Vote.PENDING if Vote.PENDING in halves else Vote.WON


def _vote_of_half(voters: Sequence[int], votes: Mapping[int, bool]) -> Vote:
    if not voters:
        return Vote.WON
    needed = len(voters) // 2 + 1
    granted = sum(1 for v in voters if votes.get(v) is True)
    refused = sum(1 for v in voters if votes.get(v) is False)
    if granted >= needed:
        return Vote.WON
    return Vote.PENDING if granted + (len(voters) - granted - refused) >= needed else Vote.LOST


def has_quorum(conf: ConfState, present: Callable[[int], bool]) -> bool:
    """Whether those for whom `present` holds are a quorum."""
    return vote_result(conf, {i: present(i) for i in {*conf.voters, *conf.outgoing}}) is Vote.WON
