"""What followers and candidates do with each message, who may become leader, and the rules of terms.

A role is a row of handlers (the tables at the end); the rules that hold in every role come first. The leader's side
is in `leader.py`. Section numbers are the thesis'.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING

from kstore.raft.messages import NO_ONE, EntryKind, Message, MessageType
from kstore.raft.quorum import Vote

if TYPE_CHECKING:
    from kstore.raft.core import RaftCore

TRANSFER = b'transfer'
"""Context of votes asked for on behalf of the old leader: they are granted although that leader is still heard."""


class Role(Enum):
    """Who this member is in its term."""

    FOLLOWER = 'follower'
    PRE_CANDIDATE = 'pre-candidate'
    CANDIDATE = 'candidate'
    LEADER = 'leader'


VOTES = frozenset({MessageType.PRE_VOTE, MessageType.VOTE})
FROM_LEADER = frozenset({MessageType.APPEND, MessageType.HEARTBEAT, MessageType.SNAPSHOT})


# --- terms, in every role ---------------------------------------------------------------------------------------------


def adopt_term(core: RaftCore, m: Message) -> bool:
    """A message from a later term. Returns whether to go on with it."""
    if m.type in VOTES and core.hears_leader and m.context != TRANSFER:
        return False  # §4.2.3: a live leader is not disturbed, not even by a later term
    granted_pre_vote = m.type == MessageType.PRE_VOTE_RESP and not m.reject
    if m.type != MessageType.PRE_VOTE and not granted_pre_vote:  # those two speak of a term that nobody is in yet
        core.become_follower(m.term, m.frm if m.type in FROM_LEADER else NO_ONE)
    return True


def answer_stale(core: RaftCore, m: Message) -> None:
    """A message from an earlier term. Its sender may be stuck there: tell it ours where nothing else would.

    With pre-vote or check-quorum a member in a later term no longer forces its term on others by campaigning, so the
    answer to an old leader's append is what lets that leader notice.
    """
    if m.type in FROM_LEADER and (core.config.check_quorum or core.config.pre_vote):
        core.post(Message(MessageType.APPEND_RESP, m.frm, core.id, core.term))
    elif m.type == MessageType.PRE_VOTE:
        core.post(Message(MessageType.PRE_VOTE_RESP, m.frm, core.id, core.term, reject=True))


def consider_vote(core: RaftCore, m: Message) -> None:
    """§3.4, §3.6.1, §9.6: one vote a term, only for a log at least as complete as ours.

    A learner votes too when asked: it may be a voter by a change that it has not applied yet.
    """
    real = m.type == MessageType.VOTE
    free = core.vote == m.frm or (core.vote == NO_ONE and core.leader == NO_ONE) or (not real and m.term > core.term)
    granted = free and core.log.is_up_to_date(m.index, m.log_term)
    if not real:
        term = m.term if granted else core.term
        core.post(Message(MessageType.PRE_VOTE_RESP, m.frm, core.id, term, reject=not granted))
        return
    if granted:
        core.elapsed = 0
        core.vote = m.frm
    core.post_durable(Message(MessageType.VOTE_RESP, m.frm, core.id, core.term, reject=not granted))


# --- candidacy --------------------------------------------------------------------------------------------------------


def campaign(core: RaftCore, *, transfer: bool = False) -> None:
    """Try to lead: with a pre-vote first if so configured, unless the old leader asked for it."""
    if _has_unapplied_conf_change(core):
        core.elapsed = 0  # its majority may not be ours (etcd raft: hup); try again after another timeout
        return
    if core.config.pre_vote and not transfer:
        core.become_pre_candidate()
        _ask(core, MessageType.PRE_VOTE, core.term + 1, b'')
    else:
        _campaign_for_real(core, TRANSFER if transfer else b'')


def _campaign_for_real(core: RaftCore, context: bytes) -> None:
    core.become_candidate()
    _ask(core, MessageType.VOTE, core.term, context)


def _ask(core: RaftCore, kind: MessageType, term: int, context: bytes) -> None:
    if core.election() is Vote.WON:  # the only voter
        _won(core)
        return
    log = core.log
    for voter in sorted({*core.conf.voters, *core.conf.outgoing} - {core.id}):
        m = Message(kind, voter, core.id, term, index=log.last, log_term=log.last_term, context=context)
        (core.post_durable if kind == MessageType.VOTE else core.post)(m)


def _won(core: RaftCore) -> None:
    if core.role is Role.PRE_CANDIDATE:
        _campaign_for_real(core, b'')
    else:
        core.become_leader()


def _has_unapplied_conf_change(core: RaftCore) -> bool:
    log = core.log
    if log.committed == log.applied:
        return False
    return any(e.kind == EntryKind.CONF_CHANGE for e in log.slice(log.applied + 1, log.committed, 1 << 62))


def _count_vote(core: RaftCore, m: Message) -> None:
    core.votes.setdefault(m.frm, not m.reject)
    outcome = core.election()
    if outcome is Vote.WON:
        _won(core)
    elif outcome is Vote.LOST:
        core.become_follower(core.term, NO_ONE)


# --- following --------------------------------------------------------------------------------------------------------


def _heard_leader(core: RaftCore, m: Message) -> None:
    """Every message of the term's leader: a candidate gives up, a follower's patience starts over."""
    if core.role is not Role.FOLLOWER:
        core.become_follower(m.term, m.frm)
    core.elapsed = 0
    core.leader = m.frm


def _append(core: RaftCore, m: Message) -> None:
    """§3.5. What is committed here agrees with every leader, so an older append is answered from there."""
    _heard_leader(core, m)
    log = core.log
    if m.index < log.committed:
        core.post_durable(Message(MessageType.APPEND_RESP, m.frm, core.id, core.term, index=log.committed))
    elif log.matches(m.index, m.log_term):
        last = m.index + len(m.entries)
        log.merge(m.entries)
        log.commit_to(max(log.committed, min(m.commit, last)))
        core.post_durable(Message(MessageType.APPEND_RESP, m.frm, core.id, core.term, index=last))
    else:
        hint, hint_term = log.conflict_hint(m.index, m.log_term)
        core.post(
            Message(MessageType.APPEND_RESP, m.frm, core.id, core.term, m.index, hint_term, reject=True, hint=hint)
        )


def _heartbeat(core: RaftCore, m: Message) -> None:
    _heard_leader(core, m)
    core.log.commit_to(m.commit)
    core.post(Message(MessageType.HEARTBEAT_RESP, m.frm, core.id, core.term, seq=m.seq))


def _snapshot(core: RaftCore, m: Message) -> None:
    """§5: all chunks arrived. Whatever our log already proves is not replaced."""
    _heard_leader(core, m)
    log = core.log
    if m.snapshot is not None and m.snapshot.index > log.committed:
        if log.matches(m.snapshot.index, m.snapshot.term):
            log.commit_to(m.snapshot.index)
        else:
            core.restore(m.snapshot)
    core.post_durable(Message(MessageType.APPEND_RESP, m.frm, core.id, core.term, index=log.committed))


def _timeout_now(core: RaftCore, m: Message) -> None:
    if core.promotable:
        campaign(core, transfer=True)


def _forward(core: RaftCore, m: Message) -> None:
    """A wish to transfer leadership reached someone who no longer leads."""
    if core.leader not in (NO_ONE, m.frm):
        core.post(m._replace(to=core.leader, frm=core.id))


def _read_answer(core: RaftCore, m: Message) -> None:
    core.answer_read(m.index, m.context)


Handler = Callable[['RaftCore', Message], None]
_COMMON: Mapping[int, Handler] = {
    MessageType.APPEND: _append,
    MessageType.HEARTBEAT: _heartbeat,
    MessageType.SNAPSHOT: _snapshot,
}
_HANDLERS: Mapping[Role, Mapping[int, Handler]] = {
    Role.FOLLOWER: {
        **_COMMON,
        MessageType.TIMEOUT_NOW: _timeout_now,
        MessageType.TRANSFER: _forward,
        MessageType.READ_INDEX_RESP: _read_answer,
    },
    Role.PRE_CANDIDATE: {**_COMMON, MessageType.PRE_VOTE_RESP: _count_vote},
    Role.CANDIDATE: {**_COMMON, MessageType.VOTE_RESP: _count_vote},
}


def step(core: RaftCore, m: Message) -> None:
    """A message of this term (or a granted pre-vote) for a member that does not lead."""
    handler = _HANDLERS[core.role].get(m.type)
    if handler is not None:
        handler(core, m)
