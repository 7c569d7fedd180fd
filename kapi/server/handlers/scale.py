"""`/scale`: get, put and patch an autoscaling/v1 Scale."""

from __future__ import annotations

from typing import Any

from kapi.registry.kind import Kind, Scale
from kapi.registry.options import WriteOptions, write_options
from kapi.registry.scale import SCALES, apply_scale, scale_of
from kapi.registry.store import Write
from kapi.server.context import Context, Reply
from kapi.server.decoding import read_object
from kapi.server.handlers.admit import admit
from kapi.server.handlers.get import namespace_of
from kapi.server.handlers.patch import read_patch
from kapi.server.respond import obj_reply, served_obj
from kapi.storage.codec import clone
from kapi.storage.entries import Entry

Obj = dict[str, Any]


def _reply(ctx: Context, kind: Kind, scale: Scale, entry: Entry) -> Reply:
    return obj_reply(ctx, SCALES, scale_of(kind, scale, served_obj(kind, entry)))


async def get(ctx: Context, kind: Kind, scale: Scale) -> Reply:
    entry = await ctx.server.registry.get(kind, namespace_of(ctx, kind), ctx.info.name)
    return _reply(ctx, kind, scale, entry)


async def update(ctx: Context, kind: Kind, scale: Scale) -> Reply:
    options = write_options(ctx.info.query, 'UpdateOptions', ctx.user_agent)
    wanted = await read_object(ctx, kind, options, what=SCALES)

    async def transform(old: Obj) -> Obj:
        return apply_scale(scale, await _admitted(ctx, kind, wanted, scale_of(kind, scale, old), options), old)

    write = Write(ctx.user, options, ctx.warnings, admitted=True)
    entry = await ctx.server.registry.update(kind, namespace_of(ctx, kind), ctx.info.name, transform, write)
    return _reply(ctx, kind, scale, entry)


async def _admitted(ctx: Context, kind: Kind, wanted: Obj, before: Obj, options: WriteOptions) -> Obj:
    """A copy, because a transformation may run again."""
    return await admit(ctx, kind, SCALES.resource, clone(wanted), old=before, operation='UPDATE', options=options)


async def patch(ctx: Context, kind: Kind, scale: Scale) -> Reply:
    options = write_options(ctx.info.query, 'PatchOptions', ctx.user_agent)
    change = await read_patch(ctx, kind)

    async def transform(old: Obj) -> Obj:
        before = scale_of(kind, scale, old)
        return apply_scale(scale, await _admitted(ctx, kind, change(clone(before)), before, options), old)

    write = Write(ctx.user, options, ctx.warnings, admitted=True)
    entry = await ctx.server.registry.update(kind, namespace_of(ctx, kind), ctx.info.name, transform, write)
    return _reply(ctx, kind, scale, entry)
