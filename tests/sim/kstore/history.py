"""What clients asked and were told, in one order of time: the input of every checker.

Moments are numbers from one counter, not seconds: many things happen at the same virtual instant, and a checker needs
to know which came first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kstore.model import KeyValue

NEVER = 1 << 60
"""The end of an operation whose outcome nobody knows: it may take effect at any later moment, or not at all."""


@dataclass(eq=False, slots=True)
class Operation:
    """One request of one client.

    kind and arguments: `get key revision`, `put key value lease`, `delete key`, `cas key expected value`,
    `txn compares writes` (compares: ((key, mod), ...), writes: (('put', key, value) | ('delete', key), ...)),
    `end lease` (made by the ledger, not by a client), `gone lease` (a revocation that was confirmed).
    """

    client: str
    kind: str
    arguments: tuple[Any, ...]
    call: int
    end: int = NEVER
    result: Any = None
    """None: unknown. Else by kind: (revision, key-value or None), revision, (revision, deleted), (revision, succeeded,
    key-value or None), (revision, succeeded); or an exception that says for certain that nothing was done."""
    hint: int = 0
    """For an unknown write: the revision at which its value was seen to appear; -1 when it never did."""

    def __str__(self) -> str:
        outcome = 'unknown' if self.end == NEVER else repr(self.result)
        end = '' if self.end == NEVER else self.end
        return f'{self.client} [{self.call}..{end}] {self.kind}{self.arguments} -> {outcome}'


@dataclass
class WatchRun:
    """One watch of one client, from its start to its end."""

    client: str
    start: bytes
    end: bytes | None
    asked: int
    """First revision asked for; 0: from now on."""
    opened: int = NEVER
    """Moment at which the client was told that the watch stands."""
    first: int = 0
    """First revision of the watch, by the server's word."""
    puts: bool = True
    deletes: bool = True
    progress: bool = False
    batches: list[tuple[int, tuple[Any, ...]]] = field(default_factory=list)
    """Revision and events of each batch."""
    compacted: int = 0
    """Ended by compaction, up to this revision."""
    closed: bool = False
    """The client ended it: it need not have seen the end of the history."""

    def wants(self, is_put: bool, key: bytes) -> bool:
        """Whether an event belongs to this watch."""
        covered = key == self.start if self.end is None else self.start <= key < self.end
        return covered and (self.puts if is_put else self.deletes)


@dataclass
class LeaseRun:
    """What one client knows of one lease; times in virtual seconds."""

    id: int
    ttl_s: int
    asked_at: float
    """When the grant was asked for."""
    confirmed: list[tuple[float, float]] = field(default_factory=list)
    """Grant and renewals that were confirmed: when asked, when answered."""
    refused_at: float = 0.0
    """When a renewal was answered with 0."""
    last_asked: float = 0.0
    """When the client last asked for anything that may renew it, answered or not."""
    revoked: bool = False
    """The client asked for its end (whether or not it got an answer)."""


@dataclass
class History:
    """Everything that the checkers judge, but for the ledger (see `ledger.py`)."""

    operations: list[Operation] = field(default_factory=list)
    watches: list[WatchRun] = field(default_factory=list)
    leases: dict[int, LeaseRun] = field(default_factory=dict)
    glimpses: list[tuple[bytes, int, tuple[Any, ...] | None]] = field(default_factory=list)
    """Reads of old revisions and of single members: key, revision the answer is true at, version."""
    moment: int = 0

    def now(self) -> int:
        self.moment += 1
        return self.moment

    def begin(self, client: str, kind: str, *arguments: Any) -> Operation:
        op = Operation(client, kind, arguments, self.now())
        self.operations.append(op)
        return op

    def finish(self, op: Operation, result: Any) -> None:
        op.result, op.end = result, self.now()


def plain(kv: KeyValue | None) -> tuple[Any, ...] | None:
    """A key-value as the model holds it: (value, create, mod, version, lease)."""
    return None if kv is None else (kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease)
