"""The audit stage: what is told of a request when it has come in, and when it has been answered."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import orjson
from aiohttp import web

from kapi.audit.audit import secret
from kapi.errors import ApiError
from kapi.server.bodies import parse_yaml
from kapi.server.context import Context, Reply
from kapi.server.negotiation import JSON, PROTOBUF, YAML
from kcore.meta.times import format_micro

Obj = dict[str, Any]
BODY_BYTES_MAX = 100 * 1024
"""A larger body is left out and the event annotated as truncated (upstream's figure for an event)."""
TRUNCATED = {'audit.k8s.io/truncated': 'true'}
_APPLY = 'application/apply-patch+yaml'


async def audit(ctx: Context) -> None:
    """After authentication: choose the level, and tell of the arrival."""
    audit_log = ctx.server.audit_log
    if audit_log is None:
        return
    ctx.audit = audit_log.policy.decide(ctx.info, ctx.user)
    if ctx.audit.level == 'None':
        return
    ctx.audit_event = _event(ctx)
    if 'RequestReceived' not in ctx.audit.omitted:
        audit_log.write('RequestReceived', ctx.audit_event)


def answered(ctx: Context, reply: Reply | web.StreamResponse) -> None:
    audit_log, event, code = ctx.server.audit_log, ctx.audit_event, reply.status
    if audit_log is None or event is None or 'ResponseComplete' in ctx.audit.omitted:
        return
    allowed = {} if code in {401, 403} else {'authorization.k8s.io/decision': 'allow'}
    if ctx.user.name != event['user'].get('username'):
        event['impersonatedUser'] = ctx.user.info()
    event |= {'responseStatus': _status(ctx, reply), 'annotations': {**allowed, **ctx.annotations}}
    for field, body, media in _bodies(ctx, reply):
        shown = b'' if body is None or len(body) > BODY_BYTES_MAX else _shown(ctx, body, media)
        if body is None or max(len(body), len(shown)) > BODY_BYTES_MAX:
            event['annotations'] |= TRUNCATED
        elif shown:
            event[field] = orjson.Fragment(shown)
    audit_log.write('ResponseComplete', event)


def _status(ctx: Context, reply: Reply | web.StreamResponse) -> Obj:
    """The code, and why it is an error; about a Secret the code alone, for the reason may quote from it."""
    status: Obj = {'metadata': {}, 'code': reply.status}
    if reply.status < HTTPStatus.BAD_REQUEST or secret(ctx.info) or not isinstance(reply, Reply):
        return status
    if reply.content_type == JSON and isinstance(reply.body, bytes) and reply.body:
        told = orjson.loads(reply.body)
        status |= {k: told[k] for k in ('status', 'reason', 'message') if k in told}
    return status


def _bodies(ctx: Context, reply: Reply | web.StreamResponse) -> Iterator[tuple[str, bytes | None, str]]:
    """(field of the event, body, its media type) of what the level keeps; streams have no body.

    None is a body in parts, which is larger than what is kept and can be read but once.
    """
    if ctx.audit_body:
        media = ctx.raw.headers.get('Content-Type', '').partition(';')[0].strip().lower()
        yield 'requestObject', ctx.audit_body, media
    if ctx.audit.response_body and isinstance(reply, Reply) and reply.body:
        yield 'responseObject', reply.body if isinstance(reply.body, bytes) else None, reply.content_type


def _shown(ctx: Context, body: bytes, media: str) -> bytes:
    """The body as JSON, which may be larger (YAML has aliases); empty for one that nobody could read."""
    try:
        if media == PROTOBUF:
            value = ctx.server.schemas.decode_protobuf(body)
        elif media in {YAML, _APPLY}:
            value = parse_yaml(body)[0]
        elif media in {'', JSON} or media.endswith('+json'):
            value = orjson.loads(body)
        else:
            return b''
        if ctx.audit.omit_managed_fields:
            _drop_managed_fields(value)
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    except (ApiError, ValueError, TypeError):  # also what is nested deeper than JSON is written
        return b''


def _drop_managed_fields(value: Any) -> None:
    """Of an object, or of every item of a list."""
    items = value.get('items') if isinstance(value, dict) else None
    for obj in (value, *(items if isinstance(items, list) else ())):
        meta = obj.get('metadata') if isinstance(obj, dict) else None
        if isinstance(meta, dict):
            meta.pop('managedFields', None)


def _event(ctx: Context) -> Obj:
    info = ctx.info
    event: Obj = {
        'level': ctx.audit.level, 'auditID': ctx.audit_id, 'requestURI': ctx.raw.raw_path, 'verb': info.verb,
        'user': ctx.user.info(), 'sourceIPs': [ctx.raw.remote or ''], 'userAgent': ctx.user_agent,
        'requestReceivedTimestamp': format_micro(ctx.server.env.clock.wall()),
    }  # fmt: skip
    if info.is_resource:
        ref = {
            'resource': info.plural, 'namespace': info.namespace, 'name': info.name, 'apiGroup': info.group,
            'apiVersion': info.version, 'subresource': info.subresource,
        }  # fmt: skip
        event['objectRef'] = {k: v for k, v in ref.items() if v}
    return event
