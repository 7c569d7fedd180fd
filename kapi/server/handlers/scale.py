"""`/scale`: get, put and patch an autoscaling/v1 Scale."""

from __future__ import annotations

from typing import Any

from kapi.registry.kind import Kind, Scale
from kapi.registry.options import WriteOptions, write_options
from kapi.registry.scale import SCALES, apply_scale, scale_of
from kapi.registry.store import Transform, Write
from kapi.server.bodies import parsed, read_body
from kapi.server.context import Context, Reply
from kapi.server.decoding import conform, read_object
from kapi.server.handlers.admit import admit
from kapi.server.handlers.apply import apply_options, checked
from kapi.server.handlers.get import namespace_of
from kapi.server.handlers.patch import APPLY, media_of, read_patch
from kapi.server.negotiation import YAML
from kapi.server.respond import obj_reply, served_obj
from kapi.storage.codec import clone
from kapi.storage.entries import Entry

Obj = dict[str, Any]


def _reply(ctx: Context, kind: Kind, scale: Scale, entry: Entry) -> Reply:
    return obj_reply(ctx, SCALES, scale_of(kind, scale, served_obj(kind, entry)))


async def get(ctx: Context, kind: Kind, scale: Scale) -> Reply:
    entry = await ctx.server.registry.get(kind, namespace_of(ctx, kind), ctx.info.name)
    return _reply(ctx, kind, scale, entry)


async def _written(
    ctx: Context, kind: Kind, options: WriteOptions, transform: Transform, *, operation: str = 'Update'
) -> Entry:
    write = Write(ctx.user, options, ctx.warnings, subresource='scale', operation=operation, admitted=True)
    return await ctx.server.registry.update(kind, namespace_of(ctx, kind), ctx.info.name, transform, write)


async def update(ctx: Context, kind: Kind, scale: Scale) -> Reply:
    options = write_options(ctx.info.query, 'UpdateOptions', ctx.user_agent)
    wanted = await read_object(ctx, kind, options, what=SCALES)

    async def transform(old: Obj) -> Obj:
        return apply_scale(scale, await _admitted(ctx, kind, wanted, scale_of(kind, scale, old), options), old)

    return _reply(ctx, kind, scale, await _written(ctx, kind, options, transform))


async def _admitted(ctx: Context, kind: Kind, wanted: Obj, before: Obj, options: WriteOptions) -> Obj:
    """A copy, because a transformation may run again."""
    return await admit(ctx, kind, SCALES.resource, clone(wanted), old=before, operation='UPDATE', options=options)


async def patch(ctx: Context, kind: Kind, scale: Scale) -> Reply:
    if media_of(ctx) == APPLY:
        return await _apply(ctx, kind, scale)
    options = write_options(ctx.info.query, 'PatchOptions', ctx.user_agent)
    change = await read_patch(ctx, kind)

    async def transform(old: Obj) -> Obj:
        before = scale_of(kind, scale, old)
        return apply_scale(scale, await _admitted(ctx, kind, change(clone(before)), before, options), old)

    return _reply(ctx, kind, scale, await _written(ctx, kind, options, transform))


async def _apply(ctx: Context, kind: Kind, scale: Scale) -> Reply:
    """The applied Scale's replicas become the manager's, as a field of the object. Raises Conflict."""
    options = apply_options(ctx)
    body, _ = await parsed(ctx, await read_body(ctx), YAML)
    given = conform(ctx, SCALES, checked(ctx, SCALES, body), 'Ignore')
    config: Obj = {'apiVersion': kind.resource.api_version, 'kind': kind.resource.kind,
                   'metadata': {'name': ctx.info.name}}  # fmt: skip
    if 'replicas' in (given.get('spec') or {}):
        config = apply_scale(scale, {'spec': given['spec']}, config)
    manager = Write(ctx.user, options, subresource='scale', operation='Apply')

    async def transform(old: Obj) -> Obj:
        merged = clone(ctx.server.registry.ownership.apply(kind, old, config, manager))
        before, after = scale_of(kind, scale, old), scale_of(kind, scale, merged)
        if version := given['metadata'].get('resourceVersion'):
            after['metadata']['resourceVersion'] = version
        return apply_scale(scale, await _admitted(ctx, kind, after, before, options), merged)

    return _reply(ctx, kind, scale, await _written(ctx, kind, options, transform, operation='Apply'))
