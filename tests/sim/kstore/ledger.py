"""What the members themselves did, as one sequence: what each log entry gave, and which events each revision has.

Members are compared with each other entry by entry while they run (equal entries, equal results, equal events, equal
revision), whatever restarts and snapshots lie in between, and with the history of the clients afterwards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack

from kstore.engine.layers import Table
from kstore.fsm import Command, StoreFsm
from kstore.raft.messages import Entry
from tests.sim.kstore.raft_world import Violation

LogEvent = tuple[bool, bytes, tuple[Any, ...] | None]
"""Put or delete, key, and of a put (value, create, mod, version, lease)."""


@dataclass(frozen=True)
class Ended:
    """A lease ended."""

    revision: int
    moment: int
    at_s: float


@dataclass
class Ledger:
    """See the module's text."""

    now: Callable[[], int]
    clock: Callable[[], float]
    entries: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    """Log index → (term, digest of the command, result)."""
    revisions: dict[int, int] = field(default_factory=dict)
    """Log index → revision after it, where a batch of some member ended."""
    events: dict[int, tuple[LogEvent, ...]] = field(default_factory=dict)
    ended: dict[int, Ended] = field(default_factory=dict)
    checkpoints: dict[int, list[tuple[float, int]]] = field(default_factory=dict)
    """Lease → what was put on record of its remaining seconds, and when the first member knew it."""
    leaders: dict[int, int] = field(default_factory=dict)
    revision: int = 1

    def attach(self, member: int, fsm: StoreFsm) -> None:
        """Look over the shoulder of a state machine, from now until its member dies."""
        apply, changed, revoked = fsm.apply, fsm.on_changes, fsm.on_revoked

        def applied(entries: Sequence[Entry]) -> list[bytes | None]:
            results = apply(entries)
            for e, result in zip(entries, results, strict=True):
                if e.index not in self.entries:
                    self._checkpoints(e)
                told = (e.term, hashlib.sha256(e.data).digest(), result)
                if self.entries.setdefault(e.index, told) != told:
                    raise Violation(
                        f'member {member} applies entry {e.index} with {told}, others with {self.entries[e.index]}'
                    )
            self.stands(member, fsm)
            return results

        def on_changes(changes: Sequence[Any], revision: int) -> None:
            self._events(member, changes)
            changed(changes, revision)

        def on_revoked(lease: int) -> None:
            self.ended.setdefault(lease, Ended(fsm.store.revision, self.now(), self.clock()))
            revoked(lease)

        fsm.apply, fsm.on_changes, fsm.on_revoked = applied, on_changes, on_revoked  # type: ignore[method-assign]

    def _checkpoints(self, entry: Entry) -> None:
        if entry.kind or not entry.data:
            return
        _, _, _, _, what, *arguments = msgpack.unpackb(entry.data, strict_map_key=False)
        if what == Command.CHECKPOINT:
            for lease, remaining_s in arguments[0]:
                self.checkpoints.setdefault(lease, []).append((self.clock(), remaining_s))

    def _events(self, member: int, changes: Sequence[Any]) -> None:
        by_revision: dict[int, list[LogEvent]] = {}
        for change in changes:
            kv = msgpack.unpackb(change.record[13:], use_list=False)
            event = (change.is_put, change.key, tuple(kv[1:]) if change.is_put else None)
            by_revision.setdefault(change.revision, []).append(event)
        for revision, found in by_revision.items():
            if self.events.setdefault(revision, tuple(found)) != tuple(found):
                raise Violation(f'revision {revision} on member {member} is {found}, elsewhere {self.events[revision]}')

    def led(self, member: int, leader: int, term: int) -> None:
        """Every member's word on who leads a term agrees."""
        if leader and self.leaders.setdefault(term, leader) != leader:
            raise Violation(f'member {member} takes {leader} for leader of {term}, others {self.leaders[term]}')

    def stands(self, member: int, fsm: StoreFsm) -> None:
        """A state stands where others stood after the same entry, however it came there."""
        index, revision = fsm.applied_index, fsm.store.revision
        if self.revisions.setdefault(index, revision) != revision:
            raise Violation(
                f'member {member} is at revision {revision} after entry {index}, others at {self.revisions[index]}'
            )
        self.revision = max(self.revision, revision)


def dump(fsm: StoreFsm) -> dict[str, Any]:
    """The whole logical state: equal on members that stand on the same entry, whatever each has swept or flushed."""
    fsm.store.save()
    fsm.sessions.save()
    compacted = fsm.store.compacted
    found: dict[str, Any] = {'revision': fsm.store.revision, 'compacted': compacted}
    for table in Table:
        if table not in (Table.META, Table.LOG, Table.DEAD):
            found[table.name] = list(fsm.engine.scan(table))
    # The reference to the version before (12 bytes) depends on what each member has swept of the past.
    found['LOG'] = [(k, v[12:]) for k, v in fsm.engine.scan(Table.LOG) if int.from_bytes(k[:8], 'big') > compacted]
    found['remaining'] = sorted((lease.id, lease.ttl_s, lease.remaining_s) for lease in fsm.store.leases.all())
    return found
