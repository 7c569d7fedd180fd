"""The checkers of a store's history: each takes what was recorded and raises Violation; none knows any workload."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from kstore.errors import LeaseNotFound
from tests.sim.kstore import linear
from tests.sim.kstore.history import NEVER, History, LeaseRun, Operation, WatchRun, plain
from tests.sim.kstore.ledger import Ended, Ledger, LogEvent
from tests.sim.kstore.raft_world import Violation

SLACK_S = 2.0
"""What the end of a lease may be late by without a change of leader: a tick, a read round, a commit, a busy disk."""
DARK_S = 0.5
"""How often the world looks whether anything was committed since it last looked."""


class Dark(NamedTuple):
    """When nobody could commit anything."""

    moments: Sequence[float] = ()
    """Ends of spans of DARK_S without a commit, in virtual seconds."""
    always_s: float = 0.0
    """What slow disks add to any commit, wherever it falls."""

    def between(self, start: float, end: float) -> float:
        return self.always_s + DARK_S * sum(start < m and m - DARK_S < end for m in self.moments)


# --- key-values -------------------------------------------------------------------------------------------------------


def linearizability(history: History, ledger: Ledger) -> list[Operation]:
    """One order explains all answers; returns it. The ledger only tells which unknown writes happened, and when."""
    appeared: dict[bytes, list[int]] = {}
    for revision, events in ledger.events.items():
        for is_put, _, version in events:
            if is_put and version is not None:
                appeared.setdefault(version[0], []).append(revision)
    for value, revisions in appeared.items():
        if len(set(revisions)) > 1:
            raise Violation(f'exactly once: the write of {value!r} was applied at revisions {sorted(revisions)}')
    for op in history.operations:
        if op.end == NEVER and op.kind in ('put', 'cas', 'txn'):
            value = op.arguments[1] if op.kind == 'put' else op.arguments[2] if op.kind == 'cas' else _marker(op)
            op.hint = appeared.get(value, [-1])[0]
    ops = [op for op in history.operations if op.end == NEVER or not _refused(op)]
    ops += [
        Operation('ledger', 'end', (lease, ended.revision), 0, ended.moment, ended.revision)
        for lease, ended in ledger.ended.items()
    ]
    try:
        verdict = linear.check(ops, may=lambda before, after: _effect(before, after) == _told(ledger, after.revision))
    except linear.Undecided as e:
        raise Violation(f'linearizability: {e}') from e
    if verdict.order is None:
        raise Violation(f'linearizability: {verdict}')
    return verdict.order


def _marker(op: Operation) -> bytes:
    return next(w[2] for w in op.arguments[1] if w[0] == 'put')


def _refused(op: Operation) -> bool:
    """Certainly nothing was done, and nothing is said about the state."""
    return isinstance(op.result, Exception) and not isinstance(op.result, LeaseNotFound)


def events_follow(order: Sequence[Operation], ledger: Ledger) -> None:
    """Each revision has exactly the events of the operation that made it."""
    state = linear.State()
    for op in order:
        after = linear.step(state, op)
        assert after is not None
        if after.revision > state.revision:
            want, got = _effect(state, after), _told(ledger, after.revision)
            if got != want:
                raise Violation(f'events: revision {after.revision} should be {want}, is {got}')
        state = after


def _effect(before: linear.State, after: linear.State) -> dict[bytes, Any]:
    old, new = dict(before.keys), dict(after.keys)
    return {k: v for k, v in new.items() if old.get(k) != v} | {k: None for k in old if k not in new}


def _told(ledger: Ledger, revision: int) -> dict[bytes, Any]:
    return {key: version and tuple(version) for _, key, version in ledger.events.get(revision, ())}


def states_agree(dumps: Mapping[int, Mapping[str, Any]], ledger: Ledger) -> None:
    """All members hold the same, and it is what the events add up to."""
    (one, first), *others = dumps.items()
    for member, dump in others:
        for name, part in dump.items():
            if part != first[name]:
                raise Violation(
                    f'hash: {name} of member {member} is {part!r:.400}, of member {one} {first[name]!r:.400}'
                )
    live: dict[bytes, LogEvent] = {}
    for revision in sorted(ledger.events):
        for event in ledger.events[revision]:
            if event[0]:
                live[event[1]] = event
            else:
                live.pop(event[1], None)
    keys = [k for k, _ in first['KEYS']]
    if sorted(live) != keys:
        raise Violation(f'state: keys are {keys}, the events leave {sorted(live)}')
    if first['revision'] != ledger.revision or sorted(ledger.events) != list(range(2, ledger.revision + 1)):
        raise Violation(f'revision: state is at {first["revision"]}, {len(ledger.events)} revisions had events')


def glimpses(history: History, ledger: Ledger) -> None:
    """A read of the past, or of one member that may be behind, shows exactly the state of the revision it names."""
    versions = _versions(ledger)
    for key, revision, version in history.glimpses:
        if (was := _before(versions, key, revision + 1)) != version:
            raise Violation(f'read: {key!r} at {revision} was {was}, the answer says {version}')


# --- watches ----------------------------------------------------------------------------------------------------------


def watch_guarantees(history: History, ledger: Ledger, agreed: int | None = None) -> None:
    """Ordered, unique, atomic, complete, resumable, with true previous values and honest bookmarks.

    agreed: the revision up to which watches that stayed open must have told everything; None: the ledger's last.
    """
    agreed = ledger.revision if agreed is None else agreed
    for run in history.watches:
        try:
            _watch(run, history, ledger, agreed)
        except Violation as e:
            raise Violation(f'watch of {run.client} [{run.start!r}..{run.end!r}) from {run.asked}: {e}') from None


def _watch(run: WatchRun, history: History, ledger: Ledger, agreed: int) -> None:
    if run.opened == NEVER:
        return
    later = [op.result for op in history.operations if op.kind == 'put' and op.call > run.opened and op.end != NEVER]
    if not run.asked and any(isinstance(r, int) and r < run.first for r in later):
        raise Violation(f'it begins at {run.first}, after a write that began after it stood')
    position = run.first
    seen: list[tuple[int, Any]] = []
    for revision, events in run.batches:
        if not events:
            if not run.progress:
                raise Violation('a progress notice that nobody asked for')
            if revision < position - 1:
                raise Violation(f'bookmark: progress {revision} after {position - 1}')
            _complete(run, ledger, seen, position, revision)
            position = revision + 1
            continue
        revisions = [e.kv.mod_revision for e in events]
        if revisions != sorted(revisions) or revisions[-1] > revision:
            raise Violation(f'ordered: a batch at {revision} has events of {revisions}')
        if revisions[0] < position:
            raise Violation(f'unique and atomic: revision {revisions[0]} arrives after {position - 1}')
        seen += [(e.kv.mod_revision, e) for e in events]
        _complete(run, ledger, seen, position, revision)
        position = revision + 1
    if not (run.closed or run.compacted):
        _complete(run, ledger, seen, position, max(agreed, position - 1))


def _complete(run: WatchRun, ledger: Ledger, seen: list[tuple[int, Any]], low: int, high: int) -> None:
    """Between `low` and `high`, exactly the ledger's events were seen; empties `seen`."""
    want = [
        (revision, event)
        for revision in range(max(low, 2), high + 1)
        for event in ledger.events.get(revision, ())
        if run.wants(event[0], event[1])
    ]
    for (revision, event), (got, shown) in zip(want, seen, strict=False):
        is_put, key, version = event
        told = (shown.type == 'put', shown.kv.key, plain(shown.kv) if is_put else None)
        if got != revision or told != (is_put, key, version):
            raise Violation(f'complete: expected {event} at {revision}, got {told} at {got}')
    if len(want) != len(seen):
        odd = want[len(seen) :] or seen[len(want) :]
        raise Violation(
            f'{"complete: missing" if len(want) > len(seen) else "unique: too many"} {odd[:3]} up to {high}'
        )
    seen.clear()


def _versions(ledger: Ledger) -> dict[bytes, tuple[list[int], list[Any]]]:
    """Key → revisions that changed it, and what each left."""
    found: dict[bytes, tuple[list[int], list[Any]]] = {}
    for revision in sorted(ledger.events):
        for _, key, version in ledger.events[revision]:
            revisions, versions = found.setdefault(key, ([], []))
            revisions.append(revision)
            versions.append(version)
    return found


def _before(versions: Mapping[bytes, tuple[list[int], list[Any]]], key: bytes, revision: int) -> Any:
    revisions, values = versions.get(key, ([], []))
    at = bisect_left(revisions, revision)
    return values[at - 1] if at else None


def previous_values(history: History, ledger: Ledger, compacted: int) -> None:
    """A previous version is the one before; it may be absent only on creation or when it has been compacted."""
    versions = _versions(ledger)
    for run in history.watches:
        for e in (e for _, events in run.batches for e in events):
            before = _before(versions, e.kv.key, e.kv.mod_revision)
            if plain(e.prev) != before and (e.prev is not None or e.kv.mod_revision > compacted):
                raise Violation(f'prev-value: of {e.kv.key!r} at {e.kv.mod_revision} is {plain(e.prev)}, was {before}')


# --- leases -----------------------------------------------------------------------------------------------------------


def lease_safety(history: History, ledger: Ledger, changes: Sequence[float], dark: Dark, finish_s: float) -> None:
    """No lease ends before its time, none lives for ever, and a new leader does not start the time again.

    changes: moments (s) at which a leader took over.
    """
    for lease in history.leases.values():
        ended = ledger.ended.get(lease.id)
        if ended is not None and not lease.revoked:
            not_early(lease, ended)
        if lease.confirmed:
            at = finish_s if ended is None else ended.at_s
            took_over = sorted(c for c in changes if lease.last_asked <= c <= at)
            _not_late(lease, at, took_over, dark)
            if took_over:
                _goes_on(lease, at, took_over[-1], ledger.checkpoints.get(lease.id, ()), dark)


def not_early(lease: LeaseRun, ended: Ended) -> None:
    """A confirmed renewal holds for its whole time."""
    for asked, answered in lease.confirmed:
        if answered <= ended.at_s < asked + lease.ttl_s:
            raise Violation(
                f'lease {lease.id}: renewed for {lease.ttl_s} s at {asked:.3f}, but ended at {ended.at_s:.3f}'
            )


def _not_late(lease: LeaseRun, at: float, took_over: Sequence[float], dark: Dark) -> None:
    bound, last = lease.last_asked + lease.ttl_s, lease.last_asked
    for change in took_over:
        # A new leader gives back what passed since the last checkpoint, and no more than what passed at all.
        bound += min(change - last, max(5.0, lease.ttl_s / 10)) + SLACK_S
        last = change
    bound += dark.between(lease.last_asked, at) + SLACK_S
    if at > bound:
        raise Violation(
            f'lease {lease.id} of {lease.ttl_s} s, last asked for at {lease.last_asked:.3f}, lives at {at:.3f}; '
            f'{len(took_over)} changes of leader explain no more than {bound:.3f}'
        )


def _goes_on(lease: LeaseRun, at: float, change: float, records: Sequence[tuple[float, int]], dark: Dark) -> None:
    """The last leader gave the lease no more time than was on record of it."""
    before = [remaining_s for moment, remaining_s in records if moment <= change][-1:] or [lease.ttl_s]
    after = [remaining_s for moment, remaining_s in records if moment > change]  # a withdrawal may still arrive
    on_record = max(before + after)
    bound = change + on_record + dark.between(change, at) + SLACK_S
    if at > bound:
        raise Violation(
            f'lease {lease.id} of {lease.ttl_s} s, last asked for at {lease.last_asked:.3f}, had {on_record} s on '
            f'record when a leader took over at {change:.3f}; it lives at {at:.3f}, after {bound:.3f}'
        )
