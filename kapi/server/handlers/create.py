"""POST: create."""

from __future__ import annotations

from kapi.registry.alias import stored_kind, to_stored
from kapi.registry.kind import Kind
from kapi.registry.options import write_options
from kapi.registry.store import Write
from kapi.server.context import Context, Reply
from kapi.server.decoding import read_object
from kapi.server.respond import entry_reply


async def create(ctx: Context, kind: Kind) -> Reply:
    options = write_options(ctx.info.query, 'CreateOptions', ctx.user_agent)
    obj = await read_object(ctx, kind, options)
    write = Write(ctx.user, options, ctx.warnings, ctx.annotations, asked=kind)
    namespace = ctx.info.namespace if kind.resource.namespaced else ''
    entry = await ctx.server.registry.create(stored_kind(kind), namespace, to_stored(kind, obj), write)
    return entry_reply(ctx, kind, entry, 201)
