"""The attach/detach controller: one pass for each node."""

from __future__ import annotations

from collections.abc import Iterable

from kclient.errors import AlreadyExists, NotFound
from kclient.model import Obj
from kcontrol.controller import Ctx, Result, Watching, controller
from kcontrol.controllers.attachdetach.plan import attached, wanted
from kcontrol.controllers.nodelifecycle.reconcile import NODE_INDEX, by_node
from kcontrol.kinds import CSIDRIVERS, VOLUMEATTACHMENTS
from kcore.meta.gvk import NODES, PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, PODS
from kcore.meta.objects import deleting, get_path, name_of


def node_of_pod(_: Ctx, old: Obj | None, new: Obj | None) -> Iterable[str]:
    """The node of a pod that has claims."""
    pod = new if new is not None else old
    spec = (pod or {}).get('spec') or {}
    has = any(v.get('persistentVolumeClaim') or v.get('ephemeral') for v in spec.get('volumes') or ())
    return (str(spec['nodeName']),) if has and spec.get('nodeName') else ()


def node_of_attachment(_: Ctx, old: Obj | None, new: Obj | None) -> Iterable[str]:
    one = new if new is not None else old
    return (str(get_path(one, 'spec.nodeName')),) if one is not None else ()


def nodes_of_claims(c: Ctx, _old: Obj | None, new: Obj | None) -> Iterable[str]:
    """Every node with a pod that uses a claim which changed."""
    if new is None:
        return ()
    pods = c.in_namespace(PODS, str(new['metadata'].get('namespace') or ''))
    return {node for pod in pods for node in node_of_pod(c, None, pod)}


@controller(
    'attachdetach',
    primary=NODES,
    watches=[
        Watching(PODS, node_of_pod),
        Watching(VOLUMEATTACHMENTS, node_of_attachment),
        Watching(PERSISTENTVOLUMECLAIMS, nodes_of_claims),
        Watching(PERSISTENTVOLUMES, lambda _c, _old, _new: ()),
        Watching(CSIDRIVERS, lambda _c, _old, _new: ()),
    ],
)
async def reconcile(c: Ctx, key: str) -> Result | None:
    pods = c.informers.get(PODS, indexers={NODE_INDEX: by_node}).store.by_index(NODE_INDEX, key)
    drivers = {name_of(d): d for d in c.list(CSIDRIVERS)}

    def volume(name: str) -> Obj | None:
        return c.get(PERSISTENTVOLUMES, name)

    there = {name_of(a): a for a in c.list(VOLUMEATTACHMENTS) if get_path(a, 'spec.nodeName') == key}
    goal = wanted(pods, lambda k: c.get(PERSISTENTVOLUMECLAIMS, k), volume, drivers)
    for name in goal.keys() - there.keys():
        try:
            await c.client.create(VOLUMEATTACHMENTS, goal[name])
        except AlreadyExists:
            continue
    for name in there.keys() - goal.keys():
        one = there[name]
        if deleting(one) or not str(name).startswith('csi-'):
            continue
        try:
            await c.delete(VOLUMEATTACHMENTS, one)
        except NotFound:
            continue
    node = c.get(NODES, key)
    if node is not None:
        status = node.get('status') or {}
        shown = attached(key, there.values(), volume)
        if shown != (status.get('volumesAttached') or []):
            await c.patch_status(NODES, node, {**status, 'volumesAttached': shown})
    return None
