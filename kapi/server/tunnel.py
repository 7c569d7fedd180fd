"""A client's request for an upgrade, passed on to another server; after its 101 only bytes pass."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterable

from aiohttp import web
from yarl import URL

from kapi.errors import TooManyRequests
from kapi.server import audit
from kapi.server.context import Context
from kapi.server.relay import HOP_BY_HOP
from kcore import upgrade

ANSWER_TIMEOUT_S = 30.0
"""Until the other server has agreed, and again for the text of its refusal."""
REFUSAL_BYTES_MAX = 64 * 1024
"""Of a refusal's text; the rest is cut."""
STREAMS_MAX = 2_000
"""Upgraded connections at once; each holds two sockets and two bounded buffers."""
UPGRADES = frozenset({'websocket', 'spdy/3.1'})
"""Others are not asked for on a client's behalf, and so never happen: `h2c` is between neighbours."""


class Unreached(Exception):
    """The other server did not answer."""


def wanted(raw: web.BaseRequest) -> bool:
    return raw.headers.get('Upgrade', '').lower() in UPGRADES


def address_of(url: URL, tls: ssl.SSLContext) -> upgrade.Address:
    """tls:  used for https."""
    assert url.host, 'a target has a host'
    return upgrade.Address(url.host, url.port or 443, tls if url.scheme == 'https' else None)


async def through(
    ctx: Context, address: upgrade.Address, target: str, headers: Iterable[tuple[str, str]]
) -> web.StreamResponse:
    """Until either side closes. A refusal is passed back as it is. Raises Unreached, TooManyRequests."""
    if ctx.server.streams >= STREAMS_MAX:
        raise TooManyRequests(f'this server passes {STREAMS_MAX} streams on already, please try again later')
    ctx.server.streams += 1
    try:
        return await _pass_on(ctx, address, target, headers)
    finally:
        ctx.server.streams -= 1


async def _pass_on(
    ctx: Context, address: upgrade.Address, target: str, headers: Iterable[tuple[str, str]]
) -> web.StreamResponse:
    host = f'[{address.host}]' if ':' in address.host else address.host
    sent = [('Host', f'{host}:{address.port}'), *headers]
    if ctx.raw.method == 'POST':
        sent.append(('Content-Length', '0'))
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            answer = await upgrade.dial(ctx.server.env.net, address, (ctx.raw.method, target), sent)
    except (OSError, TimeoutError, upgrade.UpgradeError) as e:
        why = str(e) or 'no answer in time'
        raise Unreached(f'dial tcp {host}:{address.port}: {why}') from e
    try:
        if answer.status != 101:
            return await _refusal(answer)
        audit.started(ctx, answer.status)
        client = await upgrade.take_over(ctx.raw, answer.headers.items())
        await upgrade.join(client, answer.connection)
    finally:
        answer.connection.close()
    return upgrade.Upgraded()


async def _refusal(answer: upgrade.Answer) -> web.Response:
    body = b''
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            body = await answer.body(REFUSAL_BYTES_MAX)
    kept = {k: v for k, v in answer.headers.items() if k.lower() not in HOP_BY_HOP}
    return web.Response(status=answer.status, body=body, headers=kept)
