"""`pods/binding` and `bindings`: the scheduler puts a pod on a node, once."""

from __future__ import annotations

from typing import Any

import orjson

from kapi.errors import BadRequest, Conflict, InvalidObject
from kapi.registry.kind import Kind
from kapi.registry.options import write_options
from kapi.registry.store import Write
from kapi.server.context import Context, Reply
from kapi.server.decoding import read_object
from kapi.server.handlers.admit import admit
from kcore.meta.gvk import PODS, Resource
from kcore.meta.objects import set_condition

Obj = dict[str, Any]
BINDINGS = Kind(Resource('', 'v1', 'bindings', 'Binding'))


async def bind(ctx: Context, kind: Kind) -> Reply:
    """Raises Conflict when the pod is bound already or being deleted."""
    options = write_options(ctx.info.query, 'CreateOptions', ctx.user_agent)
    binding = await read_object(ctx, kind, options, what=BINDINGS)
    name = ctx.info.name if ctx.info.subresource else binding['metadata'].get('name', '')
    target = binding.get('target') or {}
    if not name:
        raise BadRequest('name must be provided')
    if not target.get('name') or target.get('kind', 'Node') not in {'', 'Node'}:
        raise InvalidObject.single('Binding', '', 'target.name', 'Required value', 'FieldValueRequired')
    binding['metadata'].setdefault('name', name)
    binding = await admit(ctx, kind, BINDINGS.resource, binding, name=name, options=options)
    target = binding.get('target') or {}
    pods = ctx.server.catalog.find('', 'v1', 'pods')
    assert pods is not None
    now = ctx.server.env.clock.wall()

    async def transform(pod: Obj) -> Obj:
        _check(pod, binding, name)
        pod['spec']['nodeName'] = target['name']
        given = binding['metadata'].get('annotations')
        if given:
            pod['metadata'].setdefault('annotations', {}).update(given)
        set_condition(pod, 'PodScheduled', 'True', now)
        return pod

    write = Write(ctx.user, options, ctx.warnings, subresource='binding', direct=True, admitted=True)
    await ctx.server.registry.update(pods, ctx.info.namespace, name, transform, write)
    done = {'kind': 'Status', 'apiVersion': 'v1', 'metadata': {}, 'status': 'Success', 'code': 201}
    return Reply(orjson.dumps(done), 201)


def _check(pod: Obj, binding: Obj, name: str) -> None:
    meta, given = pod['metadata'], binding['metadata']
    if given.get('uid') and given['uid'] != meta['uid']:
        why = f'Precondition failed: UID in precondition: {given["uid"]}, UID in object meta: {meta["uid"]}'
        raise Conflict.of(PODS, name, why)
    if meta.get('deletionTimestamp'):
        raise Conflict.of(
            Resource('', 'v1', 'pods/binding', ''), name, f'pod {name} is being deleted, cannot be assigned to a host'
        )
    node = (pod.get('spec') or {}).get('nodeName')
    if node:
        raise Conflict.of(
            Resource('', 'v1', 'pods/binding', ''), name, f'pod {name} is already assigned to node "{node}"'
        )
    if (pod.get('spec') or {}).get('schedulingGates'):
        raise Conflict.of(
            Resource('', 'v1', 'pods/binding', ''), name, f'pod {name} has non-empty .spec.schedulingGates'
        )
