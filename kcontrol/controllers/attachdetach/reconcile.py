"""The attach/detach controller: one pass for each node."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from kclient.errors import AlreadyExists, NotFound
from kclient.model import Obj
from kcontrol.controller import Ctx, Result, Watching, controller
from kcontrol.controllers.attachdetach.plan import (
    Lookup,
    attached,
    exclusive,
    mounted,
    node_name_of,
    plan,
    users_of,
    volume_of,
    wanted,
)
from kcontrol.controllers.nodelifecycle.reconcile import NODE_INDEX, by_node
from kcontrol.kinds import CSIDRIVERS, VOLUMEATTACHMENTS
from kcore.meta.gvk import NODES, PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, PODS
from kcore.meta.objects import condition_is, get_path, name_of

RETRY_S = 15.0
"""A volume that another node has is asked for again, even if nobody says that it is free."""
UNMOUNT_S = 360.0
"""How long a node that is not ready may keep mounted what its pods need no more."""


def node_of_pod(_: Ctx, old: Obj | None, new: Obj | None) -> Iterable[str]:
    """The node of a pod that has claims."""
    pod = new if new is not None else old
    spec = (pod or {}).get('spec') or {}
    has = any(v.get('persistentVolumeClaim') or v.get('ephemeral') for v in spec.get('volumes') or ())
    return (str(spec['nodeName']),) if has and spec.get('nodeName') else ()


def nodes_of_attachment(c: Ctx, old: Obj | None, new: Obj | None) -> Iterable[str]:
    """Its own node; once it is gone those, too, that may have waited for its volume."""
    one = new if new is not None else old
    if one is None:
        return ()
    own, held = str(get_path(one, 'spec.nodeName')), c.get(PERSISTENTVOLUMES, volume_of(one))
    if new is not None or held is None:
        return (own,)
    pods = c.in_namespace(PODS, str(get_path(held, 'spec.claimRef.namespace') or ''))
    return {own, *(node for pod in users_of(held, pods) for node in node_of_pod(c, None, pod))}


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
        Watching(VOLUMEATTACHMENTS, nodes_of_attachment),
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

    everywhere = c.list(VOLUMEATTACHMENTS)
    there = [a for a in everywhere if get_path(a, 'spec.nodeName') == key]
    node = c.get(NODES, key)
    goal = wanted(pods, lambda k: c.get(PERSISTENTVOLUMECLAIMS, k), volume, drivers)
    step = plan(key, goal, everywhere, volume, mounted(node))
    detach = [*step.detach, *_given_up(c, node, step.mounted)]
    for one in step.wait:
        _tell_multi_attach(c, volume(volume_of(one)), pods)
    unsure = [one for one in step.attach if not await attach(c, one, volume(volume_of(one)))]
    if node is not None:  # before anything is detached: the node must not mount it any more
        status = node.get('status') or {}
        shown = attached(key, [one for one in there if one not in detach], volume)
        before = status.get('volumesAttached') or []
        if shown != before:
            await c.patch_status(NODES, node, {**status, 'volumesAttached': shown})
            known = {v['name'] for v in before}
            _tell_attached(c, pods, [v for v in _volumes(there, volume) if node_name_of(v) not in known])
    for one in detach:
        with contextlib.suppress(NotFound):
            await c.delete(VOLUMEATTACHMENTS, one)
    _tell_failures(c, pods, there, volume)
    return Result(RETRY_S) if step.wait or step.mounted or unsure else None


def _given_up(c: Ctx, node: Obj | None, still: Iterable[Obj]) -> list[Obj]:
    """What a node that does not answer is not asked to unmount any longer."""
    now, known = c.env.clock.monotonic(), c.state.setdefault('unmounting', {})
    name = name_of(node) if node is not None else ''
    since = known[name] = {name_of(one): known.get(name, {}).get(name_of(one), now) for one in still}
    if node is None or condition_is(node, 'Ready'):
        return []
    return [one for one in still if now - since[name_of(one)] >= UNMOUNT_S]


async def attach(c: Ctx, one: Obj, held: Obj | None) -> bool:
    """False when the volume is for one node only, and the cache does not show yet which node was given it last."""
    owner = f'volume/{volume_of(one)}' if held is not None and exclusive(held) else None
    if owner is not None and not c.caught_up(owner, VOLUMEATTACHMENTS):
        return False
    with contextlib.suppress(AlreadyExists):
        await c.create(VOLUMEATTACHMENTS, one, owner=owner)
    return True


def _volumes(attachments: Iterable[Obj], volume: Lookup) -> list[Obj]:
    """Those that are attached."""
    names = [volume_of(a) for a in attachments if get_path(a, 'status.attached')]
    return [held for held in map(volume, names) if held is not None]


def _tell_attached(c: Ctx, pods: Iterable[Obj], volumes: Iterable[Obj]) -> None:
    for held in volumes:
        for pod in users_of(held, pods):
            text = f'AttachVolume.Attach succeeded for volume "{name_of(held)}" '
            c.event(pod, 'Normal', 'SuccessfulAttachVolume', text)


def _tell_failures(c: Ctx, pods: Iterable[Obj], attachments: Iterable[Obj], volume: Lookup) -> None:
    """What attachers could not do, each failure once."""
    told: dict[str, object] = c.state.setdefault('told', {})
    for one in attachments:
        error, held = get_path(one, 'status.attachError'), volume(volume_of(one))
        if held is None or not error or told.get(name_of(one)) == error:
            continue
        told[name_of(one)] = error
        for pod in users_of(held, pods):
            text = f'AttachVolume.Attach failed for volume "{name_of(held)}" : {error.get("message", "")}'
            c.event(pod, 'Warning', 'FailedAttachVolume', text)


def _tell_multi_attach(c: Ctx, held: Obj | None, pods: Iterable[Obj]) -> None:
    if held is None:
        return
    mine = users_of(held, pods)
    own = {name_of(p) for p in mine}
    others = [p for p in users_of(held, c.in_namespace(PODS, str(get_path(held, 'spec.claimRef.namespace'))))
              if name_of(p) not in own and get_path(p, 'spec.nodeName')]  # fmt: skip
    why = "is already exclusively attached to one node and can't be attached to another"
    if others:
        why = f'is already used by pod(s) {", ".join(sorted(map(name_of, others)))}'
    for pod in mine:
        text = f'Multi-Attach error for volume "{name_of(held)}" Volume {why}'
        c.event(pod, 'Warning', 'FailedAttachVolume', text)
