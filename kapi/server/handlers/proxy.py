"""`pods/proxy`, `services/proxy`, `nodes/proxy`: an HTTP request passed on to what runs behind the object.

The name may say scheme and port: `https:web:8443`. Credentials of the client stay here. After an upgrade to
WebSocket or SPDY only bytes pass.
Source: pkg/registry/core/{pod,service,node}/rest, apimachinery pkg/util/net SplitSchemeNamePort.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from kapi.dialed import said
from kapi.errors import BadRequest, InternalError, Unavailable
from kapi.registry.kind import Kind
from kapi.server import tunnel
from kapi.server.context import Context
from kapi.server.kubelet import url_of
from kapi.server.relay import HOP_BY_HOP, pass_back
from kapi.server.websockets import offered

Obj = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Named:
    """What a proxied name says: `https:web:8443`, `web:http`, `web`."""

    name: str
    scheme: str = 'http'
    port: str = ''


def split(text: str) -> Named:
    """Raises BadRequest."""
    parts = text.split(':')
    if len(parts) == 1 and parts[0]:
        return Named(parts[0])
    if len(parts) == 2 and parts[0]:
        return Named(parts[0], port=parts[1])
    if len(parts) == 3 and parts[0] in {'http', 'https', ''} and parts[1]:
        return Named(parts[1], parts[0] or 'http', parts[2])
    raise BadRequest(f'invalid proxy target "{text}": want [scheme:]name[:port]')


def _host(address: str) -> str:
    return f'[{address}]' if ':' in address else address


async def _pod(ctx: Context, kind: Kind, named: Named) -> str:
    pod = (await ctx.server.registry.get(kind, ctx.info.namespace, named.name)).obj
    address = (pod.get('status') or {}).get('podIP')
    if not address:
        raise BadRequest(f'pod {named.name} has no address yet')
    ports = [p for c in pod['spec'].get('containers') or () for p in c.get('ports') or ()]
    port = named.port or (str(ports[0]['containerPort']) if ports else '80')
    if not port.isdecimal():
        port = next((str(p['containerPort']) for p in ports if p.get('name') == port), '')
        if not port:
            raise BadRequest(f'pod {named.name} has no port named "{named.port}"')
    return f'{named.scheme}://{_host(address)}:{port}'


async def _service(ctx: Context, kind: Kind, named: Named) -> str:
    service = (await ctx.server.registry.get(kind, ctx.info.namespace, named.name)).obj
    ports = (service.get('spec') or {}).get('ports') or []
    if named.port:
        ports = [p for p in ports if named.port in {p.get('name'), str(p['port'])}]
    if not ports or (len(ports) > 1 and not named.port):
        raise Unavailable(f'no service port "{named.port}" found for service "{named.name}"')
    endpoints_kind = ctx.server.catalog.find('', 'v1', 'endpoints')
    assert endpoints_kind is not None
    endpoints = (await ctx.server.registry.get(endpoints_kind, ctx.info.namespace, named.name)).obj
    found = [
        (address['ip'], port['port'])
        for subset in endpoints.get('subsets') or ()
        for port in subset.get('ports') or ()
        if port.get('name', '') == ports[0].get('name', '')
        for address in subset.get('addresses') or ()
    ]
    if not found:
        raise Unavailable(f'no endpoints available for service "{named.name}"')
    ip, number = ctx.server.env.rng.choice(found)
    return f'{named.scheme}://{_host(ip)}:{number}'


async def _node(ctx: Context, kind: Kind, named: Named) -> str:
    return url_of((await ctx.server.registry.get(kind, '', named.name)).obj)


_TARGETS: Mapping[str, Callable[[Context, Kind, Named], Awaitable[str]]] = {
    'pods': _pod,
    'services': _service,
    'nodes': _node,
}


async def proxy(ctx: Context, kind: Kind) -> web.StreamResponse:
    """Raises BadRequest, NotFound, Unavailable."""
    raw = ctx.raw
    base = await _TARGETS[kind.resource.plural](ctx, kind, split(ctx.info.name))
    path, _, query = raw.raw_path.partition('?')
    rest = path.partition('/proxy')[2] or '/'
    url = URL(f'{base}{rest}{"?" + query if query else ""}', encoded=True)
    headers = CIMultiDict((k, v) for k, v in raw.headers.items() if k.lower() not in HOP_BY_HOP)
    headers['X-Forwarded-Host'] = raw.headers.get('Host', '')
    # Only the node agent is known by our authority; a workload's own certificate is nobody's to judge (as upstream).
    check: dict[str, Any] = {} if kind.resource.plural == 'nodes' else {'ssl': False}
    if tunnel.wanted(raw):
        return await _upgraded(ctx, url, headers, check.get('ssl', ctx.server.kubelets.tls))
    if raw.can_read_body and raw.content_length is not None:
        headers['Content-Length'] = str(raw.content_length)
    body = raw.content if raw.can_read_body else None
    try:
        async with ctx.server.kubelets.request(
            raw.method, url, headers=headers, data=body, allow_redirects=False, auto_decompress=False, **check
        ) as answer:
            return await pass_back(ctx, answer)
    except aiohttp.ClientConnectionError as e:
        raise Unavailable(f'error trying to reach service: {said(e)}') from e
    except aiohttp.ClientError as e:
        raise InternalError(f'the proxied server answered nonsense: {e}') from e


async def _upgraded(
    ctx: Context, url: URL, headers: CIMultiDict[str], tls: ssl.SSLContext | Literal[False]
) -> web.StreamResponse:
    """tls:  False for a server whose certificate nobody judges."""
    raw = ctx.raw.headers
    sent = [(k, v) for k, v in headers.items() if k.lower() != 'sec-websocket-protocol']
    sent += [('Connection', 'Upgrade'), ('Upgrade', raw['Upgrade'])]
    if protocols := offered(ctx.raw):
        sent.append(('Sec-WebSocket-Protocol', ', '.join(protocols)))
    address = tunnel.address_of(url, tls or _unjudged())
    try:
        return await tunnel.through(ctx, address, url.raw_path_qs, sent)
    except tunnel.Unreached as e:
        raise Unavailable(f'error trying to reach service: {e}') from e


def _unjudged() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
