"""Fan-out: who is told of which change, with no more work per watcher than appending to its buffer.

A publisher never waits. A watcher whose buffer is full is cut: it gets `Overflow`, its connection is closed, and its
client lists again or resumes from the last version it saw.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from kapi.storage.entries import CacheEvent, Entry, EventType

WATCH_BUFFER_EVENTS_MAX = 10_000
"""Events one watcher may lag behind before it is cut; a few seconds of the busiest resource, some MB at the worst."""

Matches = Callable[[Entry], bool]
Delivery = tuple[EventType, CacheEvent]


class Overflow(Exception):
    """The watcher was too slow and has been cut."""


class Watcher:
    """One watch: a filter, a bounded buffer and a wake-up."""

    __slots__ = ('_buffer', '_closed', '_matches', '_waiter', 'on_cut', 'progress')

    def __init__(self, matches: Matches | None) -> None:
        self._matches = matches
        self._buffer: list[Delivery] = []
        self._waiter: asyncio.Future[None] | None = None
        self._closed: type[Exception] | None = None
        self.on_cut: Callable[[], None] | None = None
        """Called when the watcher is cut, to break off a write that is stuck."""
        self.progress = 0
        """Everything up to this revision that concerns the watcher is in the buffer or was taken from it."""

    def offer(self, event: CacheEvent) -> None:
        """Buffer the event if it concerns this watcher; never waits."""
        kind = event.type if self._matches is None else _transition(self._matches, event)
        if kind is None or self._closed is not None:
            return
        if len(self._buffer) >= WATCH_BUFFER_EVENTS_MAX:
            self.cut()
            return
        self._buffer.append((kind, event))
        if self._waiter is not None:
            self.wake()

    def cut(self) -> None:
        """End the watch: what is buffered is dropped, the next `take` raises Overflow."""
        self._closed = Overflow
        self._buffer.clear()
        self.wake()
        if self.on_cut is not None:
            self.on_cut()

    @property
    def pending(self) -> bool:
        """Whether something waits to be taken."""
        return bool(self._buffer)

    def wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def take(self) -> list[Delivery]:
        """All that is buffered; waits while that is nothing, and returns empty after a `wake`. Raises Overflow."""
        if not self._buffer and self._closed is None:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._closed is not None:
            raise self._closed
        taken, self._buffer = self._buffer, []
        return taken


def _transition(matches: Matches, event: CacheEvent) -> EventType | None:
    """What the change is to somebody who sees only matching objects."""
    if event.type == 'ADDED':
        return 'ADDED' if matches(event.entry) else None
    if event.type == 'DELETED':
        return 'DELETED' if matches(event.entry) else None
    now = matches(event.entry)
    before = event.prev is not None and matches(event.prev)
    if now:
        return 'MODIFIED' if before else 'ADDED'
    return 'DELETED' if before else None


def replay(matches: Matches | None, events: Iterator[CacheEvent]) -> list[Delivery]:
    """What a watcher with this filter would have got."""
    if matches is None:
        return [(e.type, e) for e in events]
    return [(kind, e) for e in events if (kind := _transition(matches, e)) is not None]


class Hub:
    """The watchers of one resource, grouped by key prefix so that a change visits only those it may concern."""

    def __init__(self) -> None:
        self._groups: dict[str, dict[Watcher, None]] = {}

    def __len__(self) -> int:
        return sum(len(g) for g in self._groups.values())

    def add(self, scope: str, watcher: Watcher) -> None:
        """`scope`: the resource's prefix, a namespace's prefix below it, or one object's whole key."""
        self._groups.setdefault(scope, {})[watcher] = None

    def remove(self, scope: str, watcher: Watcher) -> None:
        group = self._groups.get(scope)
        if group is not None:
            group.pop(watcher, None)
            if not group:
                del self._groups[scope]

    def publish(self, event: CacheEvent, scopes: tuple[str, ...]) -> int:
        """Tell those whom it may concern; how many they were."""
        told = 0
        for scope in scopes:
            group = self._groups.get(scope)
            if group:
                told += len(group)
                for watcher in tuple(group):
                    watcher.offer(event)
        return told

    def everyone(self) -> Iterator[Watcher]:
        for group in tuple(self._groups.values()):
            yield from tuple(group)
