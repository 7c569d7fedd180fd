"""Paths that name no resource: discovery, version, health, OpenAPI, metrics. A trailing slash makes no difference."""

from __future__ import annotations

import platform
from datetime import timedelta
from typing import Any

import orjson

from kapi.errors import MethodNotAllowed, NotAcceptable, UnknownPath
from kapi.flow import dump
from kapi.registry.options import text
from kapi.server import openapiv2, openid
from kapi.server.context import Context, Reply
from kapi.server.discovery import asked_version
from kapi.server.health import health
from kapi.server.negotiation import JSON, PLAIN, negotiate
from kcore.meta.times import format_micro
from kcore.metrics import CONTENT_TYPE, render

Obj = dict[str, Any]

GIT_VERSION = 'v1.33.1'
VERSION: Obj = {
    'major': '1',
    'minor': '33',
    'gitVersion': GIT_VERSION,
    'gitCommit': '',
    'gitTreeState': 'clean',
    'buildDate': '2025-05-15T00:00:00Z',
    'goVersion': f'python{platform.python_version()}',
    'compiler': platform.python_implementation().lower(),
    'platform': f'{platform.system().lower()}/{platform.machine()}',
}
HEALTH = ('/healthz', '/livez', '/readyz')
FAR_FUTURE = 'Fri, 31 Dec 2094 23:59:59 GMT'


async def nonresource(ctx: Context) -> Reply:
    """Raises UnknownPath, MethodNotAllowed, NotAcceptable."""
    path = ctx.info.path.rstrip('/') or '/'
    if ctx.raw.method not in {'GET', 'HEAD'}:
        raise MethodNotAllowed if _known(ctx, path) else UnknownPath(path)
    if path == '/version':
        return Reply(orjson.dumps(VERSION, option=orjson.OPT_INDENT_2))
    if path.startswith(HEALTH):
        checks = ctx.server.ready_checks if path.startswith('/readyz') else ctx.server.live_checks
        return await health(path, ctx.info.query, checks)
    if path.startswith(dump.PREFIX):
        return _dump(ctx, path.removeprefix(dump.PREFIX))
    if path == '/metrics':
        return Reply(render(ctx.server.metrics.registry), content_type=CONTENT_TYPE)
    if path in openid.PATHS:
        return openid.document(path, ctx.server.tokens)
    if path == '/openapi/v3' or path.startswith('/openapi/v3/'):
        return _openapi(ctx, path)
    if path == '/openapi/v2':
        return _openapi_v2(ctx)
    if path in {'/api', '/apis'} and (version := asked_version(ctx.raw.headers.get('Accept', ''))):
        return _aggregated(ctx, path, version)
    document = ctx.server.discovery.legacy(path)
    if document is not None:
        return Reply(document)
    if path == '/':
        return Reply(orjson.dumps({'paths': _paths(ctx)}))
    raise UnknownPath(path)


def _dump(ctx: Context, what: str) -> Reply:
    """State of priority and fairness. Raises UnknownPath."""
    fair, clock = ctx.server.fairness, ctx.server.env.clock
    fair.refresh()
    shown = list(fair.levels.values())
    match what:
        case 'dump_priority_levels':
            rows = dump.levels(shown, fair.counts())
        case 'dump_queues':
            rows = dump.queues(shown)
        case 'dump_requests':
            now, wall = clock.monotonic(), clock.wall()
            rows = dump.requests(shown, lambda since: format_micro(wall - timedelta(seconds=now - since)))
        case _:
            raise UnknownPath(ctx.info.path)
    return Reply(dump.table(rows).encode(), content_type='text/plain; charset=utf-8')


def _known(ctx: Context, path: str) -> bool:
    return path in {'/version', '/metrics', *HEALTH} or ctx.server.discovery.legacy(path) is not None


def _paths(ctx: Context) -> list[str]:
    found = ['/api', '/apis', *HEALTH, '/metrics', '/openapi/v2', '/openapi/v3', '/version']
    for kind in ctx.server.catalog:
        r = kind.resource
        found += [f'/apis/{r.group}', f'/apis/{r.group}/{r.version}'] if r.group else [f'/api/{r.version}']
    return sorted(set(found))


def _aggregated(ctx: Context, path: str, version: str) -> Reply:
    body, etag = ctx.server.discovery.aggregated(path, version)
    content_type = f'application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList'
    headers = {'ETag': etag, 'Vary': 'Accept', 'Cache-Control': 'public'}
    if ctx.raw.headers.get('If-None-Match') == etag:
        return Reply(b'', 304, content_type, headers)
    return Reply(body, 200, content_type, headers)


def _openapi_v2(ctx: Context) -> Reply:
    """As protobuf for those who ask, else as JSON. Raises NotAcceptable."""
    accept = ctx.raw.headers.get('Accept', '')
    protobuf = openapiv2.MEDIA_TYPE in accept
    if not protobuf and negotiate(accept) != PLAIN:
        raise NotAcceptable(f'only the following media types are accepted: {JSON}, {openapiv2.MEDIA_TYPE}')
    body, digest = ctx.server.openapi.v2(protobuf=protobuf)
    media = openapiv2.SENT_TYPE if protobuf else JSON
    etag = f'"{digest}"'
    headers = {'ETag': etag, 'Vary': 'Accept'}
    if ctx.raw.headers.get('If-None-Match') == etag:
        return Reply(b'', 304, media, headers)
    return Reply(body, content_type=media, headers=headers)


def _openapi(ctx: Context, path: str) -> Reply:
    openapi = ctx.server.openapi
    name = path.removeprefix('/openapi/v3').strip('/')
    if not name:
        return Reply(openapi.index())
    found = openapi.document(name)
    if found is None:
        raise UnknownPath(path)
    body, digest = found
    etag = f'"{digest}"'
    headers = {'ETag': etag, 'Vary': 'Accept'}
    if text(ctx.info.query, 'hash') == digest:
        headers |= {'Cache-Control': 'public, immutable', 'Expires': FAR_FUTURE}
    if ctx.raw.headers.get('If-None-Match') == etag:
        return Reply(b'', 304, headers=headers)
    return Reply(body, headers=headers)
