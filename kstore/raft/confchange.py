"""Membership changes as pure functions from one `ConfState` to the next.

A *simple* change adds or removes at most one voter, so that any old and any new majority overlap (thesis §4.1).
Anything larger goes through a *joint* membership in which both majorities must agree (§4.3): enter, then leave. A
voter that becomes a learner keeps its old vote until the joint phase ends; it waits in `learners_next`.

Rules and corner cases follow etcd's raft (`confchange/confchange.go`), so that its test tables apply.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import msgpack

from kstore.raft.errors import ConfChangeRefused
from kstore.raft.messages import NO_ONE, ConfState

CHANGES_MAX = 64
"""Single changes in one `ConfChange`; more is refused."""


class Op(IntEnum):
    """Numbers are part of the stored format."""

    ADD_VOTER = 1
    ADD_LEARNER = 2
    REMOVE = 3


class Transition(IntEnum):
    """How a change that needs a joint phase gets out of it."""

    AUTO = 0
    """Joint only when more than one voter changes; then the leader leaves by itself."""
    IMPLICIT = 1
    """Always joint; the leader leaves by itself."""
    EXPLICIT = 2
    """Always joint; stays until an empty change is proposed."""


class ConfChange(NamedTuple):
    """A proposed change. Without `changes`, and with AUTO, it ends the joint phase."""

    changes: tuple[tuple[int, int], ...] = ()
    """Pairs of `Op` and member id, applied in order."""
    transition: int = Transition.AUTO
    context: bytes = b''
    """The proposer's own data (a member's address, say); replicated, not interpreted."""

    @property
    def leaves_joint(self) -> bool:
        return not self.changes and self.transition == Transition.AUTO

    @property
    def enters_joint(self) -> bool:
        return self.transition != Transition.AUTO or len(self.changes) > 1

    def encode(self) -> bytes:
        return bytes(msgpack.packb(self))

    @staticmethod
    def decode(data: bytes) -> ConfChange:
        """Raises ValueError for anything that `encode` did not make."""
        try:
            changes, transition, context = msgpack.unpackb(data, use_list=False)
            return ConfChange(tuple((Op(op), int(i)) for op, i in changes), Transition(transition), bytes(context))
        except (TypeError, ValueError, msgpack.exceptions.UnpackException) as e:
            raise ValueError(f'bad membership change: {e}') from None


def apply(conf: ConfState, change: ConfChange) -> ConfState:
    """The membership after `change`. Raises ConfChangeRefused when it is not allowed from `conf`."""
    if change.leaves_joint:
        return leave_joint(conf)
    if change.enters_joint:
        return enter_joint(conf, change.changes, auto_leave=change.transition != Transition.EXPLICIT)
    return simple(conf, change.changes)


def simple(conf: ConfState, changes: Iterable[tuple[int, int]]) -> ConfState:
    """At most one voter comes or goes. Raises ConfChangeRefused."""
    if conf.outgoing:
        raise ConfChangeRefused("can't apply a simple change in a joint membership")
    draft = _apply_all(conf, changes)
    if len(set(draft.voters) ^ set(conf.voters)) > 1:
        raise ConfChangeRefused('more than one voter changed without entering a joint membership')
    return draft


def enter_joint(conf: ConfState, changes: Iterable[tuple[int, int]], *, auto_leave: bool) -> ConfState:
    """Both the voters of `conf` and the changed ones decide from now on. Raises ConfChangeRefused."""
    if conf.outgoing:
        raise ConfChangeRefused('membership is already joint')
    if not conf.voters:
        raise ConfChangeRefused("can't make an empty membership joint")
    return _apply_all(conf._replace(outgoing=conf.voters), changes)._replace(auto_leave=auto_leave)


def leave_joint(conf: ConfState) -> ConfState:
    """Only the new voters decide from now on. Raises ConfChangeRefused."""
    if not conf.outgoing:
        raise ConfChangeRefused("can't leave a membership that is not joint")
    return ConfState(conf.voters, (), _sorted({*conf.learners, *conf.learners_next}))


def members(conf: ConfState) -> set[int]:
    """Everyone who is sent the log."""
    return {*conf.voters, *conf.outgoing, *conf.learners, *conf.learners_next}


def check(conf: ConfState) -> None:
    """Raises ValueError when `conf` contradicts itself."""
    voters, outgoing = set(conf.voters), set(conf.outgoing)
    learners, waiting = set(conf.learners), set(conf.learners_next)
    if not waiting <= outgoing:
        raise ValueError('a learner-to-be is not an outgoing voter')
    if learners & (voters | outgoing) or waiting & voters:
        raise ValueError('a member is both voter and learner')
    if not outgoing and (waiting or conf.auto_leave):
        raise ValueError('a plain membership carries joint state')


def _apply_all(conf: ConfState, changes: Iterable[tuple[int, int]]) -> ConfState:
    voters, learners, waiting = set(conf.voters), set(conf.learners), set(conf.learners_next)
    for op, member in changes:
        if member == NO_ONE:
            continue  # a change that its proposer took back
        if op == Op.ADD_LEARNER and member in learners | waiting:
            continue
        voters.discard(member)
        learners.discard(member)
        waiting.discard(member)
        if op == Op.ADD_VOTER:
            voters.add(member)
        elif op == Op.ADD_LEARNER:
            (waiting if member in conf.outgoing else learners).add(member)
    if not voters:
        raise ConfChangeRefused('removed all voters')
    draft = conf._replace(voters=_sorted(voters), learners=_sorted(learners), learners_next=_sorted(waiting))
    check(draft)
    return draft


def _sorted(ids: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(ids))


def parse(text: str) -> tuple[tuple[int, int], ...]:
    """`v1 l2 r3` → add voter 1, add learner 2, remove 3: the notation of scenarios and tables. Raises ValueError."""
    ops = {'v': Op.ADD_VOTER, 'l': Op.ADD_LEARNER, 'r': Op.REMOVE}
    changes: list[tuple[int, int]] = []
    for word in text.split():
        if word[0] not in ops or not word[1:].isdigit():
            raise ValueError(f'{word!r} is no membership change: want v1, l1 or r1')
        changes.append((ops[word[0]], int(word[1:])))
    return tuple(changes)


def describe(conf: ConfState) -> str:
    """One line for people: `voters=(1 2 3)&&(1 2 4) learners=(5)`."""

    def group(ids: Sequence[Any]) -> str:
        return '(' + ' '.join(map(str, ids)) + ')'

    text = f'voters={group(conf.voters)}' + (f'&&{group(conf.outgoing)}' if conf.outgoing else '')
    text += f' learners={group(conf.learners)}' if conf.learners else ''
    text += f' learners_next={group(conf.learners_next)}' if conf.learners_next else ''
    return text + (' auto-leave' if conf.auto_leave else '')
