"""Vote and commit arithmetic against a reference that enumerates every subset of voters."""

from __future__ import annotations

from itertools import combinations, product

import pytest

from kstore.raft import quorum
from kstore.raft.messages import ConfState
from kstore.raft.quorum import Vote


def majorities(voters: tuple[int, ...]) -> list[set[int]]:
    """Every subset with more than half of the voters; the empty set when there are none."""
    need = len(voters) // 2 + 1 if voters else 0
    return [set(c) for n in range(need, len(voters) + 1) for c in combinations(voters, n)]


def agreed_by_force(conf: ConfState, reached: dict[int, int]) -> int:
    """Largest n such that some majority of each half consists of members that reached n."""

    def half(voters: tuple[int, ...], n: int) -> bool:
        return any(all(reached[i] >= n for i in m) for m in majorities(voters))

    return max(n for n in range(5) if half(conf.voters, n) and half(conf.outgoing, n))


def vote_by_force(conf: ConfState, votes: dict[int, bool]) -> Vote:
    """Won if every way the missing voters may still vote wins; lost if none does."""

    def wins(complete: dict[int, bool]) -> bool:
        return all(any(all(complete[i] for i in m) for m in majorities(half)) for half in (conf.voters, conf.outgoing))

    missing = sorted({*conf.voters, *conf.outgoing} - votes.keys())
    outcomes = {
        wins({**votes, **dict(zip(missing, rest, strict=True))}) for rest in product((True, False), repeat=len(missing))
    }
    return Vote.WON if outcomes == {True} else Vote.LOST if outcomes == {False} else Vote.PENDING


HALVES = [tuple(range(1, n + 1)) for n in range(6)]
JOINT = [
    (tuple(range(1, added + kept + 1)), tuple(range(added + 1, added + kept + removed + 1)))
    for added, kept, removed in product(range(6), repeat=3)
    if added + kept and kept + removed and added + kept + removed <= 5
]
"""Every joint membership of up to five members, but for the names: only how the two halves overlap matters."""


@pytest.mark.parametrize('voters', HALVES[1:])
def test_agreed_index_is_what_some_majority_reached(voters: tuple[int, ...]) -> None:
    conf = ConfState(voters)
    for values in product(range(4), repeat=len(voters)):
        reached = dict(zip(voters, values, strict=True))
        assert quorum.agreed(conf, reached.__getitem__) == agreed_by_force(conf, reached)


@pytest.mark.parametrize(('new', 'old'), JOINT)
def test_agreed_index_of_a_joint_membership_needs_both_majorities(new: tuple[int, ...], old: tuple[int, ...]) -> None:
    conf = ConfState(new, old)
    everyone = sorted({*new, *old})
    for values in product(range(3), repeat=len(everyone)):
        reached = dict(zip(everyone, values, strict=True))
        assert quorum.agreed(conf, reached.__getitem__) == agreed_by_force(conf, reached)


@pytest.mark.parametrize(('new', 'old'), [(v, ()) for v in HALVES[1:]] + JOINT)
def test_an_election_is_decided_when_no_missing_vote_can_change_it(new: tuple[int, ...], old: tuple[int, ...]) -> None:
    conf = ConfState(new, old)
    everyone = sorted({*new, *old})
    for answers in product((True, False, None), repeat=len(everyone)):
        votes = {i: a for i, a in zip(everyone, answers, strict=True) if a is not None}
        assert quorum.vote_result(conf, votes) is vote_by_force(conf, votes)


def test_an_empty_membership_agrees_to_everything() -> None:
    assert quorum.agreed(ConfState(()), lambda _: 0) == quorum.EVERYTHING
    assert quorum.vote_result(ConfState(()), {}) is Vote.WON


def test_a_present_majority_is_a_quorum_and_half_is_not() -> None:
    conf = ConfState((1, 2, 3, 4))
    assert quorum.has_quorum(conf, lambda i: i != 1)
    assert not quorum.has_quorum(conf, lambda i: i > 2)
