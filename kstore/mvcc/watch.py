"""Who hears of which change: feeds, and one encoded frame of events for all that listen to a feed.

A *feed* is a range of keys with flags. Every watch of the same range and flags, on any connection, is served by the
same feed once it has caught up with the present: the events of a batch are encoded once, as a whole frame, and
delivering them costs a listener one append of shared bytes. Watches in the past read `history` until they reach the
present.

To find the feeds of a key, the line of keys is cut at every start and end of a feed; each piece knows its feeds, so a
look-up is one bisection however many feeds there are.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from kstore.errors import Compacted
from kstore.model import NO_END, WatchFlag
from kstore.mvcc.store import Change, Store, pack_array
from kstore.wire import Stream, frame, pack

FRAGMENT_BYTES = 1024 * 1024
"""Events per frame; a longer batch is split, with `more` set on all frames but the last."""
HISTORY_RECORDS = 1_000
"""Log records read for one watch before others get a turn (a revision is never split)."""
_NIL = b'\xc0'


class Scope(NamedTuple):
    """What a feed covers; equal scopes share a feed."""

    key: bytes
    end: bytes | None
    flags: int

    def covers(self, key: bytes) -> bool:
        if self.end is None:
            return key == self.key
        return key >= self.key and (self.end == NO_END or key < self.end)

    def wants(self, change: Change) -> bool:
        return not self.flags & (WatchFlag.NO_PUT if change.is_put else WatchFlag.NO_DELETE)


class Listener(Protocol):
    """A connection."""

    def deliver(self, feed: Feed, frames: Sequence[bytes], first: int) -> None:
        """Append shared frames whose oldest revision is `first`; must not block, may choose to read history later."""


@dataclass(eq=False, slots=True)
class Feed:
    id: int
    scope: Scope
    listeners: list[Listener] = field(default_factory=list)
    pending: list[Change] = field(default_factory=list)
    """Changes of the batch being published."""
    progress: int = 0
    """Newest revision the listeners were told of."""


class Encoder:
    """Packed events of one batch, each at most once with and once without the previous version."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._plain: dict[bytes, bytes] = {}
        self._full: dict[bytes, bytes] = {}

    def event(self, change: Change, with_prev: bool) -> bytes:
        """`[type, key-value, previous or nil]`."""
        known = self._full if with_prev else self._plain
        record = change.record
        packed = known.get(record)
        if packed is None:
            previous = (self._store.previous(change) if with_prev else None) or _NIL
            packed = known[record] = b'\x93' + record[12:13] + record[13:] + previous
        return packed

    def frames(self, head: bytes, scope: Scope, changes: Iterable[Change], revision: int) -> list[bytes]:
        """Frames `[0, kind, id, revision, more, events]`; `head` is the packed `0, kind, id`."""
        with_prev = bool(scope.flags & WatchFlag.PREV_KV)
        frames: list[bytes] = []
        events: list[bytes] = []
        size = 0
        head = b'\x96' + head + pack(revision)
        for change in changes:
            packed = self.event(change, with_prev)
            if size + len(packed) > FRAGMENT_BYTES and events:
                frames.append(frame(head + b'\xc3' + pack_array(events)))
                events, size = [], 0
            events.append(packed)
            size += len(packed)
        frames.append(frame(head + b'\xc2' + pack_array(events)))
        return frames


class Hub:
    """All feeds of a member."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._feeds: dict[Scope, Feed] = {}
        self._next_id = 1
        self._cuts: list[bytes] = []
        self._pieces: list[tuple[Feed, ...]] = []
        self._exact: dict[bytes, list[Feed]] = {}
        self._stale = False
        self.published = store.revision
        """Everything up to this revision has been given to the feeds."""
        self.history_records = HISTORY_RECORDS
        self.events = 0
        """Events handed to listeners, for metrics."""

    def __len__(self) -> int:
        return len(self._feeds)

    def join(self, scope: Scope, listener: Listener) -> Feed:
        feed = self._feeds.get(scope)
        if feed is None:
            feed = self._feeds[scope] = Feed(self._next_id, scope)
            self._next_id += 1
            self._stale = True
        feed.listeners.append(listener)
        return feed

    def leave(self, feed: Feed, listener: Listener) -> None:
        feed.listeners.remove(listener)
        if not feed.listeners:
            del self._feeds[feed.scope]
            self._stale = True

    def feeds_of(self, key: bytes) -> Sequence[Feed]:
        if self._stale:
            self._rebuild()
        exact = self._exact.get(key, ())
        at = bisect_right(self._cuts, key) - 1
        ranges = self._pieces[at] if at >= 0 else ()
        return (*exact, *ranges) if exact else ranges

    def publish(self, changes: Sequence[Change], revision: int) -> None:
        """Tell every feed of its changes among `changes` (whole revisions, in order)."""
        if self._feeds:
            touched: list[Feed] = []
            for change in changes:
                for feed in self.feeds_of(change.key):
                    if feed.scope.wants(change):
                        if not feed.pending:
                            touched.append(feed)
                        feed.pending.append(change)
            encoder = Encoder(self._store)
            for feed in touched:
                mine, feed.pending = feed.pending, []
                frames = encoder.frames(feed_head(feed.id), feed.scope, mine, revision)
                feed.progress = revision
                self.events += len(mine) * len(feed.listeners)
                for listener in tuple(feed.listeners):
                    listener.deliver(feed, frames, mine[0].revision)
        self.published = revision

    def progress(self) -> None:
        """Tell the feeds that want it, and have heard nothing since last time, how far the store is."""
        for feed in tuple(self._feeds.values()):
            if feed.scope.flags & WatchFlag.PROGRESS:
                if feed.progress < self.published:
                    note = progress_frame(feed, self.published)
                    for listener in tuple(feed.listeners):
                        listener.deliver(feed, (note,), self.published + 1)
                feed.progress = -1  # at rest: one notice per interval

    def history(self, scope: Scope, start: int) -> tuple[list[Change], int]:
        """Changes of `scope` from revision `start` on, a slice of the log; and the last revision looked at.

        Raises Compacted when `start` is too old.
        """
        store = self._store
        if start < store.compacted:
            raise Compacted(f'revision {start} has been compacted', store.compacted)
        found: list[Change] = []
        seen, last = 0, start - 1
        for change in store.history(start, store.revision + 1):
            if seen >= self.history_records and change.revision != last:
                return found, last
            seen, last = seen + 1, change.revision
            if scope.covers(change.key) and scope.wants(change):
                found.append(change)
        return found, store.revision

    def _rebuild(self) -> None:
        self._stale = False
        self._exact = {}
        ranges = []
        for feed in self._feeds.values():
            if feed.scope.end is None:
                self._exact.setdefault(feed.scope.key, []).append(feed)
            else:
                ranges.append(feed)
        ends = {f.scope.end for f in ranges if f.scope.end is not None and f.scope.end != NO_END}
        self._cuts = sorted({f.scope.key for f in ranges} | ends)
        self._pieces = [tuple(f for f in ranges if f.scope.covers(cut)) for cut in self._cuts]


def feed_head(feed: int) -> bytes:
    return bytes((0, Stream.FEED)) + pack(feed)


def history_head(watch: int) -> bytes:
    return bytes((0, Stream.HISTORY)) + pack(watch)


def progress_frame(feed: Feed, revision: int) -> bytes:
    return frame(pack([0, int(Stream.PROGRESS), feed.id, revision]))
