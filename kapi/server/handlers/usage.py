"""`metrics.k8s.io`: get and list of NodeMetrics and PodMetrics, chosen by the selectors of the nodes and pods."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from kapi.errors import NotFound
from kapi.registry.kind import Kind
from kapi.registry.listing import list_objects
from kapi.registry.options import list_options
from kapi.server.context import Context, Reply
from kapi.server.respond import obj_reply, objects_reply
from kapi.usage.objects import of_node, of_pods
from kcore.meta.gvk import Resource

Obj = dict[str, Any]

GROUP = 'metrics.k8s.io'
NODES = '/registry/nodes/'


async def get(ctx: Context, kind: Kind) -> Reply:
    """Raises NotFound: there is no such node or pod, or it has no figures yet."""
    measured, namespace, name = _measured(ctx, kind), ctx.info.namespace, ctx.info.name
    obj = (await ctx.server.registry.get(measured, namespace, name, any_version=True)).obj
    found = await _METRICS[kind.resource.plural](ctx, [obj])
    if not found:
        r = kind.resource
        shown = Resource(r.group, r.version, r.kind.lower(), r.kind)
        raise NotFound.of(shown, f'{namespace}/{name}' if namespace else name)
    return obj_reply(ctx, kind, found[0])


async def list_(ctx: Context, kind: Kind) -> Reply:
    options = replace(list_options(ctx.info.query), resource_version='0', match='', limit=0, continue_='')
    listed = await list_objects(ctx.server.cache, _measured(ctx, kind), ctx.info.namespace, options)
    found = await _METRICS[kind.resource.plural](ctx, [e.obj for e in listed.entries])
    return await objects_reply(ctx, kind, found, {})


VERBS = {'get': get, 'list': list_}


def _measured(ctx: Context, kind: Kind) -> Kind:
    found = ctx.server.catalog.find('', 'v1', kind.resource.plural)
    assert found is not None
    return found


async def _node_metrics(ctx: Context, nodes: list[Obj]) -> list[Obj]:
    summaries = await ctx.server.figures.of(nodes)
    now = ctx.server.env.clock.wall()
    measured = (of_node(n, summaries.get(n['metadata']['name']), now) for n in nodes)
    return [m for m in measured if m is not None]


async def _pod_metrics(ctx: Context, pods: list[Obj]) -> list[Obj]:
    summaries = await ctx.server.figures.of(list(_nodes_of(ctx, pods)))
    return of_pods(pods, summaries, ctx.server.env.clock.wall())


def _nodes_of(ctx: Context, pods: Iterable[Obj]) -> Iterable[Obj]:
    for name in {(p.get('spec') or {}).get('nodeName') for p in pods} - {None, ''}:
        if (entry := ctx.server.cache.peek(f'{NODES}{name}')) is not None:
            yield entry.obj


_METRICS: Mapping[str, Callable[[Context, list[Obj]], Awaitable[list[Obj]]]] = {
    'nodes': _node_metrics,
    'pods': _pod_metrics,
}
