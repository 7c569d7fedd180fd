"""Membership changes: single rules, and every short sequence of changes against the overlap of majorities."""

from __future__ import annotations

from itertools import combinations, pairwise, product

import pytest

from kstore.raft import confchange
from kstore.raft.confchange import ConfChange, Op, Transition
from kstore.raft.errors import ConfChangeRefused
from kstore.raft.messages import ConfState

THREE = ConfState((1, 2, 3))


def change(text: str, transition: Transition = Transition.AUTO) -> ConfChange:
    return ConfChange(confchange.parse(text), transition)


def majorities(conf: ConfState) -> list[set[int]]:
    """Every set of members that may decide under `conf`."""
    everyone = sorted({*conf.voters, *conf.outgoing})
    sets = [set(c) for n in range(len(everyone) + 1) for c in combinations(everyone, n)]

    def decides(members: set[int], voters: tuple[int, ...]) -> bool:
        return not voters or len(members & set(voters)) * 2 > len(voters)

    return [s for s in sets if decides(s, conf.voters) and decides(s, conf.outgoing)]


@pytest.mark.parametrize(
    ('start', 'text', 'result'),
    [
        (THREE, 'v4', ConfState((1, 2, 3, 4))),
        (THREE, 'r3', ConfState((1, 2))),
        (THREE, 'l4', ConfState((1, 2, 3), (), (4,))),
        (THREE, 'l3', ConfState((1, 2), (), (3,))),
        (ConfState((1, 2), (), (3,)), 'v3', ConfState((1, 2, 3))),
        (ConfState((1, 2), (), (3,)), 'r3', ConfState((1, 2))),
        (THREE, 'v1', THREE),
        (THREE, 'r9', THREE),
    ],
)
def test_a_simple_change_moves_one_member(start: ConfState, text: str, result: ConfState) -> None:
    assert confchange.apply(start, change(text)) == result


@pytest.mark.parametrize(
    ('text', 'result'),
    [
        ('v4 r1', ConfState((2, 3, 4), (1, 2, 3), (), (), True)),
        ('l1 v4', ConfState((2, 3, 4), (1, 2, 3), (), (1,), True)),
        ('v4 v5', ConfState((1, 2, 3, 4, 5), (1, 2, 3), (), (), True)),
        ('l5 l6', ConfState((1, 2, 3), (1, 2, 3), (5, 6), (), True)),
    ],
)
def test_several_changes_enter_a_joint_membership(text: str, result: ConfState) -> None:
    assert confchange.apply(THREE, change(text)) == result


def test_an_explicit_transition_does_not_leave_by_itself() -> None:
    joint = confchange.apply(THREE, change('v4', Transition.EXPLICIT))
    assert joint == ConfState((1, 2, 3, 4), (1, 2, 3))
    assert confchange.apply(joint, ConfChange()) == ConfState((1, 2, 3, 4))


def test_leaving_turns_waiting_voters_into_learners() -> None:
    joint = ConfState((2, 3, 4), (1, 2, 3), (5,), (1,), True)
    assert confchange.apply(joint, ConfChange()) == ConfState((2, 3, 4), (), (1, 5))


@pytest.mark.parametrize(
    ('start', 'text', 'why'),
    [
        (ConfState((1,)), 'r1', 'removed all voters'),
        (ConfState((1, 2), (1,)), 'v3', 'joint'),
        (ConfState((1, 2), (1,)), 'v3 v4', 'already joint'),
        (THREE, '', 'not joint'),
    ],
)
def test_a_change_that_is_not_allowed_says_why(start: ConfState, text: str, why: str) -> None:
    with pytest.raises(ConfChangeRefused, match=why):
        confchange.apply(start, change(text))


def test_two_voters_at_once_are_no_simple_change() -> None:
    with pytest.raises(ConfChangeRefused, match='more than one voter'):
        confchange.simple(THREE, confchange.parse('v4 v5'))


def test_old_and_new_majorities_always_overlap() -> None:
    """Every sequence of two operations on up to five members, by whichever way they may be made."""
    ops = [(op, i) for op in Op for i in range(1, 6)]
    starts = [ConfState(tuple(range(1, n + 1))) for n in range(1, 5)] + [ConfState((1, 2), (), (3, 4))]
    deciding: dict[ConfState, list[set[int]]] = {}
    for start, first, second in product(starts, ops, ops):
        for changes in ((first,), (first, second)):
            try:
                after = confchange.apply(start, ConfChange(changes))
            except ConfChangeRefused:
                continue
            confchange.check(after)
            steps = [start, after] + ([confchange.leave_joint(after)] if after.outgoing else [])
            for old, new in pairwise(steps):
                for conf in (old, new):
                    if conf not in deciding:
                        deciding[conf] = majorities(conf)
                assert all(a & b for a in deciding[old] for b in deciding[new]), (old, new)


def test_a_change_survives_its_encoding() -> None:
    original = ConfChange(confchange.parse('v4 l5 r1'), Transition.EXPLICIT, b'host:1')
    assert ConfChange.decode(original.encode()) == original


@pytest.mark.parametrize('data', [b'', b'\xc1', b'\x93\x01\x02\x03', b'\x93\x91\x92\x09\x01\x00\xa0'])
def test_garbage_is_no_change(data: bytes) -> None:
    with pytest.raises(ValueError, match='bad membership change'):
        ConfChange.decode(data)


def test_a_membership_that_contradicts_itself_is_found() -> None:
    for conf in (ConfState((1,), (), (1,)), ConfState((1,), (), (), (2,)), ConfState((1,), (), (), (), True)):
        with pytest.raises(ValueError, match=r'learner|joint|both'):
            confchange.check(conf)


def test_a_membership_reads_well() -> None:
    assert confchange.describe(ConfState((1, 2), (2, 3), (4,), (3,), True)) == (
        'voters=(1 2)&&(2 3) learners=(4) learners_next=(3) auto-leave'
    )
