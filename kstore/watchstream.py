"""The client's side of watches: ordered, unique, without a gap, whatever happens to members and connections.

A stream knows the next revision it has not yet given to its reader. Whenever its connection breaks, or its reader is
so slow that the stream is full, the server is asked again from that revision; what arrives twice is dropped by
revision.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from kstore.errors import Stopped, StoreError, from_wire
from kstore.model import Event, KeyValue, WatchBatch
from kstore.wire import Stream

if TYPE_CHECKING:
    from kstore.client import StoreClient

STREAM_EVENTS_MAX = 10_000
"""Events held for a reader; then the watch is ended at the server and resumed from history once they are read."""
_TYPES = ('delete', 'put')


class WatchStream:
    """`async with client.watch(...) as stream: async for batch in stream`. Made by `StoreClient.watch`.

    Ends with Compacted when the revision to resume from is gone, with Stopped when the client is closed.
    """

    def __init__(self, client: StoreClient, start: bytes, end: bytes | None, revision: int, flags: int) -> None:
        self._client = client
        self.start = start
        self.end = end
        self.flags = flags
        self.id = 0
        self.next = revision
        """First revision not delivered yet; 0 until the server has said where the watch began."""
        self.fed_by = 0
        """Feed on the current connection; 0 while catching up."""
        self.suspended = False
        self._batches: deque[WatchBatch] = deque()
        self._events = 0
        self._error: StoreError | None = None
        self._on_batch: Callable[[WatchBatch], None] | None = None
        self._on_end: Callable[[StoreError], None] = lambda error: None
        self._waiter: asyncio.Future[None] | None = None
        self._fragments: list[Event] = []
        self._started: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Self:
        """Returns once the server holds the watch: every later write is in it. Raises Compacted, Unreachable."""
        self._client.register(self)
        try:
            async with asyncio.timeout(self._client.deadline_s):
                await self._started
        except TimeoutError:
            self._client.unregister(self)
            raise self._client.unavailable() from None
        except BaseException:
            self._client.unregister(self)
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the watch."""
        self._client.unregister(self)
        self.fail(Stopped('the watch was closed'))

    def follow(self, on_batch: Callable[[WatchBatch], None], on_end: Callable[[StoreError], None]) -> None:
        """Hand over what comes by callbacks instead of iteration: no task has to wake up for it.

        `on_end` gets the error that iteration would raise. Neither may block or raise; they run while bytes are read.
        """
        self._on_batch, self._on_end = on_batch, on_end
        while self._batches:
            on_batch(self._take())
        if self._error is not None:
            on_end(self._error)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WatchBatch:
        if not self.id:
            await self.__aenter__()
        while not self._batches:
            if self._error is not None:
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._take()

    def _take(self) -> WatchBatch:
        batch = self._batches.popleft()
        self._events -= len(batch.events)
        if self.suspended and not self._batches:
            self.suspended = False
            self._client.resume(self)
        return batch

    # -- from the client -----------------------------------------------------------------------------------------

    def began(self, revision: int) -> None:
        self.next = self.next or revision
        if not self._started.done():
            self._started.set_result(None)

    def fail(self, error: StoreError) -> None:
        if self._error is None:
            self._error = error
            self._on_end(error)
        if not self._started.done():
            self._started.set_exception(error)
            self._started.exception()  # the reader may have gone
        self._wake()

    def reset(self) -> None:
        """The connection is gone; the next one begins at `next`."""
        self.fed_by = 0
        self._fragments = []

    def deliver(self, batch: WatchBatch, more: bool) -> None:
        """Events of whole revisions (the last piece has `more` False); the batch is shared with other streams."""
        if more or self._fragments:
            self._fragments += batch.events
            if more:
                return
            batch = WatchBatch(batch.revision, tuple(self._fragments))
            self._fragments = []
        revision, events = batch
        if revision < self.next:
            return
        if events and events[0].kv.mod_revision < self.next:
            batch = WatchBatch(revision, tuple(e for e in events if e.kv.mod_revision >= self.next))
        self.next = revision + 1
        if not batch.events:
            return
        self._push(batch)
        if self._events > STREAM_EVENTS_MAX:
            self.suspended = True
            self._client.suspend(self)

    def progress(self, revision: int) -> None:
        if revision + 1 >= self.next > 0:
            self.next = revision + 1
            if self._batches and not self._batches[-1].events:
                self._batches.pop()
            self._push(WatchBatch(revision, ()))

    def _push(self, batch: WatchBatch) -> None:
        if self._on_batch is not None:
            self._on_batch(batch)
            return
        self._batches.append(batch)
        self._events += len(batch.events)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class WatchTable:
    """Which streams a connection serves, and what its stream messages mean."""

    def __init__(self) -> None:
        self.streams: dict[int, WatchStream] = {}
        self._feeds: dict[int, set[WatchStream]] = {}

    def reset(self) -> None:
        """A new connection: nobody is fed."""
        self._feeds.clear()
        for stream in self.streams.values():
            stream.reset()

    def drop(self, stream: WatchStream) -> None:
        """Forget which feed serves `stream`."""
        feed = self._feeds.get(stream.fed_by)
        if feed is not None:
            feed.discard(stream)
            if not feed:
                del self._feeds[stream.fed_by]
        stream.reset()

    def message(self, message: list[Any]) -> None:
        """One of `[0, kind, ...]`, see `kstore.wire.Stream`."""
        kind = message[1]
        if kind == Stream.FEED:
            _, _, feed, revision, more, raw = message
            batch = WatchBatch(revision, events_of(raw))
            for stream in tuple(self._feeds.get(feed, ())):
                stream.deliver(batch, more)
        elif kind == Stream.PROGRESS:
            for stream in tuple(self._feeds.get(message[2], ())):
                stream.progress(message[3])
        else:
            found = self.streams.get(message[2])
            if found is None:
                return
            if kind == Stream.HISTORY:
                found.deliver(WatchBatch(message[3], events_of(message[5])), message[4])
            elif kind == Stream.CAUGHT_UP:
                found.fed_by = message[3]
                self._feeds.setdefault(message[3], set()).add(found)
                found.next = max(found.next, message[4] + 1)
            elif kind == Stream.CANCELLED:
                self.drop(found)
                self.streams.pop(found.id, None)
                found.fail(from_wire(message[3], message[4]))


def events_of(raw: list[list[Any]]) -> tuple[Event, ...]:
    """From the wire's `[type, key-value, previous]`."""
    return tuple(
        [Event(_TYPES[kind], KeyValue(*kv), None if prev is None else KeyValue(*prev)) for kind, kv, prev in raw]
    )
