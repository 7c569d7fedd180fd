"""`namespaces/finalize`: the controller takes away `spec.finalizers`; with the last one the namespace goes."""

from __future__ import annotations

from typing import Any

from kapi.registry.kind import Kind
from kapi.registry.options import write_options
from kapi.registry.store import Write
from kapi.server.context import Context, Reply
from kapi.server.decoding import read_object
from kapi.server.respond import entry_reply

Obj = dict[str, Any]


async def finalize(ctx: Context, kind: Kind) -> Reply:
    options = write_options(ctx.info.query, 'UpdateOptions', ctx.user_agent)
    wanted = await read_object(ctx, kind, options)

    async def transform(old: Obj) -> Obj:
        for field in ('resourceVersion', 'uid'):
            if wanted['metadata'].get(field):
                old['metadata'][field] = wanted['metadata'][field]
        old.setdefault('spec', {})['finalizers'] = list((wanted.get('spec') or {}).get('finalizers') or ())
        return old

    write = Write(ctx.user, options, ctx.warnings, ctx.annotations, subresource='finalize', direct=True)
    entry = await ctx.server.registry.update(kind, '', ctx.info.name, transform, write)
    return entry_reply(ctx, kind, entry)
