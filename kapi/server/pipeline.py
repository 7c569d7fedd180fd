"""The stages of a request, in order: read `PIPELINE` from top to bottom.

A stage is an async function of the context. It passes by returning, refuses by raising, and leaves what must be
undone at the end in `ctx.on_exit`. `serve` is the net around all of them: whatever is raised becomes a Status.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from urllib.parse import unquote

import structlog
from aiohttp import web

from kapi.authn.user import ANONYMOUS, AUTHENTICATED, MASTERS, UNAUTHENTICATED, User
from kapi.authz.union import Attributes, Decision
from kapi.errors import ApiError, BadRequest, DeadlineExceeded, Forbidden, Unauthorized, UnknownPath, known
from kapi.flow import inflight, work
from kapi.registry.catalog import key_prefix
from kapi.registry.options import text
from kapi.server import audit, negotiation, requestinfo
from kapi.server.context import Context, Reply
from kapi.server.dispatch import dispatch
from kapi.server.listener import Connection
from kapi.server.respond import error_reply, finish, not_found_text
from kcore.meta.gvk import Resource
from kcore.meta.selectors import parse_field_selector

log = structlog.get_logger('kapi.request')

Stage = Callable[[Context], Awaitable[None]]
EXTRA = 'impersonate-extra-'
REFUSED = 'refused'
"""The flow, for reading, of connections of which nobody knows whose they are."""
_WIDE = frozenset({'list', 'watch', 'deletecollection'})
SLOW_REQUEST_S = 1.0
"""Slower requests are logged at info level."""


async def deadline(ctx: Context) -> None:
    """Everything but watches and streams ends in time; `timeout=` may shorten it."""
    if ctx.info.long_running or ctx.deadline is None:
        return
    limit = ctx.server.config.request_timeout_s
    if asked := text(ctx.info.query, 'timeout'):
        limit = min(limit, go_duration(asked) or limit)
    ctx.server.deadlines.add(ctx.deadline, limit)


_UNITS = {'ms': 0.001, 's': 1.0, 'm': 60.0, 'h': 3600.0}


def go_duration(value: str) -> float:
    """`32s`, `1m30s`, `500ms` in seconds. Raises BadRequest."""
    total, digits, rest = 0.0, '', value
    while rest:
        if rest[0].isdecimal() or rest[0] == '.':
            digits, rest = digits + rest[0], rest[1:]
            continue
        unit = 'ms' if rest.startswith('ms') else rest[0]
        if unit not in _UNITS or not digits or digits.count('.') > 1:
            raise BadRequest(f'invalid timeout specified in the request URL - timeout: {value}')
        total, digits, rest = total + float(digits) * _UNITS[unit], '', rest[len(unit) :]
    if digits:
        raise BadRequest(f'invalid timeout specified in the request URL - timeout: {value}')
    return total


async def authenticate(ctx: Context) -> None:
    """Client certificate, then tokens; nobody known is anonymous. Raises Unauthorized."""
    try:
        ctx.user = await ctx.server.authn.authenticate(ctx.raw)
    except Unauthorized:
        audit.unauthenticated(ctx)
        raise


async def in_flight_limit(ctx: Context) -> None:
    """So many at once; the rest gets 429."""
    server, info = ctx.server, ctx.info
    if info.long_running or inflight.exempt(info, ctx.user):
        return
    kind = server.in_flight.enter(info)
    ctx.on_exit.append(lambda: server.in_flight.leave(kind))


async def fairness(ctx: Context) -> None:
    """Wait for a seat of the request's priority level; a watch keeps it until it has begun. Raises Refused."""
    info, fair = ctx.info, ctx.server.fairness
    if not info.long_running or info.verb == 'watch':
        ticket = fair.classify(info, ctx.user)
        fair.turns.comes(ticket.flow)
        if ticket.schema_uid:
            ctx.answer_headers['X-Kubernetes-PF-FlowSchema-UID'] = ticket.schema_uid
            ctx.answer_headers['X-Kubernetes-PF-PriorityLevel-UID'] = ticket.level.uid
        if isinstance(ctx.raw.protocol, Connection):
            # Probes are exempt for everybody, so they may begin at any time, but are not all read at once.
            ctx.raw.protocol.flow = '' if MASTERS in ctx.user.groups else ticket.flow
        if not inflight.exempt(info, ctx.user):
            ctx.seat = await fair.enter(ticket, _width(ctx, ticket.level.width_max))
            ctx.on_exit.append(ctx.seat.leave)
    ctx.admitted = True


def _width(ctx: Context, most: int) -> int:
    """In seats, at most so many."""
    info, server = ctx.info, ctx.server
    if most == 1 or info.verb not in _WIDE:
        return 1
    kind = server.catalog.find(info.group, info.version, info.plural)
    if kind is None:
        return 1
    return work.width(info, len(server.cache.resource(key_prefix(kind.storage or kind.resource)).keys), most)


async def impersonate(ctx: Context) -> None:
    """`kubectl --as`: act as another user, if allowed."""
    headers = ctx.raw.headers
    name = headers.get('Impersonate-User', '')
    groups = headers.getall('Impersonate-Group', [])
    extras = {
        unquote(h[len(EXTRA) :]).lower(): tuple(headers.getall(h)) for h in headers if h.lower().startswith(EXTRA)
    }
    if not name:
        if groups or extras or 'Impersonate-Uid' in headers:
            raise BadRequest('requested impersonation without impersonating a user')
        return
    account = name.split(':') if name.startswith('system:serviceaccount:') else []
    if len(account) == 4:
        await _may_impersonate(ctx, '', 'serviceaccounts', account[3], namespace=account[2])
    else:
        await _may_impersonate(ctx, '', 'users', name)
    if uid := headers.get('Impersonate-Uid', ''):
        await _may_impersonate(ctx, 'authentication.k8s.io', 'uids', uid)
    for group in groups:
        await _may_impersonate(ctx, '', 'groups', group)
    for key, values in extras.items():
        for value in values:
            await _may_impersonate(ctx, 'authentication.k8s.io', 'userextras', value, sub=key)
    kept = tuple(groups)
    if name.startswith('system:serviceaccount:') and not groups:
        namespace = name.split(':')[2]
        kept = ('system:serviceaccounts', f'system:serviceaccounts:{namespace}')
    if name == ANONYMOUS.name:
        kept = tuple(dict.fromkeys((*kept, UNAUTHENTICATED)))
    elif not {AUTHENTICATED, UNAUTHENTICATED} & set(kept):
        kept = (*kept, AUTHENTICATED)
    ctx.user = User(name, kept, headers.get('Impersonate-Uid', ''), extras)


async def _may_impersonate(
    ctx: Context, group: str, resource: str, name: str, *, namespace: str = '', sub: str = ''
) -> None:
    question = Attributes(ctx.user, 'impersonate', group, 'v1', resource, sub, namespace, name)
    if (await ctx.server.authz.decide(question)).verdict != 'allow':
        raise forbidden(question)


async def authorize(ctx: Context) -> None:
    """Raises Forbidden with upstream's sentence."""
    info, user = ctx.info, ctx.user
    if not info.is_resource:
        decision = await ctx.server.authz.decide(Attributes(user, info.verb, path=info.path))
        _note(ctx, decision)
        if decision.verdict != 'allow':
            raise Forbidden(f'forbidden: User "{user.name}" cannot {info.verb} path "{info.path}"', details={})
        return
    question = Attributes(
        user, info.verb, info.group, info.version, info.plural, info.subresource, info.namespace, _named(info),
        field_selector=text(info.query, 'fieldSelector'),
    )  # fmt: skip
    decision = await ctx.server.authz.decide(question)
    _note(ctx, decision)
    if decision.verdict != 'allow':
        raise forbidden(question, decision.reason)


def _note(ctx: Context, decision: Decision) -> None:
    """For the audit log."""
    ctx.annotations['authorization.k8s.io/decision'] = 'allow' if decision.verdict == 'allow' else 'forbid'
    ctx.annotations['authorization.k8s.io/reason'] = decision.reason


def _named(info: requestinfo.RequestInfo) -> str:
    """The object's name; a list or watch of `metadata.name=x` is about x."""
    if info.name or info.verb not in {'list', 'watch'}:
        return info.name
    selector = text(info.query, 'fieldSelector')
    if 'metadata.name' not in selector:
        return ''
    return parse_field_selector(selector).exact('metadata.name') or ''


def forbidden(a: Attributes, reason: str = '') -> Forbidden:
    where = f'in the namespace "{a.namespace}"' if a.namespace else 'at the cluster scope'
    why = (
        f'User "{a.user.name}" cannot {a.verb} resource "{a.full_resource}" '
        f'in API group "{a.group}" {where}{": " + reason if reason else ""}'
    )
    return Forbidden.on(Resource(a.group, a.version, a.resource, ''), a.name, why)


async def negotiate(ctx: Context) -> None:
    """In which form to answer. Raises NotAcceptable."""
    if ctx.server.aggregator.remote_of(ctx.info.path) is not None:
        return  # another server answers
    if ctx.info.is_resource and ctx.info.subresource not in requestinfo.LONG_SUBRESOURCES:
        ctx.form = negotiation.negotiate(ctx.raw.headers.get('Accept', ''), watch=ctx.info.verb == 'watch')


PIPELINE: tuple[Stage, ...] = (
    deadline,
    authenticate,
    audit.audit,
    impersonate,
    fairness,
    in_flight_limit,
    authorize,
    negotiate,
    dispatch,
)


async def run_stages(ctx: Context) -> None:
    try:
        async with asyncio.timeout(None) as ctx.deadline:
            for stage in PIPELINE:
                await stage(ctx)
    except TimeoutError as e:
        raise DeadlineExceeded from e
    finally:
        if ctx.deadline is not None:
            ctx.server.deadlines.drop(ctx.deadline)
        for undo in ctx.on_exit:
            undo()


async def serve(ctx: Context) -> web.StreamResponse:
    """Answer one request, whatever happens."""
    clock = ctx.server.env.clock
    begun = clock.monotonic()
    crashed = False
    try:
        await run_stages(ctx)
        reply = ctx.reply
        assert reply is not None, 'dispatch leaves a reply'
    except UnknownPath:
        reply = not_found_text()
    except ApiError as e:
        reply = error_reply(e)
    except (ConnectionResetError, asyncio.CancelledError):
        audit.left(ctx)
        raise  # the client left
    except Exception as e:
        crashed = not known(e)
        if crashed:
            log.error('request crashed', path=ctx.info.path, method=ctx.raw.method, exc_info=e)
        reply = error_reply(e)
    took = clock.monotonic() - begun
    _account(ctx, reply, took)
    audit.answered(ctx, reply, crashed=crashed)
    if not ctx.admitted:
        await _refuse(ctx)
    return await finish(ctx, reply) if isinstance(reply, Reply) else reply


async def _refuse(ctx: Context) -> None:
    """Let others have their turn before a client is told, for it may ask again at once; read few of those a turn."""
    if isinstance(ctx.raw.protocol, Connection):
        ctx.raw.protocol.flow = ctx.raw.protocol.flow or REFUSED
    await ctx.server.fairness.turns.refusals.turn()


def _account(ctx: Context, reply: Reply | web.StreamResponse, took: float) -> None:
    info = ctx.info
    if ctx.kind is not None and not info.long_running:
        scope = 'namespace' if info.namespace else 'cluster'
        labels = (info.verb.upper(), info.group, info.version, info.plural, info.subresource, scope)
        ctx.server.metrics.observe(labels, reply.status, took)
    if took > SLOW_REQUEST_S and not info.long_running:
        log.info('request was slow', path=info.path, verb=info.verb, code=reply.status, took_ms=round(took * 1000),
                 user=ctx.user.name, request=ctx.audit_id)  # fmt: skip
