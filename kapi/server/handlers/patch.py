"""PATCH: JSON patch, merge patch, strategic merge, apply; also through /status.

The patch is applied inside the registry's optimistic loop, to a fresh copy each time, so that concurrent patches of
different fields never lose each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kapi.errors import BadRequest, InvalidObject, TooLarge, UnsupportedMediaType
from kapi.registry.alias import stored_kind, to_served, to_stored
from kapi.registry.kind import Kind
from kapi.registry.options import write_options
from kapi.registry.store import Write
from kapi.server.bodies import parse_json, read_body
from kapi.server.context import Context, Reply
from kapi.server.decoding import check_type, conform
from kapi.server.handlers.apply import apply
from kapi.server.handlers.get import namespace_of
from kapi.server.respond import entry_reply
from kcore.meta import patch as patches

Obj = dict[str, Any]

JSON_PATCH = 'application/json-patch+json'
MERGE_PATCH = 'application/merge-patch+json'
STRATEGIC = 'application/strategic-merge-patch+json'
APPLY = 'application/apply-patch+yaml'
BUILT_IN = (JSON_PATCH, MERGE_PATCH, STRATEGIC, APPLY)


async def patch(ctx: Context, kind: Kind) -> Reply:
    if media_of(ctx) == APPLY:
        return await apply(ctx, kind)
    options = write_options(ctx.info.query, 'PatchOptions', ctx.user_agent)
    if options.force is not None:
        raise InvalidObject.single(
            'PatchOptions', 'meta.k8s.io', 'force', 'Forbidden: may not be specified for non-apply patch'
        )
    change = await read_patch(ctx, kind)
    write = Write(ctx.user, options, ctx.warnings, ctx.annotations, subresource=ctx.info.subresource, asked=kind)

    async def transform(old: Obj) -> Obj:
        new = change(to_served(kind, old))
        check_type(kind, new)
        return to_stored(kind, conform(ctx, kind, new, options.field_validation, patched=True))

    entry = await ctx.server.registry.update(
        stored_kind(kind), namespace_of(ctx, kind), ctx.info.name, transform, write
    )  # fmt: skip
    return entry_reply(ctx, kind, entry)


def media_of(ctx: Context) -> str:
    return ctx.raw.headers.get('Content-Type', '').partition(';')[0].strip().lower()


async def read_patch(ctx: Context, kind: Kind) -> Callable[[Obj], Obj]:
    """The body as a function from the old object to the new one. Raises UnsupportedMediaType, BadRequest."""
    media = media_of(ctx)
    node = ctx.server.schemas.node(kind.resource)
    accepted = BUILT_IN if ctx.server.is_builtin(kind) else (JSON_PATCH, MERGE_PATCH, APPLY)
    if media not in accepted:
        listed = ', '.join(accepted)
        raise UnsupportedMediaType(
            f'the body of the request was in an unknown format - accepted media types include: {listed}'
        )
    body = parse_json(await read_body(ctx))
    if media == JSON_PATCH:
        if not isinstance(body, list):
            raise BadRequest('json: cannot unmarshal object into Go value of type jsonpatch.Patch')
        return guarded(ctx, kind, lambda old: patches.json_patch(old, body))
    if not isinstance(body, dict):
        raise BadRequest('json: cannot unmarshal array into Go value of type map[string]interface {}')
    if media == MERGE_PATCH:
        return guarded(ctx, kind, lambda old: patches.merge_patch(old, body))
    return guarded(ctx, kind, lambda old: patches.strategic_merge_patch(old, body, node))


def guarded(ctx: Context, kind: Kind, change: Callable[[Obj], Any]) -> Callable[[Obj], Obj]:
    """`change` with its errors in our terms."""

    def run(old: Obj) -> Obj:
        try:
            new = change(old)
        except patches.PatchTooLarge as e:
            raise TooLarge(str(e)) from e
        except patches.PatchFailed as e:
            raise InvalidObject.plain(str(e)) from e
        except patches.PatchError as e:
            raise BadRequest(str(e)) from e
        if not isinstance(new, dict):
            raise BadRequest('the patch does not leave an object')
        return new

    return run
