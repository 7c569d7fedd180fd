"""GET …?watch=true: a stream of events, one JSON object a line.

The stream begins with a look at the cache and a subscription in one step, so nothing falls between them. From then on
a watcher's whole work is to join the ready-made frames in its buffer and write them. Too old a start is reported
inside the stream (HTTP 200, one ERROR event), because that is where reflectors look for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from kapi.errors import Expired, InternalError, to_status
from kapi.registry import table
from kapi.registry.alias import served_entry
from kapi.registry.conversion import Conversion
from kapi.registry.kind import Kind
from kapi.registry.listing import scope_of, settle
from kapi.registry.options import ListOptions, list_options, text
from kapi.registry.selection import Selection, select
from kapi.server import audit, websockets
from kapi.server.context import Context
from kapi.server.handlers.get import namespace_of
from kapi.server.negotiation import PARTIAL, Form
from kapi.server.respond import CHUNK_BYTES, SLICE_ITEMS, warning_headers
from kapi.server.websockets import Lines, Messages, Sink
from kapi.storage.base import Compacted
from kapi.storage.entries import Entry, Render, frame
from kapi.storage.watchers import Delivery, Matches, Overflow, Watcher, replay

Obj = dict[str, Any]

BOOKMARK_INTERVAL_S = 60.0
TIMEOUT_MIN_S = 1800
"""A watch without `timeoutSeconds` lasts between this and twice this, so that clients do not come back all at once."""
SEAT_S_MAX = 15.0
"""Whoever takes longer to read them keeps no seat."""
INITIAL_END = 'k8s.io/initial-events-end'


@dataclass(frozen=True, slots=True)
class View:
    """How events of this watch look; `render` None is the object itself."""

    name: str
    render: Render | None


def view_of(ctx: Context, kind: Kind) -> View:
    form: Form = ctx.form
    if form.transform == 'Table':
        include = table.check_include(text(ctx.info.query, 'includeObject'))
        now = ctx.server.env.clock.wall

        def rows(entry: Entry) -> bytes:
            meta = {'resourceVersion': str(entry.rv)}
            obj = served_entry(kind, entry).obj
            return orjson.dumps(table.table(kind, [obj], now(), include=include, meta=meta, version=form.version))

        return View(f'table/{kind.resource.api_version}/{kind.edition}/{form.version}/{include}', rows)
    if form.transform == PARTIAL:
        return View('partial', lambda entry: orjson.dumps(table.partial_metadata(entry.obj)))
    if kind.alias is not None or kind.conversion is not None:
        name = f'served/{kind.resource.api_version}/{kind.edition}'
        return View(name, lambda entry: served_entry(kind, entry).raw)
    return View('', None)


async def watch(ctx: Context, kind: Kind) -> web.StreamResponse:
    options = list_options(ctx.info.query)
    selection = select(kind, options)
    view = view_of(ctx, kind)
    name = ctx.info.name or selection.name
    prefix, scope = scope_of(kind, namespace_of(ctx, kind), name)
    await settle(ctx.server.cache, options)
    watcher, initial, failure = _subscribe(ctx, options, selection, prefix, scope)
    if kind.conversion is not None:
        initial = await _converted(kind.conversion, selection, initial)
    response = _opened(ctx, watcher)
    gauge = ctx.server.metrics.longrunning.labels('WATCH', kind.resource.plural)
    gauge.inc()
    try:
        audit.started(ctx, response.status)
        await response.prepare(ctx.raw)
        if failure is not None or watcher is None:
            await response.write(failure or b'')
        else:
            late = selection.matches if selection.asks else None
            stream = _Stream(ctx, kind, options, view=view, watcher=watcher, response=response, late=late)
            await stream.run(initial)
        await response.write_eof()
    except InternalError as e:  # a conversion webhook failed in the middle
        await response.write(frame('ERROR', orjson.dumps(to_status(e))))
        await response.write_eof()
    except (ConnectionResetError, Overflow):
        pass  # the client left, or was too slow and starts again
    finally:
        gauge.dec()
        if watcher is not None:
            ctx.server.cache.unsubscribe(prefix, scope, watcher)
    return response.socket if isinstance(response, Messages) else response


def _opened(ctx: Context, watcher: Watcher | None) -> Sink:
    if websockets.wanted(ctx.raw):
        return Lines(ctx.raw, on_left=watcher.wake if watcher is not None else None)
    response = web.StreamResponse(headers={'Content-Type': 'application/json', 'Audit-Id': ctx.audit_id,
                                           'Cache-Control': 'no-cache, private', **ctx.answer_headers})  # fmt: skip
    for value in warning_headers(ctx.warnings):
        response.headers.add('Warning', value)
    response.enable_chunked_encoding()
    return response


def _subscribe(
    ctx: Context, options: ListOptions, selection: Selection, prefix: str, scope: str
) -> tuple[Watcher | None, list[Entry], bytes | None]:
    """(watcher, objects to show first, frame of a failure). No await here: nothing may fall in between."""
    cache = ctx.server.cache
    matches = None if selection.asks else selection.matches
    wants_state = options.initial_events if options.initial_events is not None else options.version == 0
    start = cache.revision if wants_state else options.version or cache.revision
    try:
        watcher = cache.subscribe(prefix, scope, start, matches)
    except Compacted as e:
        status = to_status(Expired(f'too old resource version: {start} ({e.oldest})'))
        return None, [], frame('ERROR', orjson.dumps(status))
    initial: list[Entry] = []
    if wants_state:
        resource = cache.resource(prefix)
        initial = [e for e in resource.select(scope) if matches is None or matches(e)]
    watcher.progress = start
    return watcher, initial, None


async def _converted(conversion: Conversion, selection: Selection, entries: list[Entry]) -> list[Entry]:
    """The entries as readers see them; a selector that needs the converted form is applied here."""
    served = await conversion.served(entries)
    matches = selection.matches
    return [e for e in served if matches is None or matches(e)] if selection.asks else served


class _Stream:
    """The writing half of one watch."""

    def __init__(
        self,
        ctx: Context,
        kind: Kind,
        options: ListOptions,
        *,
        view: View,
        watcher: Watcher,
        response: Sink,
        late: Matches | None = None,
    ) -> None:
        self.ctx = ctx
        self.kind = kind
        self.options = options
        self.view = view
        self.watcher = watcher
        self.response = response
        self.late = late
        """A filter that can only judge converted entries."""
        self.loop = asyncio.get_running_loop()
        rng = ctx.server.env.rng
        timeout_s = options.timeout_s or rng.uniform(TIMEOUT_MIN_S, 2 * TIMEOUT_MIN_S)
        self.end = self.loop.time() + timeout_s
        self.bookmark_at = self.loop.time() + BOOKMARK_INTERVAL_S * rng.uniform(0.9, 1.1)
        self.due = min(self.end, self.bookmark_at)
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, initial: list[Entry]) -> None:
        """Until the time is up (returns), the client leaves (ConnectionResetError) or is cut (Overflow)."""
        transport = self.ctx.raw.transport
        self.watcher.on_cut = transport.abort if transport is not None else None
        self._arm()
        try:
            with self._seated():
                await self._write_initial(initial)
            await self._follow()
        finally:
            if self._timer is not None:
                self._timer.cancel()

    @contextlib.contextmanager
    def _seated(self) -> Iterator[None]:
        """Keep the seat so long; what the watch costs later is the writers' affair, a slow reader its own."""
        if self.ctx.seat is None:
            yield
            return
        bound = self.loop.call_later(SEAT_S_MAX, self.ctx.seat.leave)
        try:
            yield
        finally:
            bound.cancel()
            self.ctx.seat.leave()

    async def _write_initial(self, initial: list[Entry]) -> None:
        render, name = self.view.render, self.view.name
        pieces = self.ctx.server.fairness.turns.pieces
        chunk: list[bytes] = []
        size = 0
        for number, entry in enumerate(initial):
            if render is not None and number % SLICE_ITEMS == SLICE_ITEMS - 1:
                await pieces.turn()
            body = entry.raw if render is None else entry.view(name, render)
            chunk.append(frame('ADDED', body))
            size += len(body)
            if size > CHUNK_BYTES:
                await self.response.write(b''.join(chunk))
                await pieces.turn()
                chunk, size = [], 0
        if self.options.initial_events:
            chunk.append(self._bookmark(self.watcher.progress, {INITIAL_END: 'true'}))
        if chunk:
            await self.response.write(b''.join(chunk))

    async def _follow(self) -> None:
        view, render, sent = self.view.name, self.view.render, self.ctx.server.metrics.watch_events
        count = sent.labels(self.kind.resource.plural)
        write, take, time = self.response.write, self.watcher.take, self.loop.time
        transport = self.ctx.raw.transport
        while True:
            taken = await take()
            if taken and self.kind.conversion is not None:
                taken = await self._convert(self.kind.conversion, taken)
            if taken:
                await write(b''.join([event.frame(kind, view, render) for kind, event in taken]))
                self.watcher.progress = taken[-1][1].rv
                count.inc(len(taken))
            elif transport is None or transport.is_closing():
                return  # the client left
            # Also after events: while they were written, nobody heard the timer.
            if time() >= self.due and await self._is_over():
                return

    async def _is_over(self) -> bool:
        """What is due: a bookmark, or the end after a last one."""
        now = self.loop.time()
        ending = now >= self.end
        if self.options.bookmarks and (ending or now >= self.bookmark_at):
            # With an empty buffer, everything up to the cache's revision has been sent.
            rv = self.watcher.progress if self.watcher.pending else self.ctx.server.cache.revision
            await self.response.write(self._bookmark(rv, None))
        if now >= self.bookmark_at:
            self.bookmark_at = now + BOOKMARK_INTERVAL_S
        if not ending:
            self._arm()
        return ending

    async def _convert(self, conversion: Conversion, taken: list[Delivery]) -> list[Delivery]:
        """Make sure that every event can be rendered in this watch's version."""
        versions = (e for _, event in taken for e in (event.entry, event.gone, event.prev) if e is not None)
        await conversion.served(list(versions))
        return taken if self.late is None else replay(self.late, iter([event for _, event in taken]))

    def _arm(self) -> None:
        # Also without bookmarks: a client that left is noticed when the stream looks round.
        self.due = min(self.end, self.bookmark_at)
        self._timer = self.loop.call_at(self.due, self.watcher.wake)

    def _bookmark(self, rv: int, annotations: dict[str, str] | None) -> bytes:
        r = self.kind.resource
        meta: Obj = {'resourceVersion': str(rv), 'creationTimestamp': None}
        if annotations:
            meta['annotations'] = annotations
        if self.ctx.form.transform == 'Table':
            body = table.table(self.kind, [], self.ctx.server.env.clock.wall(), include='None', meta=meta)
        elif self.ctx.form.transform == PARTIAL:
            body = {'kind': PARTIAL, 'apiVersion': 'meta.k8s.io/v1', 'metadata': meta}
        else:
            body = {'kind': r.kind, 'apiVersion': r.api_version, 'metadata': meta}
        return frame('BOOKMARK', orjson.dumps(body))
