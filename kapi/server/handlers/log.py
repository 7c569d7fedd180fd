"""`pods/log`: the node agent's log stream, passed through."""

from __future__ import annotations

from typing import Any

import aiohttp
from aiohttp import web

from kapi.errors import BadRequest, InternalError, NotFound, Unavailable
from kapi.registry.kind import Kind
from kapi.registry.options import Query, flag, text
from kapi.server import websockets
from kapi.server.context import Context, Reply
from kapi.server.kubelet import url_of
from kapi.server.relay import pour
from kapi.server.websockets import Chunks, Messages, Sink

Obj = dict[str, Any]

PASSED = ('follow', 'tailLines', 'previous', 'timestamps', 'sinceSeconds', 'sinceTime', 'limitBytes')
ERROR_TEXT_BYTES_MAX = 64 * 1024


def pick_container(pod: Obj, query: Query) -> str:
    """The container asked for, or the only one. Raises BadRequest with the choice."""
    spec = pod.get('spec') or {}
    groups = [[c['name'] for c in spec.get(k) or ()] for k in ('containers', 'initContainers', 'ephemeralContainers')]
    name, pod_name = text(query, 'container'), pod['metadata']['name']
    if not name:
        default = (pod['metadata'].get('annotations') or {}).get('kubectl.kubernetes.io/default-container')
        if len(groups[0]) == 1 and not groups[1] and not groups[2]:
            return str(groups[0][0])
        if len(groups[0]) == 1 or default in groups[0]:
            return str(default if default in groups[0] else groups[0][0])
        text_ = f'a container name must be specified for pod {pod_name}, choose one of: [{" ".join(groups[0])}]'
        if groups[1]:
            text_ += f' or one of the init containers: [{" ".join(groups[1])}]'
        raise BadRequest(text_)
    if not any(name in g for g in groups):
        raise BadRequest(f'container {name} is not valid for pod {pod_name}')
    return name


def check_ready(pod: Obj, container: str, *, previous: bool) -> None:
    """Raises BadRequest where upstream's agent would: nothing has run yet, or nothing ran before."""
    status = pod.get('status') or {}
    lists = ('containerStatuses', 'initContainerStatuses', 'ephemeralContainerStatuses')
    found = next((c for k in lists for c in status.get(k) or () if c['name'] == container), None)
    name = pod['metadata']['name']
    state, last = (found or {}).get('state') or {}, (found or {}).get('lastState') or {}
    if previous:
        if 'terminated' not in last:
            raise BadRequest(f'previous terminated container "{container}" in pod "{name}" not found')
        return
    if 'running' in state or 'terminated' in state or 'terminated' in last:
        return
    reason = (state.get('waiting') or {}).get('reason')
    if reason:
        raise BadRequest(f'container "{container}" in pod "{name}" is waiting to start: {reason}')


async def node_url(ctx: Context, pod: Obj) -> str | None:
    """Where the agent of the pod's node listens; None while the pod has no node. Raises NotFound, InternalError."""
    name = (pod.get('spec') or {}).get('nodeName')
    if not name:
        return None
    nodes = ctx.server.catalog.find('', 'v1', 'nodes')
    assert nodes is not None
    return url_of((await ctx.server.registry.get(nodes, '', name, any_version=True)).obj)


async def log(ctx: Context, kind: Kind) -> Reply | web.StreamResponse:
    """Raises NotFound, BadRequest; InternalError when the node cannot be reached."""
    query = ctx.info.query
    pod = (await ctx.server.registry.get(kind, ctx.info.namespace, ctx.info.name)).obj
    container = pick_container(pod, query)
    base = await node_url(ctx, pod)
    if base is None:
        return Reply(b'', content_type='text/plain')
    check_ready(pod, container, previous=flag(query, 'previous'))
    url = f'{base}/containerLogs/{ctx.info.namespace}/{ctx.info.name}/{container}'
    params = {k: text(query, k) for k in PASSED if k in query}
    try:
        async with ctx.server.kubelets.request('GET', url, params=params) as upstream:
            if upstream.status >= 400:
                await _refuse(upstream)
            response = _opened(ctx)
            await pour(ctx, upstream, response)
            return response.socket if isinstance(response, Messages) else response
    except aiohttp.ClientConnectorError as e:
        raise InternalError(f'Get "{url}": dial tcp: {e.os_error.strerror or e}') from e
    except aiohttp.ClientConnectionError as e:
        raise Unavailable(f'the node agent closed the log stream: {e}') from e


async def _refuse(upstream: aiohttp.ClientResponse) -> None:
    message = (await upstream.content.read(ERROR_TEXT_BYTES_MAX)).decode(errors='replace').strip()
    if upstream.status == 404:
        raise NotFound(message, details={})
    if upstream.status == 400:
        raise BadRequest(message)
    raise InternalError(message)


def _opened(ctx: Context) -> Sink:
    if websockets.wanted(ctx.raw):
        return Chunks(ctx.raw)
    response = web.StreamResponse(headers={'Content-Type': 'text/plain', 'Audit-Id': ctx.audit_id})
    response.enable_chunked_encoding()
    return response
