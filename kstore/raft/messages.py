"""What members say to each other and what they write down, as plain tuples.

Everything here is a `NamedTuple`: msgpack packs one as an array without any conversion, and comparing, hashing and
unpacking cost what a tuple costs. An entry or a message on the wire is therefore itself; only the way in
(`from_wire`) checks, because the bytes come from outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

NO_ONE = 0
"""The id that no member has; members are numbered from 1."""


class EntryKind(IntEnum):
    """What an entry's `data` is. Numbers are part of the stored format."""

    NORMAL = 0
    """A command of the state machine; empty `data` is a new leader's no-op."""
    CONF_CHANGE = 1
    """A `ConfChange`, msgpack-encoded."""


class Entry(NamedTuple):
    """One slot of the replicated log."""

    term: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs
    kind: int
    data: bytes


class HardState(NamedTuple):
    """What must survive a crash before anyone hears of it (thesis §3.8)."""

    term: int
    vote: int
    """Whom this member voted for in `term`; 0 for no one."""
    commit: int
    """A lower bound only: written along with other records, never synced for its own sake."""


class ConfState(NamedTuple):
    """A membership: `voters` decide; while `outgoing` is non-empty both must agree (joint consensus, thesis §4.3)."""

    voters: tuple[int, ...]
    outgoing: tuple[int, ...] = ()
    learners: tuple[int, ...] = ()
    learners_next: tuple[int, ...] = ()
    """Voters of `outgoing` that become learners when the joint phase ends."""
    auto_leave: bool = False

    @staticmethod
    def from_wire(raw: Sequence[Any]) -> ConfState:
        """Raises ValueError for anything that is no membership."""
        try:
            voters, outgoing, learners, learners_next, auto_leave = raw
            groups = [tuple(_ids(g)) for g in (voters, outgoing, learners, learners_next)]
        except TypeError as e:
            raise ValueError(f'bad membership: {e}') from None
        return ConfState(groups[0], groups[1], groups[2], groups[3], bool(auto_leave))


class SnapshotMeta(NamedTuple):
    """Which prefix of the log a snapshot replaces, and the membership at its end."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs
    term: int
    conf: ConfState

    @staticmethod
    def from_wire(raw: Sequence[Any]) -> SnapshotMeta:
        """Raises ValueError for anything that is no snapshot description."""
        try:
            index, term, conf = raw
        except TypeError as e:
            raise ValueError(f'bad snapshot description: {e}') from None
        return SnapshotMeta(_natural(index), _natural(term), ConfState.from_wire(conf))


class MessageType(IntEnum):
    """Numbers are part of the wire format."""

    PRE_VOTE = 1
    PRE_VOTE_RESP = 2
    VOTE = 3
    VOTE_RESP = 4
    APPEND = 5
    APPEND_RESP = 6
    HEARTBEAT = 7
    HEARTBEAT_RESP = 8
    SNAPSHOT = 9
    """From the core: start streaming to `to`. On the wire: one chunk (`index` = byte offset, `context` = bytes,
    `commit` = total bytes or 0 while unknown). Into the core: all chunks are here, `snapshot` describes them."""
    SNAPSHOT_RESP = 10
    """`index` = the next byte offset wanted; `reject` = start again or give up. Node to node, never for the core."""
    TRANSFER = 11
    """A follower passes on its operator's wish that `hint` should lead."""
    TIMEOUT_NOW = 12
    READ_INDEX = 13
    READ_INDEX_RESP = 14


class Message(NamedTuple):
    """One message between two members. Unused fields keep their defaults."""

    type: int
    to: int
    frm: int
    term: int
    index: int = 0  # type: ignore[assignment]
    """Append: index before the first entry. Responses: the index acknowledged or rejected. Votes: last log index."""
    log_term: int = 0
    """Term of the entry at `index`; in a rejection, of the entry at `hint`."""
    commit: int = 0
    reject: bool = False
    hint: int = 0
    """Rejected append: where the follower suggests to look next. Transfer: the wished leader."""
    seq: int = 0
    """Heartbeats: number of the newest read round, echoed by the follower."""
    entries: tuple[Entry, ...] = ()
    context: bytes = b''
    """Reads: the asker's own token, returned untouched. Votes: b'transfer' when the old leader asked for it."""
    snapshot: SnapshotMeta | None = None

    def to_wire(self) -> tuple[Any, ...]:
        """What msgpack packs: the tuple itself."""
        return self

    @staticmethod
    def from_wire(raw: Sequence[Any]) -> Message:
        """Raises ValueError for anything that is no message (wrong arity or types); never anything else."""
        try:
            type_, to, frm, term, index, log_term, commit, reject, hint, seq, entries, context, snapshot = raw
            numbers = (type_, to, frm, term, index, log_term, commit, hint, seq)
            if {*map(type, numbers)} != _INT or min(numbers) < 0 or type(context) is not bytes:
                raise ValueError('bad message: a field has the wrong type')
            meta = None if snapshot is None else SnapshotMeta.from_wire(snapshot)
            body = entries_from_wire(entries) if entries else ()
        except (TypeError, AttributeError) as e:
            raise ValueError(f'bad message: {e}') from None
        return Message(type_, to, frm, term, index, log_term, commit, bool(reject), hint, seq, body, context, meta)


def entries_from_wire(raw: Sequence[Sequence[Any]]) -> tuple[Entry, ...]:
    """Raises ValueError for anything that is no list of entries."""
    try:
        entries = tuple(map(Entry._make, raw))
        for term, index, kind, data in entries:
            if not (type(term) is type(index) is int and isinstance(kind, int) and type(data) is bytes):
                raise ValueError('bad entries: a field has the wrong type')
    except TypeError as e:
        raise ValueError(f'bad entries: {e}') from None
    return entries


_INT = {int}


def _natural(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f'not a natural number: {value!r}')
    return value


def _ids(raw: Sequence[Any]) -> Sequence[int]:
    return [_natural(i) for i in raw]
