"""The storage interface: keys, bytes and one revision counter; no Kubernetes, no HTTP.

Theory: a store is a map from key to bytes with one revision that grows with every change. Reads are linearizable,
writes are conditional on the revision of what was read, and a watch replays every change after a revision in order.
Drivers pass one suite, `tests/kapi/storage/test_conformance.py`; so does the watch cache, which is a driver over a
driver. Source: apiserver storage/interfaces.go, reduced to what both etcd-like stores and memory can do.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


class StorageError(Exception):
    """Anything a driver raises on purpose."""


class KeyMissing(StorageError):
    """No value under this key."""


class KeyExists(StorageError):
    """`create` found a value."""


class RevisionConflict(StorageError):
    """The value changed between read and write, more often than the driver was willing to retry."""


class Compacted(StorageError):
    """The revision asked for is no longer kept; `oldest` is the first one that is."""

    def __init__(self, message: str = 'the revision asked for has been compacted', *, oldest: int = 0) -> None:
        super().__init__(message)
        self.oldest = oldest


class FutureRevision(StorageError):
    """The revision asked for lies ahead of the store; `current` is where the store is."""

    def __init__(self, message: str = 'the revision asked for is ahead of the store', *, current: int = 0) -> None:
        super().__init__(message)
        self.current = current


class StorageUnavailable(StorageError):
    """No quorum, no connection or a deadline passed; nothing is known to have been written."""


class StorageFull(StorageError):
    """The store refuses to grow."""


class ValueTooLarge(StorageError):
    """The value exceeds what the store takes in one write."""


@dataclass(frozen=True, slots=True)
class Versioned:
    """A value and the revision that wrote it (for a deletion: the revision that removed it)."""

    key: str
    value: bytes
    rv: int


@dataclass(frozen=True, slots=True)
class Event:
    """One change. A deletion carries the last value; `prev` is the value before a put, None when it created."""

    key: str
    rv: int
    value: bytes
    prev: bytes | None
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """Everything up to `rv` has been delivered, `events` included; no events means progress only."""

    rv: int
    events: Sequence[Event]


@dataclass(frozen=True, slots=True)
class Page:
    """A slice of a prefix at revision `rv`, ordered by key."""

    items: Sequence[Versioned]
    rv: int
    remaining: int = 0
    """Keys after the last item; 0 on the last page."""


Change = Callable[[Versioned], Awaitable[bytes]]
"""Computes the new value; may run several times, so it must be repeatable. What it raises passes through."""

Check = Callable[[Versioned], None]
"""Raises to refuse a deletion."""

CONFLICT_RETRIES_MAX = 20
"""Optimistic attempts of one update before RevisionConflict; each failure means that another write succeeded."""


class Storage(Protocol):
    """What every driver does. Prefixes end in `/`; `rv` 0 means now."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def get(self, key: str) -> Versioned:
        """Linearizable. Raises KeyMissing."""

    async def list(self, prefix: str, *, rv: int = 0, limit: int = 0, after: str = '') -> Page:
        """Keys under `prefix` greater than `after`, at revision `rv` exactly. Raises Compacted, FutureRevision."""

    async def create(self, key: str, value: bytes, *, ttl_s: int = 0) -> Versioned:
        """Raises KeyExists. With `ttl_s` the store deletes the key after about that time."""

    async def update(self, key: str, change: Change, *, ttl_s: int = 0, origin: Versioned | None = None) -> Versioned:
        """Read, change, write if unchanged; again on a conflict. An equal value is not written and keeps its rv.

        origin:  a possibly stale value to try first, saving the read. Whatever `change` raises for a stale origin is
                 retried once with a fresh value.
        Raises:  KeyMissing, RevisionConflict.
        """

    async def delete(self, key: str, *, check: Check | None = None, origin: Versioned | None = None) -> Versioned:
        """Remove, returning the last value with the deletion's revision. `origin` as for update. Raises KeyMissing."""

    def watch(self, prefix: str, *, from_rv: int) -> AsyncIterator[Batch]:
        """Changes with revision > `from_rv`, for ever. Raises Compacted when that is too old."""

    async def current_revision(self) -> int:
        """Linearizable: at least the revision of every write acknowledged before the call."""

    def nudge(self) -> None:
        """Ask the watch to say how far it is: somebody waits for a revision that may concern no key of ours."""
