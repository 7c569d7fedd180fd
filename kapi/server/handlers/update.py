"""PUT: replace; also through /status."""

from __future__ import annotations

from typing import Any

from kapi.errors import BadRequest, NotFound
from kapi.registry.alias import stored_kind, to_stored
from kapi.registry.kind import Kind
from kapi.registry.options import write_options
from kapi.registry.store import Write
from kapi.server.context import Context, Reply
from kapi.server.decoding import read_object
from kapi.server.handlers.get import namespace_of
from kapi.server.respond import entry_reply
from kapi.storage.codec import clone

Obj = dict[str, Any]


async def update(ctx: Context, kind: Kind) -> Reply:
    """Raises NotFound, unless the kind creates on update (Lease, Event)."""
    options = write_options(ctx.info.query, 'UpdateOptions', ctx.user_agent)
    wanted = await read_object(ctx, kind, options)
    name, namespace = ctx.info.name, namespace_of(ctx, kind)
    given = wanted['metadata'].get('name')
    if given != name:
        if not given:
            raise BadRequest('name must be provided')
        raise BadRequest(f'the name of the object ({given}) does not match the name on the URL ({name})')
    write = Write(ctx.user, options, ctx.warnings, ctx.annotations, subresource=ctx.info.subresource, asked=kind)
    stored, rules = to_stored(kind, wanted), stored_kind(kind)

    async def transform(_: Obj) -> Obj:
        return clone(stored)

    try:
        entry = await ctx.server.registry.update(rules, namespace, name, transform, write)
    except NotFound:
        if not kind.strategy.create_on_update or ctx.info.subresource:
            raise
        entry = await ctx.server.registry.create(rules, namespace, stored, write)
        return entry_reply(ctx, kind, entry, 201)
    return entry_reply(ctx, kind, entry)
