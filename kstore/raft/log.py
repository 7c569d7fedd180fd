"""The replicated log in memory: which entries there are, which are on disk, which are committed, which are applied.

    offset        applied      stable     committed                      last
      │              │            │           │                            │     (stable and committed in either order)
    ──┴──────────────┴────────────┴───────────┴────────────────────────────┘
    snapshot │ handed to the state machine │ still to be handed out

Entries up to `offset` are gone: a snapshot covers them. `handed` counts what was given out for writing, `stable` what
the disk has confirmed. A write is confirmed in the order it was given out; when a conflicting suffix is cut while its
write is still under way, confirmations of writes from before the cut must not count, so each cut starts a new `epoch`.
Nothing is handed out as committed that is not stable: the state machine never runs ahead of its own log.
"""

from __future__ import annotations

from collections.abc import Sequence

from kstore.raft.errors import Compacted, LogCorrupt
from kstore.raft.messages import Entry, SnapshotMeta


class RaftLog:
    """Invariants: offset <= applied <= min(committed, stable); committed <= last; stable <= handed <= last."""

    __slots__ = (
        '_entries',
        'applied',
        'bytes',
        'committed',
        'epoch',
        'handed',
        'last',
        'offset',
        'offset_term',
        'stable',
    )

    def __init__(self, offset: int, offset_term: int, entries: Sequence[Entry]) -> None:
        """`entries` come from disk, so all of them are stable. Raises LogCorrupt when they are not consecutive."""
        self.offset = offset
        self.offset_term = offset_term
        self._entries = list(entries)
        for at, entry in enumerate(self._entries, offset + 1):
            if entry.index != at:
                raise LogCorrupt(f'log entry {at} is missing: found {entry.index} in its place')
        self.last = offset + len(self._entries)
        self.stable = self.handed = self.last
        self.committed = self.applied = offset
        self.epoch = 0
        self.bytes = _size(self._entries)
        """Data held in memory."""

    @property
    def first(self) -> int:
        """Index of the oldest entry that is still here (or would be)."""
        return self.offset + 1

    @property
    def last_term(self) -> int:
        return self._entries[-1].term if self._entries else self.offset_term

    def term(self, index: int) -> int:
        """Term of the entry at `index`; 0 when it is compacted or does not exist yet."""
        at = index - self.offset
        if 0 < at <= len(self._entries):
            return self._entries[at - 1].term
        return self.offset_term if at == 0 else 0

    def matches(self, index: int, term: int) -> bool:
        """Whether an entry with this index and term is here, or is the end of the snapshot."""
        return self.offset <= index <= self.last and self.term(index) == term

    def slice(self, lo: int, hi: int, bytes_max: int) -> list[Entry]:
        """Entries [lo, hi], at least one if lo <= hi, then only while their data fits in `bytes_max`.

        Raises Compacted when `lo` is gone.
        """
        if lo <= self.offset:
            raise Compacted(f'entry {lo} is compacted; the log starts at {self.first}')
        chosen = self._entries[lo - self.first : hi - self.offset]
        room = bytes_max
        for n, entry in enumerate(chosen):
            room -= len(entry.data)
            if room < 0 and n:
                return chosen[:n]
        return chosen

    def append(self, entries: Sequence[Entry]) -> None:
        """Entries that follow on `last`."""
        self._entries.extend(entries)
        self.last += len(entries)
        self.bytes += _size(entries)

    def merge(self, entries: Sequence[Entry]) -> None:
        """A leader's entries, the one before the first already known to match: keep what agrees, replace the rest.

        Only a real conflict cuts: a late duplicate of an old append must not rewind the log (thesis §3.5).
        """
        for n, entry in enumerate(entries):
            if entry.index > self.last:
                self.append(entries[n:])
                return
            if self.term(entry.index) != entry.term:
                self._cut(entry.index)
                self.append(entries[n:])
                return

    def _cut(self, index: int) -> None:
        """Drop entries from `index` on."""
        if index <= self.committed:
            raise LogCorrupt(f'entry {index} conflicts with a committed one (committed to {self.committed})')
        self.bytes -= _size(self._entries[index - self.first :])
        del self._entries[index - self.first :]
        self.last = index - 1
        if index <= self.handed:
            self.handed = index - 1
            self.stable = min(self.stable, self.handed)
            self.epoch += 1

    def conflict_hint(self, index: int, term: int) -> tuple[int, int]:
        """The largest (index, term) here with index <= `index` and term <= `term`: where logs may still agree.

        Either side of a rejected append uses it to skip a whole term at a time. Term 0 means "unknown".
        """
        index = min(index, self.last)
        while index > self.offset:
            here = self.term(index)
            if here <= term:
                return index, here
            index -= 1
        return index, self.term(index)

    def is_up_to_date(self, index: int, term: int) -> bool:
        """Whether a log ending in (`index`, `term`) holds at least what this one does (thesis §3.6.1)."""
        return (term, index) >= (self.last_term, self.last)

    def commit_to(self, index: int) -> None:
        """Raise the commit index. Raises LogCorrupt when the entries are not here: this member lost part of its log."""
        if index > self.last:
            raise LogCorrupt(
                f"entry {index} is committed with this member's vote, but its log ends at {self.last}: "
                'the data directory lost acknowledged entries; remove this member and add it anew'
            )
        self.committed = max(self.committed, index)

    def take_unstable(self) -> tuple[Entry, ...]:
        """Entries that were not yet given out for writing."""
        if self.handed == self.last:
            return ()
        lo, self.handed = self.handed - self.offset, self.last
        return tuple(self._entries[lo:])

    def written(self, epoch: int, last: int) -> None:
        """Everything given out up to and including `last`, in `epoch`, is on disk."""
        if epoch == self.epoch:
            self.stable = max(self.stable, last)

    def take_committed(self, bytes_max: int) -> tuple[Entry, ...]:
        """The next entries for the state machine, some `bytes_max` at a time."""
        hi = min(self.committed, self.stable)
        if hi <= self.applied:
            return ()
        chosen = self.slice(self.applied + 1, hi, bytes_max)
        self.applied += len(chosen)
        return tuple(chosen)

    def compact(self, index: int) -> None:
        """Forget entries up to `index`, which must be applied; going back is a no-op."""
        if index > self.applied:
            raise ValueError(f"can't compact to {index}: only {self.applied} is applied")
        if index > self.offset:
            term = self.term(index)
            self.bytes -= _size(self._entries[: index - self.offset])
            del self._entries[: index - self.offset]
            self.offset, self.offset_term = index, term

    def restore(self, meta: SnapshotMeta) -> None:
        """Start over behind a snapshot; it counts as applied, and as stable once its write is confirmed."""
        self._entries.clear()
        self.bytes = 0
        self.offset, self.offset_term = meta.index, meta.term
        self.committed = self.applied = self.stable = self.handed = self.last = meta.index
        self.epoch += 1


def _size(entries: Sequence[Entry]) -> int:
    return sum([len(e.data) for e in entries])
