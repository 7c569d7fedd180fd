"""Answers: one object, a list, a Status, in the form that was negotiated; compressed when large."""

from __future__ import annotations

import contextlib
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, TypeVar

import orjson
import yaml
from aiohttp import HttpVersion11, web

from kapi.errors import NotAcceptable, headers_of, to_status
from kapi.registry import table
from kapi.registry.alias import served_entry
from kapi.registry.kind import Kind
from kapi.registry.listing import Listed
from kapi.registry.options import flag, text
from kapi.server.context import Context, Parts, Reply
from kapi.server.negotiation import ACCEPTED, JSON, PARTIAL, PARTIAL_LIST, YAML, Form
from kapi.storage.entries import Entry

Obj = dict[str, Any]
T = TypeVar('T')
R = TypeVar('R')

PEOPLES_AGENTS = ('curl', 'Wget', 'Mozilla/5.0')
"""Answered in indented JSON, as upstream does."""
PRETTY_BYTES_MAX = 1024 * 1024
"""Larger bodies are not indented: nobody reads them."""
GZIP_BYTES_MIN = 128 * 1024
"""Smaller bodies are not worth compressing (upstream's figure)."""
GZIP_LEVEL = 1
WARNINGS_CHARS_MAX, WARNING_CHARS_MAX = 4_096, 256
"""All warnings of an answer, and one of them when all would be more (upstream's figures)."""
_GZIP_WINDOW = 31
SLICE_ITEMS = 20
"""Items of a list that are rendered in one turn: half a millisecond or so."""
CHUNK_BYTES = 128 * 1024
"""Larger lists are never put together as a whole; about so much of one is sent in a turn."""


def dump(obj: Any, form: Form) -> bytes:
    if form.media == YAML:
        return yaml.dump(obj, Dumper=yaml.CSafeDumper, sort_keys=True, allow_unicode=True).encode()
    return orjson.dumps(obj)


def obj_reply(ctx: Context, kind: Kind, obj: Obj, status: int = 200) -> Reply:
    """One object that is not in the cache (a Scale, a review, a dry run)."""
    form = ctx.form
    match form.transform:
        case '':
            return Reply(dump(obj, form), status, form.content_type)
        case 'Table':
            include = table.check_include(text(ctx.info.query, 'includeObject'))
            rv = obj['metadata'].get('resourceVersion', '')
            now = ctx.server.env.clock.wall()
            body = table.table(kind, [obj], now, include=include, meta={'resourceVersion': rv}, version=form.version)
            return Reply(dump(body, form), status, form.content_type)
        case transform if transform == PARTIAL:
            return Reply(dump(table.partial_metadata(obj), form), status, form.content_type)
    raise NotAcceptable(f'only the following media types are accepted: {ACCEPTED}')


def entry_reply(ctx: Context, kind: Kind, entry: Entry, status: int = 200) -> Reply:
    form = ctx.form
    entry = served_entry(kind, entry)
    if form.media == JSON and not form.transform:
        return Reply(_served(kind, entry), status)
    return obj_reply(ctx, kind, served_obj(kind, entry), status)


def _served(kind: Kind, entry: Entry) -> bytes:
    if entry.rv == 0:  # a dry-run create: nothing was written, so there is no version
        return entry.value
    return entry.raw


def served_obj(kind: Kind, entry: Entry) -> Obj:
    return entry.obj if entry.rv else entry.decoded


async def list_reply(ctx: Context, kind: Kind, listed: Listed) -> Reply:
    form = ctx.form
    entries = listed.entries if kind.alias is None else [served_entry(kind, e) for e in listed.entries]
    meta: Obj = {'resourceVersion': str(listed.rv)}
    if listed.continue_:
        meta['continue'] = listed.continue_
    if listed.remaining:
        meta['remainingItemCount'] = listed.remaining
    if form.media == JSON and not form.transform:
        empty = {'kind': kind.list_kind, 'apiVersion': kind.resource.api_version, 'metadata': meta, 'items': []}
        return Reply(_list_body(empty, [e.raw for e in entries]))
    return await objects_reply(ctx, kind, await _sliced(ctx, lambda e: e.obj, entries), meta)


async def objects_reply(ctx: Context, kind: Kind, objects: Sequence[Obj], meta: Obj) -> Reply:
    """A list of objects, in any form."""
    form = ctx.form
    match form.transform:
        case 'Table':
            include = table.check_include(text(ctx.info.query, 'includeObject'))
            now = ctx.server.env.clock.wall()
            body = table.table(kind, (), now, include=include, meta=meta, version=form.version)
            rows = objects if kind.row_order is None else sorted(objects, key=kind.row_order)
            items = await _sliced(ctx, lambda o: table.row(kind, o, now, include), rows)
        case transform if transform == PARTIAL_LIST:
            body = {'kind': PARTIAL_LIST, 'apiVersion': 'meta.k8s.io/v1', 'metadata': meta, 'items': []}
            items = await _sliced(ctx, table.partial_metadata, objects)
        case '':
            body = {'kind': kind.list_kind, 'apiVersion': kind.resource.api_version, 'metadata': meta, 'items': []}
            items = list(objects)
        case _:
            raise NotAcceptable(f'only the following media types are accepted: {ACCEPTED}')
    if form.media != YAML:
        return Reply(_list_body(body, await _sliced(ctx, orjson.dumps, items)), content_type=form.content_type)
    if not items:
        return Reply(dump(body, form), content_type=form.content_type)
    name = next(reversed(body))
    before, _, after = dump(body, form).partition(f'{name}: []\n'.encode())
    text_items = await _sliced(ctx, lambda i: _yaml_item(dump(i, form)), items)
    whole = b''.join((before, name.encode(), b':\n', *text_items, after))
    return Reply(whole, content_type=form.content_type)


async def _sliced(ctx: Context, make: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """`make` of each item; others have their turn in between, so that a long list does not stop the server."""
    pieces = ctx.server.fairness.turns.pieces
    made: list[R] = []
    for at in range(0, len(items), SLICE_ITEMS):
        if at:
            await pieces.turn()
        made += [make(item) for item in items[at : at + SLICE_ITEMS]]
    return made


def _yaml_item(document: bytes) -> bytes:
    """A document as an item of a sequence."""
    return b'- ' + document.rstrip(b'\n').replace(b'\n', b'\n  ') + b'\n'


def _list_body(empty: Obj, items: Sequence[bytes]) -> bytes | Parts:
    """`empty` with the items as its last field, which is an empty list."""
    head, tail = orjson.dumps(empty)[:-2], b']}'
    ends = list(accumulate(map(len, items)))
    size = len(head) + (ends[-1] if ends else 0) + max(len(items) - 1, 0) + len(tail)
    if size <= CHUNK_BYTES:
        return b''.join((head, b','.join(items), tail))
    return Parts(size, _chunks(head, items, ends, tail))


def _chunks(head: bytes, items: Sequence[bytes], ends: Sequence[int], tail: bytes) -> Iterator[bytes]:
    """The list in pieces of at most CHUNK_BYTES or one item. `ends`: sizes of the items, added up to each."""
    at, before = 0, head
    while at < len(items):
        sent = ends[at - 1] if at else 0
        until = max(at + 1, bisect_right(ends, sent + CHUNK_BYTES))
        yield before + b','.join(items[at:until])
        at, before = until, b','
    yield tail


def error_reply(exc: BaseException) -> Reply:
    """A Status; always JSON, whatever was asked for, because clients show anything else as garbage."""
    body = to_status(exc)
    return Reply(orjson.dumps(body), body['code'], headers=headers_of(exc))


def not_found_text() -> Reply:
    return Reply(b'404 page not found\n', 404, 'text/plain; charset=utf-8', {'X-Content-Type-Options': 'nosniff'})


def warning_headers(messages: Iterable[str]) -> list[str]:
    """Values of `Warning`, each text once. When all would be too long, long ones are cut, and the last left out."""
    texts = list(dict.fromkeys(m for m in messages if m))
    if sum(map(len, texts)) <= WARNINGS_CHARS_MAX:
        return [_warning(t) for t in texts]
    shown: list[str] = []
    size = 0
    for told in texts:
        if size >= WARNINGS_CHARS_MAX:
            break
        shown.append(_warning(told[:WARNING_CHARS_MAX]))
        size += min(len(told), WARNING_CHARS_MAX)
    return shown


def _warning(message: str) -> str:
    escaped = message.replace('\\', '\\\\').replace('"', '\\"').replace('\n', ' ').replace('\r', ' ')
    return f'299 - "{escaped}"'


async def finish(ctx: Context, reply: Reply) -> web.StreamResponse:
    """The HTTP response, compressed off the loop when it is large and the client takes gzip."""
    body = reply.body
    size = len(body) if isinstance(body, bytes) else body.size
    pretty = 0 < size <= PRETTY_BYTES_MAX and reply.content_type == JSON and _pretty(ctx)
    zipped = size > GZIP_BYTES_MIN and 'gzip' in ctx.raw.headers.get('Accept-Encoding', '')
    if isinstance(body, Parts):
        if not pretty and ctx.raw.method == 'GET' and ctx.raw.version >= HttpVersion11:
            return await _send(ctx, reply, body, zipped=zipped)
        body = b''.join(body.chunks)
    if pretty:
        body = await ctx.server.env.disk.offload(_indented, body)
    response = web.Response(status=reply.status)
    _head(ctx, reply, response, zipped=zipped)
    response.body = await ctx.server.env.disk.offload(_gzip, body) if zipped else body
    return response


async def _send(ctx: Context, reply: Reply, body: Parts, *, zipped: bool) -> web.StreamResponse:
    """Write a large body bit by bit as the client reads and by turns: it never lies in memory whole."""
    response = web.StreamResponse(status=reply.status)
    _head(ctx, reply, response, zipped=zipped)
    if zipped:
        response.enable_chunked_encoding()
    else:
        response.content_length = body.size
    squeeze = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)
    pieces = ctx.server.fairness.turns.pieces
    with contextlib.suppress(ConnectionResetError):  # the client left
        await response.prepare(ctx.raw)
        for chunk in body.chunks:
            await pieces.turn()
            await response.write(await ctx.server.env.disk.offload(squeeze.compress, chunk) if zipped else chunk)
        if zipped:
            await response.write(squeeze.flush())
        await response.write_eof()
    return response


def _head(ctx: Context, reply: Reply, response: web.StreamResponse, *, zipped: bool) -> None:
    headers = response.headers
    headers['Content-Type'] = reply.content_type
    headers['Audit-Id'] = ctx.audit_id
    headers['Cache-Control'] = 'no-cache, private'
    for name, value in (*ctx.answer_headers.items(), *reply.headers.items()):
        headers[name] = value
    for value in warning_headers(ctx.warnings):
        headers.add('Warning', value)
    if zipped:
        headers['Content-Encoding'] = 'gzip'
        headers['Vary'] = 'Accept-Encoding'


def _pretty(ctx: Context) -> bool:
    """Whether a person reads: `pretty` says so, or a browser or command line tool asks without saying."""
    if 'pretty' in ctx.info.query:
        return flag(ctx.info.query, 'pretty')
    return ctx.raw.headers.get('User-Agent', '').startswith(PEOPLES_AGENTS)


def _indented(body: bytes) -> bytes:
    return orjson.dumps(orjson.loads(body), option=orjson.OPT_INDENT_2) + b'\n'


def _gzip(body: bytes) -> bytes:
    squeeze = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)
    return squeeze.compress(body) + squeeze.flush()
