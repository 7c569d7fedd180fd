"""The audit stage: what is told of a request when it has come in, and when it has been answered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Literal

import orjson
from aiohttp import web

from kapi.audit.audit import PATCH_ANNOTATION, secret
from kapi.authn.user import User
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


NOBODY = User('')
"""Whose credentials are no good; no rule for users or groups is about them."""
Stage = Literal['RequestReceived', 'ResponseStarted', 'ResponseComplete', 'Panic']


async def audit(ctx: Context) -> None:
    """After authentication: choose the level, and tell of the arrival."""
    if _begin(ctx, ctx.user):
        _write(ctx, 'RequestReceived')


def unauthenticated(ctx: Context) -> None:
    """Bad credentials end a request before it has a user; upstream tells of them as of a response that has begun."""
    if _begin(ctx, NOBODY):
        assert ctx.audit_event is not None
        ctx.audit_event['user'] = {}
        status = {'metadata': {}, 'code': HTTPStatus.UNAUTHORIZED, 'message': 'Authentication failed'}
        _write(ctx, 'ResponseStarted', {'responseStatus': status})
        ctx.audit_event = None


def started(ctx: Context, code: int) -> None:
    """The head of an answer that goes on for long is about to be sent."""
    if ctx.info.long_running:
        _write(ctx, 'ResponseStarted', {'responseStatus': {'metadata': {}, 'code': code}})


def left(ctx: Context) -> None:
    """The client closed the connection before it was answered."""
    status = {'metadata': {}, 'code': HTTPStatus.OK, 'status': 'Success', 'message': 'Connection closed early'}
    _write(ctx, 'ResponseComplete', {'responseStatus': status, 'annotations': _annotations(ctx)})


def answered(ctx: Context, reply: Reply | web.StreamResponse, *, crashed: bool = False) -> None:
    event = ctx.audit_event
    stage: Stage = 'Panic' if crashed else 'ResponseComplete'
    if event is None or stage in ctx.audit.omitted:
        return
    event |= {'responseStatus': _status(ctx, reply), 'annotations': _annotations(ctx)}
    for field, body, media in _bodies(ctx, reply):
        shown = b'' if body is None or len(body) > BODY_BYTES_MAX else _shown(ctx, body, media)
        if body is None or max(len(body), len(shown)) > BODY_BYTES_MAX:
            event['annotations'] |= TRUNCATED
        elif shown:
            event[field] = orjson.Fragment(shown)
    _write(ctx, stage)


def _begin(ctx: Context, user: User) -> bool:
    """Whether the request is told of at all."""
    audit_log = ctx.server.audit_log
    if audit_log is None:
        return False
    ctx.audit = audit_log.policy.decide(ctx.info, user)
    if ctx.audit.level != 'None':
        ctx.audit_event = _event(ctx)
    return ctx.audit_event is not None


def _write(ctx: Context, stage: Stage, more: Mapping[str, Any] | None = None) -> None:
    audit_log, event = ctx.server.audit_log, ctx.audit_event
    if audit_log is None or event is None or stage in ctx.audit.omitted:
        return
    if stage != 'RequestReceived' and ctx.user.name != event['user'].get('username', ctx.user.name):
        event['impersonatedUser'] = ctx.user.info()
    audit_log.write(stage, {**event, **(more or {})})


def _annotations(ctx: Context) -> dict[str, str]:
    """A webhook's patch is part of the body, and kept where that is."""
    kept = ctx.audit.request_body
    return {k: v for k, v in ctx.annotations.items() if kept or not k.startswith(PATCH_ANNOTATION)}


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
