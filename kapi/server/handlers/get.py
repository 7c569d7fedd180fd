"""GET: one object, or a list."""

from __future__ import annotations

from kapi.errors import BadRequest
from kapi.registry.kind import Kind
from kapi.registry.listing import list_objects, settle
from kapi.registry.options import ListOptions, list_options, text
from kapi.server.context import Context, Reply
from kapi.server.respond import entry_reply, list_reply


def namespace_of(ctx: Context, kind: Kind) -> str:
    return ctx.info.namespace if kind.resource.namespaced else ''


async def get(ctx: Context, kind: Kind) -> Reply:
    """Also serves `/status`, which reads as the whole object."""
    version = text(ctx.info.query, 'resourceVersion')
    if version:
        if not version.isdecimal():
            raise BadRequest(f'resourceVersion: Invalid value: "{version}": invalid syntax')
        await settle(ctx.server.cache, ListOptions(resource_version=version))
    entry = await ctx.server.registry.get(kind, namespace_of(ctx, kind), ctx.info.name, any_version=bool(version))
    return entry_reply(ctx, kind, entry)


async def list_(ctx: Context, kind: Kind) -> Reply:
    options = list_options(ctx.info.query)
    listed = await list_objects(ctx.server.cache, kind, namespace_of(ctx, kind), options)
    return await list_reply(ctx, kind, listed)
