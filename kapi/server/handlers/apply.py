"""Server-side apply: PATCH with `application/apply-patch+yaml`. Creates what is missing, merges what is there."""

from __future__ import annotations

import copy
from typing import Any

from kapi.authz.union import Attributes
from kapi.errors import AlreadyExists, BadRequest, Forbidden, InvalidObject, NotFound
from kapi.registry.alias import stored_kind, to_stored
from kapi.registry.kind import Kind
from kapi.registry.options import WriteOptions, text, write_options
from kapi.registry.store import Write
from kapi.server.bodies import parsed, read_body
from kapi.server.context import Context, Reply
from kapi.server.decoding import check_type, conform
from kapi.server.handlers.get import namespace_of
from kapi.server.negotiation import YAML
from kapi.server.respond import entry_reply
from kcore.meta.typed import joined, misfits

Obj = dict[str, Any]
CREATE_RACES_MAX = 5
"""Times that the object may appear and vanish between the two attempts before the client is told."""


async def apply(ctx: Context, kind: Kind) -> Reply:
    """Raises Conflict for fields of other managers, unless forced."""
    options = apply_options(ctx)
    given, told = await parsed(ctx, await read_body(ctx), YAML)
    config = _fitting(ctx, kind, checked(ctx, kind, given))
    if told and options.field_validation == 'Strict':
        raise BadRequest(f'error strict decoding YAML: error converting YAML to JSON: {told}')
    if told and options.field_validation == 'Warn':
        ctx.warnings.append(told)
    config = to_stored(kind, conform(ctx, kind, config, 'Ignore'))
    write = Write(
        ctx.user, options, ctx.warnings, ctx.annotations, subresource=ctx.info.subresource, operation='Apply',
        asked=kind,
    )  # fmt: skip
    rules = stored_kind(kind)
    registry, namespace, name = ctx.server.registry, namespace_of(ctx, kind), ctx.info.name

    async def transform(old: Obj) -> Obj:
        merged = registry.ownership.apply(rules, old, config, write)
        return conform(ctx, rules, copy.deepcopy(merged), 'Ignore')

    for _ in range(CREATE_RACES_MAX):
        try:
            return entry_reply(ctx, kind, await registry.update(rules, namespace, name, transform, write))
        except NotFound:
            if ctx.info.subresource:
                raise
        await _may_create(ctx)
        fresh = copy.deepcopy(registry.ownership.apply(rules, None, config, write))
        for field in ('resourceVersion', 'uid'):
            if fresh['metadata'].get(field):
                raise NotFound.of(kind.resource, name)
        try:
            return entry_reply(ctx, kind, await registry.create(rules, namespace, fresh, write), 201)
        except AlreadyExists:
            continue
    raise AlreadyExists.of(kind.resource, name)


def apply_options(ctx: Context) -> WriteOptions:
    """Raises InvalidObject without a field manager."""
    if not text(ctx.info.query, 'fieldManager'):
        why = 'Required value: is required for apply patch'
        raise InvalidObject.single('PatchOptions', 'meta.k8s.io', 'fieldManager', why, 'FieldValueRequired')
    return write_options(ctx.info.query, 'PatchOptions', ctx.user_agent)


def checked(ctx: Context, kind: Kind, config: Obj) -> Obj:
    expected = kind.resource.api_version
    given = config.get('apiVersion') or ''
    if given != expected:
        raise BadRequest(
            f'Incorrect version specified in apply patch. Specified patch version: {given}, expected: {expected}'
        )
    check_type(kind, config)
    meta = config.get('metadata')
    if not isinstance(meta, dict):
        meta = config['metadata'] = {}
    if meta.get('managedFields'):
        raise BadRequest('metadata.managedFields must be nil')
    name = ctx.info.name
    if meta.setdefault('name', name) != name:
        raise BadRequest(f'the name of the object ({meta["name"]}) does not match the name on the URL ({name})')
    return config


def _fitting(ctx: Context, kind: Kind, config: Obj) -> Obj:
    """`config` when the schema has a place for all of it: an apply never prunes. Raises BadRequest."""
    errors = misfits(config, ctx.server.schemas.node(kind.resource))
    if errors:
        meta, r = config['metadata'], kind.resource
        who = f'{meta.get("namespace", "")}/{meta["name"]}; {r.group}/{r.version}, Kind={r.kind}'
        raise BadRequest(f'failed to create typed patch object ({who}): {joined(errors)}')
    return config


async def _may_create(ctx: Context) -> None:
    info = ctx.info
    question = Attributes(ctx.user, 'create', info.group, info.version, info.plural, '', info.namespace, info.name)
    if (await ctx.server.authz.decide(question)).verdict != 'allow':
        from kapi.server.pipeline import forbidden  # noqa: PLC0415 — the pipeline imports the handlers

        refusal: Forbidden = forbidden(question)
        raise refusal
