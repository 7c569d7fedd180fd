"""DELETE: one object, or a collection."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson

from kapi.errors import NotFound
from kapi.registry.alias import stored_kind
from kapi.registry.kind import Kind
from kapi.registry.listing import Listed, list_objects
from kapi.registry.options import DeleteOptions, WriteOptions, delete_options, list_options
from kapi.registry.store import Write
from kapi.server.bodies import parsed, read_body
from kapi.server.context import Context, Reply
from kapi.server.handlers.get import namespace_of
from kapi.server.negotiation import PROTOBUF, body_media
from kapi.server.respond import entry_reply, list_reply
from kapi.storage.entries import Entry

Obj = dict[str, Any]


async def read_options(ctx: Context) -> DeleteOptions:
    data = await read_body(ctx)
    if not data:
        return delete_options(ctx.info.query, None)
    media = body_media(ctx.raw.headers.get('Content-Type', ''))
    if media == PROTOBUF:
        return delete_options(ctx.info.query, ctx.server.schemas.decode_protobuf(data))
    body, _ = await parsed(ctx, data, media)
    return delete_options(ctx.info.query, body)


async def delete(ctx: Context, kind: Kind) -> Reply:
    options = await read_options(ctx)
    namespace = namespace_of(ctx, kind)
    write = _write(ctx, kind, options)
    entry, gone = await ctx.server.registry.delete(stored_kind(kind), namespace, ctx.info.name, options, write)
    if gone and not kind.strategy.returns_deleted_object:
        return Reply(orjson.dumps(_success(kind, entry.obj)))
    return entry_reply(ctx, kind, entry)


def _write(ctx: Context, kind: Kind, options: DeleteOptions) -> Write:
    if kind.strategy.orphan_warning and not options.propagation:
        ctx.warnings.append(kind.strategy.orphan_warning)
    write = Write(ctx.user, warnings=ctx.warnings, annotations=ctx.annotations, asked=kind)
    if options.dry_run:
        write.options = WriteOptions(dry_run=True)
    return write


def _success(kind: Kind, obj: Obj) -> Obj:
    r = kind.resource
    details: Obj = {'name': obj['metadata']['name'], 'kind': r.plural, 'uid': obj['metadata']['uid']}
    if r.group:
        details['group'] = r.group
    return {'kind': 'Status', 'apiVersion': 'v1', 'metadata': {}, 'status': 'Success', 'details': details}


async def delete_collection(ctx: Context, kind: Kind) -> Reply:
    """Deletes what a list with the same options shows, one by one, and answers with what was there.

    A limit is that of one page: the rest stays, and the answer says where it goes on.
    """
    options = await read_options(ctx)
    wanted = replace(list_options(ctx.info.query), watch=False)
    listed = await list_objects(ctx.server.cache, kind, namespace_of(ctx, kind), wanted)
    write = _write(ctx, kind, options)
    deleted: list[Entry] = []
    for entry in listed.entries:
        meta = entry.obj['metadata']
        try:
            result, _ = await ctx.server.registry.delete(
                stored_kind(kind), meta.get('namespace', ''), meta['name'], options, write
            )  # fmt: skip
        except NotFound:
            continue  # somebody else was faster; gone is gone
        deleted.append(result)
    return await list_reply(ctx, kind, Listed(deleted, ctx.server.cache.revision, listed.continue_, listed.remaining))
