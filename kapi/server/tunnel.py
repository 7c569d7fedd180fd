"""A client's request for an upgrade, passed on to another server; after its 101 only bytes pass."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterable
from urllib.parse import urlsplit

from aiohttp import web

from kapi.errors import InternalError
from kapi.server.context import Context
from kapi.server.relay import HOP_BY_HOP
from kcore import upgrade

ANSWER_TIMEOUT_S = 30.0
"""Until the other server has agreed, and again for the text of its refusal."""
REFUSAL_BYTES_MAX = 64 * 1024


def address_of(url: str, tls: ssl.SSLContext | None) -> upgrade.Address:
    """tls:  used for https."""
    parts = urlsplit(url)
    secure = parts.scheme == 'https'
    assert parts.hostname is not None
    return upgrade.Address(parts.hostname, parts.port or (443 if secure else 80), tls if secure else None)


async def through(
    ctx: Context, address: upgrade.Address, target: str, headers: Iterable[tuple[str, str]]
) -> web.StreamResponse:
    """Until either side closes. A refusal is passed back as it is. Raises InternalError: not reached."""
    host = f'[{address.host}]' if ':' in address.host else address.host
    sent = [('Host', f'{host}:{address.port}'), *headers]
    if ctx.raw.method == 'POST':
        sent.append(('Content-Length', '0'))
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            answer = await upgrade.dial(ctx.server.env.net, address, (ctx.raw.method, target), sent)
    except (OSError, TimeoutError, upgrade.UpgradeError) as e:
        why = str(e) or 'no answer in time'
        raise InternalError(f'error dialing backend: dial tcp {host}:{address.port}: {why}') from e
    try:
        if answer.status != 101:
            return await _refusal(answer)
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
