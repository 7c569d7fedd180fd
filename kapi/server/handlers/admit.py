"""Admission of requests whose body is no stored object: a Scale, an Eviction, a Binding, the options of an exec."""

from __future__ import annotations

from typing import Any

from kapi.admission.chain import Attributes, Operation
from kapi.registry.kind import Kind
from kapi.registry.options import WriteOptions, admission_options
from kapi.server.context import Context
from kcore.meta.gvk import Resource

Obj = dict[str, Any]


async def admit(
    ctx: Context, kind: Kind, body: Resource, obj: Obj, *, name: str = '', old: Obj | None = None,
    operation: Operation = 'CREATE', options: WriteOptions | None = None,
) -> Obj:  # fmt: skip
    """What admission makes of `obj`, which is of the type `body`; `kind` is the resource. Raises what refuses."""
    asked = Attributes(
        operation, kind, ctx.info.namespace, name or ctx.info.name, obj, old, ctx.user, ctx.info.subresource, body,
        dry_run=options is not None and options.dry_run, warnings=ctx.warnings, annotations=ctx.annotations,
        options=admission_options(operation, options) if options is not None else {},
    )  # fmt: skip
    await ctx.server.admission.mutate(asked)
    await ctx.server.admission.validate(asked)
    return obj
