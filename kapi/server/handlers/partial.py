"""`pods/ephemeralcontainers` and `pods/resize`: a pod whose only change may be one part of its spec."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable
from typing import Any

from kapi.registry import metadata
from kapi.registry.kind import Kind
from kapi.registry.options import Validation, write_options
from kapi.registry.store import Write
from kapi.server.context import Context, Reply
from kapi.server.decoding import check_type, conform, read_object
from kapi.server.handlers import get
from kapi.server.handlers.patch import read_patch
from kapi.server.respond import entry_reply

Obj = dict[str, Any]
Take = Callable[[Obj, Obj], None]
"""(wanted pod, pod to change): copy over what this subresource may change."""


def _take_ephemeral(wanted: Obj, pod: Obj) -> None:
    given = wanted['spec'].get('ephemeralContainers') or []
    if given or 'ephemeralContainers' in pod['spec']:
        pod['spec']['ephemeralContainers'] = given


def _take_resources(wanted: Obj, pod: Obj) -> None:
    """Names and number come along, so that the pod's rules can refuse other ones."""
    for field in ('containers', 'initContainers'):
        present, asked = pod['spec'].get(field) or [], wanted['spec'].get(field) or []
        if len(present) != len(asked):
            pod['spec'][field] = asked
            continue
        for container, other in zip(present, asked, strict=True):
            container['name'] = other.get('name')
            for part in ('resources', 'resizePolicy'):
                container.pop(part, None)
                if part in other:
                    container[part] = other[part]


async def ephemeral_containers(ctx: Context, kind: Kind) -> Reply:
    """They can be added, never changed or removed."""
    return await _write_part(ctx, kind, _take_ephemeral)


async def resize(ctx: Context, kind: Kind) -> Reply:
    return await _write_part(ctx, kind, _take_resources)


async def _write_part(ctx: Context, kind: Kind, take: Take) -> Reply:
    if ctx.info.verb == 'get':
        return await get.get(ctx, kind)
    options = write_options(ctx.info.query, 'UpdateOptions', ctx.user_agent)
    wanted_from = await _wanted(ctx, kind, options.field_validation)

    async def transform(old: Obj) -> Obj:
        wanted = await wanted_from(old)
        if wanted['metadata'].get('resourceVersion'):
            metadata.check_precondition(kind, ctx.info.name, wanted, old)
        wanted.setdefault('spec', {})
        take(wanted, old)
        old['metadata']['generation'] = int(old['metadata'].get('generation') or 0) + 1
        return old

    write = Write(ctx.user, options, ctx.warnings, ctx.annotations, subresource=ctx.info.subresource, direct=True)
    entry = await ctx.server.registry.update(kind, ctx.info.namespace, ctx.info.name, transform, write)
    return entry_reply(ctx, kind, entry)


async def _wanted(ctx: Context, kind: Kind, validation: Validation) -> Callable[[Obj], Awaitable[Obj]]:
    if ctx.info.verb == 'patch':
        change = await read_patch(ctx, kind)

        async def patched(old: Obj) -> Obj:
            new = change(copy.deepcopy(old))
            check_type(kind, new)
            return conform(ctx, kind, new, validation, patched=True)

        return patched
    body = await read_object(ctx, kind, write_options(ctx.info.query, 'UpdateOptions', ctx.user_agent))

    async def given(_: Obj) -> Obj:
        return body

    return given
