"""From a parsed request to its handler: verbs and subresources by table, everything unknown a 404 or 405."""

from __future__ import annotations

from collections.abc import Mapping

from kapi.aggregation.proxy import proxy
from kapi.errors import MethodNotAllowed, UnknownPath
from kapi.registry.kind import Connect, Kind, Scale, Status
from kapi.server.context import Context
from kapi.server.handlers import binding, connect, create, delete, get, patch, reviews, update, usage, watch
from kapi.server.handlers import scale as scales
from kapi.server.nonresource import nonresource

VERBS: Mapping[str, connect.Handler] = {
    'get': get.get,
    'list': get.list_,
    'watch': watch.watch,
    'create': create.create,
    'update': update.update,
    'patch': patch.patch,
    'delete': delete.delete,
    'deletecollection': delete.delete_collection,
}
STATUS_VERBS: Mapping[str, connect.Handler] = {'get': get.get, 'update': update.update, 'patch': patch.patch}
SCALE_VERBS = {'get': scales.get, 'update': scales.update, 'patch': scales.patch}


async def dispatch(ctx: Context) -> None:
    """Sets `ctx.reply`. Raises UnknownPath, MethodNotAllowed, and whatever the handler raises."""
    info, server = ctx.info, ctx.server
    server.custom.sync()
    if (remote := server.aggregator.remote_of(info.path)) is not None:
        ctx.reply = await proxy(ctx, remote)
        return
    if not info.is_resource:
        ctx.reply = await nonresource(ctx)
        return
    kind = server.catalog.find(info.group, info.version, info.plural)
    if kind is None and '.' in info.group:
        # Perhaps declared through another API server a moment ago.
        await server.custom.settle()
        kind = server.catalog.find(info.group, info.version, info.plural)
    if kind is None:
        raise UnknownPath(info.path)
    ctx.kind = kind
    if info.subresource:
        await _subresource(ctx, kind)
        return
    if (info.group, info.plural) in reviews.REVIEWS and info.verb == 'create':
        ctx.reply = await reviews.review(ctx, kind)
        return
    if (info.group, info.plural, info.verb) == ('', 'bindings', 'create'):
        ctx.reply = await binding.bind(ctx, kind)
        return
    _check_scope(ctx, kind)
    handler = (usage.VERBS if info.group == usage.GROUP else VERBS).get(info.verb)
    if handler is None or info.verb not in kind.verbs:
        raise MethodNotAllowed
    ctx.reply = await handler(ctx, kind)


def _check_scope(ctx: Context, kind: Kind) -> None:
    info = ctx.info
    if not kind.resource.namespaced:
        if info.namespace and info.plural != 'namespaces':
            raise UnknownPath(info.path)
    elif not info.namespace and (info.name or info.verb not in {'list', 'watch'}):
        raise MethodNotAllowed if not info.name else UnknownPath(info.path)
    if (info.name and info.verb == 'create') or (not info.name and info.verb in {'update', 'patch'}):
        raise MethodNotAllowed


async def _subresource(ctx: Context, kind: Kind) -> None:
    info = ctx.info
    found = next((s for s in kind.subresources if s.name == info.subresource), None)
    if found is None or (info.rest and info.subresource != 'proxy'):
        raise UnknownPath(info.path)
    # A proxy passes OPTIONS on as well, which discovery has no verb for.
    if info.verb not in found.verbs and (info.subresource, info.verb) != ('proxy', 'options'):
        raise MethodNotAllowed
    if isinstance(found, Status):
        ctx.reply = await STATUS_VERBS[info.verb](ctx, kind)
    elif isinstance(found, Scale):
        ctx.reply = await SCALE_VERBS[info.verb](ctx, kind, found)
    else:
        assert isinstance(found, Connect)
        handler = connect.HANDLERS.get((kind.resource.plural, found.name))
        if handler is None:
            raise UnknownPath(info.path)
        await connect.admit_connection(ctx, kind)
        ctx.reply = await handler(ctx, kind)
