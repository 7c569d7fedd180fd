"""The nouns of the store's clients: keys with revisions, events, replies. Plain tuples, as they come off the wire."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Any, NamedTuple

NO_END = b'\x00'
"""As the end of a range: there is none."""


class KeyValue(NamedTuple):
    """One version of one key."""

    key: bytes
    value: bytes
    create_revision: int
    """Revision of the put that created the key."""
    mod_revision: int
    """Revision of this version."""
    version: int
    """1 at creation, then one more per put; starts again after a delete."""
    lease: int
    """Lease that deletes the key when it ends; 0 for none."""


class Event(NamedTuple):
    """One change. A deletion's `kv` has only `key` and `mod_revision`."""

    type: str
    """`put` or `delete`."""
    kv: KeyValue
    prev: KeyValue | None
    """The version before, if the watch asked for it and it is not compacted."""


class WatchBatch(NamedTuple):
    """All events of one or more whole revisions; no events: everything up to `revision` has been delivered."""

    revision: int
    events: tuple[Event, ...]


class RangeFlag(IntFlag):
    COUNT_ONLY = 1
    KEYS_ONLY = 2
    SERIALIZABLE = 4


class PutFlag(IntFlag):
    PREV_KV = 1
    IGNORE_VALUE = 2
    IGNORE_LEASE = 4


class WatchFlag(IntFlag):
    PREV_KV = 1
    NO_PUT = 2
    NO_DELETE = 4
    PROGRESS = 8


class SortTarget(IntEnum):
    KEY = 0
    VERSION = 1
    CREATE = 2
    MOD = 3
    VALUE = 4


class SortOrder(IntEnum):
    NONE = 0
    ASCEND = 1
    DESCEND = 2


class Target(IntEnum):
    """What a compare looks at."""

    VERSION = 0
    CREATE = 1
    MOD = 2
    VALUE = 3
    LEASE = 4


class Relation(IntEnum):
    EQUAL = 0
    GREATER = 1
    LESS = 2
    NOT_EQUAL = 3


class Do(IntEnum):
    """What an operation of a transaction does: `[PUT, key, value, lease, flags]`, `[DELETE, key, end, flags]`,
    `[RANGE, *RangeQuery]`."""

    PUT = 1
    DELETE = 2
    RANGE = 3


class RangeQuery(NamedTuple):
    """A read. `end` None reads one key; NO_END reads everything from `key` on."""

    key: bytes
    end: bytes | None = None
    limit: int = 0
    """Most keys returned; 0 for no limit."""
    revision: int = 0
    """0 or less: now."""
    flags: int = 0
    sort_target: int = SortTarget.KEY
    sort_order: int = SortOrder.NONE
    min_mod: int = 0
    max_mod: int = 0
    min_create: int = 0
    max_create: int = 0


@dataclass(frozen=True, slots=True)
class GetReply:
    revision: int
    """Of the store when it answered, not of the key."""
    kv: KeyValue | None


@dataclass(frozen=True, slots=True)
class RangeReply:
    revision: int
    count: int
    """Keys in the range, whatever limit and filters say."""
    more: bool
    """The limit cut the answer short."""
    kvs: list[KeyValue]


@dataclass(frozen=True, slots=True)
class WriteReply:
    revision: int
    prev: KeyValue | None = None


@dataclass(frozen=True, slots=True)
class DeleteReply:
    revision: int
    deleted: int
    prev: list[KeyValue]


@dataclass(frozen=True, slots=True)
class CasReply:
    revision: int
    succeeded: bool
    kv: KeyValue | None
    """Failed: the current version. Succeeded: what `cad` deleted; None for `cas`."""


@dataclass(frozen=True, slots=True)
class TxnReply:
    revision: int
    succeeded: bool
    results: list[WriteReply | DeleteReply | RangeReply]


@dataclass(frozen=True, slots=True)
class LeaseReply:
    id: int
    ttl_s: int
    """Granted seconds; -1 when there is no such lease."""
    remaining_s: float
    keys: list[bytes]


def key_value(raw: list[Any] | None) -> KeyValue | None:
    """From the wire's array; nil stays None."""
    return None if raw is None else KeyValue(*raw)


def prefix_end(prefix: bytes) -> bytes:
    """The first key after all keys that begin with `prefix`; NO_END when there is none."""
    stem = prefix.rstrip(b'\xff')
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else NO_END
