"""A request to an aggregated API, passed on with the caller's identity in headers that only we may set.

Source: kube-aggregator pkg/apiserver/handler_proxy.go; apimachinery pkg/util/proxy.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING
from urllib.parse import quote

import aiohttp
import structlog
from aiohttp import web
from multidict import CIMultiDict

from kapi.aggregation.aggregator import Remote
from kapi.aggregation.endpoints import EndpointUnknown
from kapi.authn.user import User
from kapi.errors import Unavailable
from kapi.server.relay import HOP_BY_HOP, pass_back

if TYPE_CHECKING:
    from kapi.server.context import Context

log = structlog.get_logger('kapi.aggregation')


def forwarded_headers(given: CIMultiDict[str], user: User) -> CIMultiDict[str]:
    """The client's headers without its credentials, and who it is."""
    kept = CIMultiDict(
        (name, value)
        for name, value in given.items()
        if name.lower() not in HOP_BY_HOP and not name.lower().startswith(('x-remote-', 'impersonate-'))
    )
    kept['X-Remote-User'] = user.name
    if user.uid:
        kept['X-Remote-Uid'] = user.uid
    for group in user.groups:
        kept.add('X-Remote-Group', group)
    for key, values in user.extra.items():
        for value in values:
            kept.add(f'X-Remote-Extra-{quote(key, safe="")}', value)
    return kept


async def proxy(ctx: Context, remote: Remote) -> web.StreamResponse:
    """Raises Unavailable when the server behind the APIService cannot be reached."""
    if not remote.available:
        raise Unavailable('service unavailable')
    raw = ctx.raw
    headers = forwarded_headers(CIMultiDict(raw.headers), ctx.user)
    body = raw.content if raw.can_read_body else None
    if body is not None and raw.content_length is not None:
        headers['Content-Length'] = str(raw.content_length)
    try:
        async with ctx.server.transport.request(
            remote.backend, raw.method, raw.raw_path, headers=headers, data=body
        ) as answer:
            return await pass_back(ctx, answer, {'Audit-Id': ctx.audit_id})
    except (EndpointUnknown, ssl.SSLError, aiohttp.ClientConnectionError, OSError) as e:
        log.warning('an aggregated server was not reached', apiservice=remote.name, err=str(e))
        raise Unavailable(f'error trying to reach service: {e}') from e
