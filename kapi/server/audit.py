"""The audit stage: what is told of a request when it has come in, and when it has been answered."""

from __future__ import annotations

from typing import Any

from kapi.server.context import Context
from kcore.meta.times import format_micro

Obj = dict[str, Any]


async def audit(ctx: Context) -> None:
    """After authentication: choose the level, and tell of the arrival."""
    audit_log = ctx.server.audit_log
    if audit_log is None:
        return
    level, omitted = audit_log.policy.decide(ctx.info, ctx.user)
    if level == 'None':
        return
    ctx.audit_event = _event(ctx)
    ctx.audit_omitted = omitted
    if 'RequestReceived' not in omitted:
        audit_log.write('RequestReceived', ctx.audit_event)


def answered(ctx: Context, code: int) -> None:
    audit_log, event = ctx.server.audit_log, ctx.audit_event
    if audit_log is None or event is None or 'ResponseComplete' in ctx.audit_omitted:
        return
    allowed = {} if code in {401, 403} else {'authorization.k8s.io/decision': 'allow'}
    if ctx.user.name != event['user'].get('username'):
        event['impersonatedUser'] = ctx.user.info()
    event |= {'responseStatus': {'metadata': {}, 'code': code}, 'annotations': {**allowed, **ctx.annotations}}
    audit_log.write('ResponseComplete', event)


def _event(ctx: Context) -> Obj:
    info = ctx.info
    event: Obj = {
        'level': 'Metadata', 'auditID': ctx.audit_id, 'requestURI': ctx.raw.raw_path, 'verb': info.verb,
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
