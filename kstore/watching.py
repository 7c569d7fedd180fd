"""The watches of one connection: those in the past are pumped from history, those in the present are fed.

States of a watch: *catching up* (its own frames, by watch id) → *fed* (frames of its feed, shared by all watches of
the same scope on this and every other connection). A connection whose buffer is full does not buffer: its
subscriptions fall behind, remember where, and are pumped from history once the buffer has drained, as if they had just
resumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from kstore.errors import BadRequest, Compacted, Overloaded, StoreError, to_wire
from kstore.mvcc.store import Store
from kstore.mvcc.watch import Encoder, Feed, Hub, Scope, feed_head, history_head, progress_frame
from kstore.wire import Stream, frame, pack

WATCHES_MAX = 10_000
"""Watches of one connection; one more is refused."""


class Outlet(Protocol):
    """What the watches need of their connection."""

    @property
    def writable(self) -> bool: ...

    def send(self, data: bytes) -> None: ...

    def call_soon_pump(self) -> None:
        """Call `Watches.pump` in a later turn of the loop."""


@dataclass(eq=False, slots=True)
class Watch:
    id: int
    scope: Scope
    position: int
    """Next revision to send, while catching up."""


@dataclass(eq=False, slots=True)
class Subscription:
    """A feed on this connection."""

    feed: Feed
    watches: set[int] = field(default_factory=set)
    behind: int = 0
    """First revision not sent; 0 while up to date."""


class Watches:
    """See the module's text."""

    def __init__(self, hub: Hub, store: Store, outlet: Outlet) -> None:
        self._hub = hub
        self._store = store
        self._outlet = outlet
        self._catching_up: dict[int, Watch] = {}
        self._fed: dict[int, Subscription] = {}
        self._subscriptions: dict[Scope, Subscription] = {}
        self._by_feed: dict[int, Subscription] = {}
        self._pumping = False

    def __len__(self) -> int:
        return len(self._catching_up) + len(self._fed)

    @property
    def slow(self) -> int:
        """How many are not in the present."""
        return len(self._catching_up) + sum(len(s.watches) for s in self._subscriptions.values() if s.behind)

    def add(self, watch_id: int, scope: Scope, start: int) -> int:
        """Begin a watch at revision `start`, or after the present when it is 0; returns the revision it starts at.

        Raises Compacted, BadRequest (the id is taken), Overloaded, Stopped.
        """
        self._store.check_whole()
        if watch_id in self._catching_up or watch_id in self._fed:
            raise BadRequest('watch id is in use on this connection')
        if len(self) >= WATCHES_MAX:
            raise Overloaded(f'more than {WATCHES_MAX} watches on one connection')
        start = start or self._hub.published + 1
        if start < self._store.compacted:
            raise Compacted(f'revision {start} has been compacted', self._store.compacted)
        self._catching_up[watch_id] = Watch(watch_id, scope, start)
        self._schedule()
        return start

    def remove(self, watch_id: int) -> None:
        """End a watch; an unknown one is fine."""
        if self._catching_up.pop(watch_id, None) is None:
            subscription = self._fed.pop(watch_id, None)
            if subscription is not None:
                subscription.watches.discard(watch_id)
                if not subscription.watches:
                    self._unsubscribe(subscription)

    def progress(self, watch_id: int) -> None:
        """Say how far the watch is, if it is in the present."""
        subscription = self._fed.get(watch_id)
        if subscription is not None and not subscription.behind:
            self._outlet.send(progress_frame(subscription.feed, self._hub.published))

    def close(self) -> None:
        for subscription in tuple(self._subscriptions.values()):
            self._unsubscribe(subscription)
        self._catching_up.clear()
        self._fed.clear()

    def deliver(self, feed: Feed, frames: Sequence[bytes], first: int) -> None:
        """From the hub: see `kstore.mvcc.watch.Listener`."""
        subscription = self._by_feed[feed.id]
        if subscription.behind:
            return
        outlet = self._outlet
        if outlet.writable:
            for data in frames:
                outlet.send(data)
        else:
            subscription.behind = first

    def restart(self, published: int) -> None:
        """The whole state was replaced by a snapshot: everyone continues from history after `published`."""
        for subscription in self._subscriptions.values():
            subscription.behind = subscription.behind or published + 1
        self._schedule()

    def resume(self) -> None:
        """The connection's buffer has drained."""
        self._schedule()

    def pump(self) -> None:
        """Send slices of history until everyone is in the present, the buffer is full, or it is others' turn."""
        self._pumping = False
        if not self._store.whole:
            return  # `restart` comes when the snapshot is in
        for subscription in [s for s in self._subscriptions.values() if s.behind]:
            if not self._outlet.writable:
                return
            self._pump_subscription(subscription)
        for watch in list(self._catching_up.values()):
            if not self._outlet.writable:
                return
            self._pump_watch(watch)
        if self._catching_up or any(s.behind for s in self._subscriptions.values()):
            self._schedule()

    def _schedule(self) -> None:
        if not self._pumping and self._outlet.writable:
            self._pumping = True
            self._outlet.call_soon_pump()

    def _pump_subscription(self, subscription: Subscription) -> None:
        feed = subscription.feed
        try:
            last = self._send(feed_head(feed.id), feed.scope, subscription.behind)
        except Compacted as e:
            for watch_id in tuple(subscription.watches):
                self.remove(watch_id)
                self._cancel(watch_id, e)
            return
        subscription.behind = 0 if last >= self._hub.published else last + 1

    def _pump_watch(self, watch: Watch) -> None:
        subscription = self._subscriptions.get(watch.scope)
        if subscription is not None and subscription.behind:
            return  # the subscription first: both must reach the present in the same turn
        try:
            if watch.position <= self._hub.published:
                watch.position = self._send(history_head(watch.id), watch.scope, watch.position) + 1
        except Compacted as e:
            self.remove(watch.id)
            self._cancel(watch.id, e)
            return
        if watch.position <= self._hub.published:
            return
        if subscription is None:
            feed = self._hub.join(watch.scope, self)
            subscription = self._subscriptions[watch.scope] = self._by_feed[feed.id] = Subscription(feed)
        del self._catching_up[watch.id]
        subscription.watches.add(watch.id)
        self._fed[watch.id] = subscription
        note = [0, int(Stream.CAUGHT_UP), watch.id, subscription.feed.id, self._hub.published]
        self._outlet.send(frame(pack(note)))

    def _send(self, head: bytes, scope: Scope, start: int) -> int:
        """One slice of history; returns its last revision."""
        changes, last = self._hub.history(scope, start)
        if changes:
            for data in Encoder(self._store).frames(head, scope, changes, last):
                self._outlet.send(data)
        return last

    def _cancel(self, watch_id: int, error: StoreError) -> None:
        code, body = to_wire(error)
        self._outlet.send(frame(pack([0, int(Stream.CANCELLED), watch_id, code, body])))

    def _unsubscribe(self, subscription: Subscription) -> None:
        self._hub.leave(subscription.feed, self)
        del self._subscriptions[subscription.feed.scope]
        del self._by_feed[subscription.feed.id]
