"""The binder's two controllers, one for claims and one for volumes, and the expander."""

from __future__ import annotations

from collections.abc import Iterable

from kclient.errors import ApiError, NotFound
from kclient.model import Obj
from kcontrol.controller import Ctx, Result, Watching, controller
from kcontrol.controllers.volumebinder import plan as p
from kcontrol.figures import LATE_CLASS_ERRORS, LATE_CLASSES
from kcontrol.kinds import STORAGECLASSES
from kcontrol.volumes import BY_CONTROLLER, COMPLETED, SELECTED_NODE, claims_of, class_of, reservation
from kcore.meta.gvk import NODES, PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, PODS
from kcore.meta.objects import annotations_of, get_path, is_pod_finished, key_of, name_of, namespace_of

RETRY_S = 15.0
"""Claims that wait are looked at again after this, as upstream's resync does."""


def claims_for_volume(c: Ctx, old: Obj | None, new: Obj | None) -> Iterable[str]:
    """The claim that a volume is for; every waiting claim when it is for nobody."""
    volume = new if new is not None else old
    ref = get_path(volume, 'spec.claimRef') if volume is not None else None
    if ref:
        return (f'{ref.get("namespace")}/{ref.get("name")}',)
    return (key_of(x) for x in c.list(PERSISTENTVOLUMECLAIMS) if get_path(x, 'status.phase') != 'Bound')


def claims_of_class(c: Ctx, old: Obj | None, new: Obj | None) -> Iterable[str]:
    """The claims that name a class, and those that name none: it may be the default."""
    found = new if new is not None else old
    names = (name_of(found) if found is not None else '', '')
    return (key_of(x) for x in c.list(PERSISTENTVOLUMECLAIMS) if class_of(x) in names)


def claims_of_pod(_: Ctx, old: Obj | None, new: Obj | None) -> Iterable[str]:
    """The claims of a pod that waits for a node, or has just been given one."""
    if new is None or (old is not None and get_path(old, 'spec.nodeName')):
        return ()
    return (f'{namespace_of(new)}/{name}' for name in claims_of(new))


def volume_of_claim(_: Ctx, old: Obj | None, new: Obj | None) -> Iterable[str]:
    claim = new if new is not None else old
    name = get_path(claim, 'spec.volumeName') if claim is not None else None
    return (str(name),) if name else ()


@controller(
    'persistentvolumeclaimbinder',
    primary=PERSISTENTVOLUMECLAIMS,
    watches=[
        Watching(PERSISTENTVOLUMES, claims_for_volume),
        Watching(STORAGECLASSES, claims_of_class),
        Watching(PODS, claims_of_pod),
        Watching(NODES, lambda _c, _old, _new: ()),
    ],
)
async def bind_claims(c: Ctx, key: str) -> Result | None:
    """One worker: two claims must not choose one volume."""
    claim = c.get(PERSISTENTVOLUMECLAIMS, key)
    if claim is None:
        return None
    storage = c.get(STORAGECLASSES, class_of(claim)) if class_of(claim) else None
    volumes = {name_of(v): v for v in c.list(PERSISTENTVOLUMES)}
    users = [] if get_path(claim, 'spec.volumeName') else _users(c, claim)
    waiting = [name_of(pod) for pod in users if not get_path(pod, 'spec.nodeName')]
    step = p.plan_claim(claim, volumes, storage, waiting=waiting, node=_node(c, users))
    if step.phase is None:
        return None
    if step.bind is None and step.phase == 'Pending' and not get_path(claim, 'spec.volumeName'):
        given = p.default_class(claim, c.list(STORAGECLASSES))
        if given:
            await _give_class(c, claim, given)
            return None
    if step.note is not None and not (step.phase == 'Lost' == get_path(claim, 'status.phase')):  # a loss is told once
        kind, reason, message = step.note
        c.event(claim, 'Normal' if kind == 'Normal' else 'Warning', reason, message)
    if step.provisioner and (step.node or annotations_of(claim).get(p.PROVISIONER) != step.provisioner):
        asked = {p.PROVISIONER: step.provisioner, p.OLD_PROVISIONER: step.provisioner}
        asked |= {SELECTED_NODE: step.node} if step.node else {}
        claim = await c.patch(PERSISTENTVOLUMECLAIMS, claim, {'metadata': {'annotations': asked}})
    if step.bind is not None:
        claim = await _bind(c, claim, step.bind)
    await c.patch_status(PERSISTENTVOLUMECLAIMS, claim, p.claim_status(claim, step.bind, step.phase))
    return None if step.phase in ('Bound', 'Lost') else Result(RETRY_S)


async def _give_class(c: Ctx, claim: Obj, name: str) -> None:
    try:
        await c.patch(PERSISTENTVOLUMECLAIMS, claim, {'spec': {'storageClassName': name}})
    except ApiError:
        c.figures.count(LATE_CLASS_ERRORS)
        raise
    c.figures.count(LATE_CLASSES)


def _users(c: Ctx, claim: Obj) -> list[Obj]:
    """The pods that use the claim, by name."""
    pods = c.in_namespace(PODS, namespace_of(claim))
    return sorted((pod for pod in pods if not is_pod_finished(pod) and name_of(claim) in claims_of(pod)), key=name_of)


def _node(c: Ctx, users: Iterable[Obj]) -> Obj | None:
    """Where the first of them that was placed is."""
    names = (str(get_path(pod, 'spec.nodeName') or '') for pod in users)
    return next((node for name in names if name and (node := c.get(NODES, name)) is not None), None)


async def _bind(c: Ctx, claim: Obj, volume: Obj) -> Obj:
    """First the volume, which decides, then the claim. Raises Conflict when either changed meanwhile."""
    if (change := reservation(volume, claim)) is not None:
        volume = await c.patch(PERSISTENTVOLUMES, volume, change)
    await c.patch_status(PERSISTENTVOLUMES, volume, {**(volume.get('status') or {}), 'phase': 'Bound'})
    notes = annotations_of(claim)
    if get_path(claim, 'spec.volumeName') == name_of(volume) and notes.get(COMPLETED):
        return claim
    change = {'metadata': {'annotations': {COMPLETED: 'yes'}}}
    if not get_path(claim, 'spec.volumeName'):
        change['spec'] = {'volumeName': name_of(volume)}
        change['metadata']['annotations'][BY_CONTROLLER] = 'yes'
    return await c.patch(PERSISTENTVOLUMECLAIMS, claim, change)


@controller(
    'persistentvolumebinder',
    primary=PERSISTENTVOLUMES,
    watches=[Watching(PERSISTENTVOLUMECLAIMS, volume_of_claim)],
)
async def keep_volumes(c: Ctx, key: str) -> Result | None:
    volume = c.get(PERSISTENTVOLUMES, key)
    if volume is None:
        return None
    ref = get_path(volume, 'spec.claimRef')
    claim = await _claim(c, volume, ref) if ref else None
    step = p.plan_volume(volume, claim)
    if step.note is not None and get_path(volume, 'status.phase') != step.phase:
        c.event(volume, 'Warning', step.note[1], step.note[2])
    if step.claim_ref is not None:
        gone = dict.fromkeys((get_path(volume, 'spec.claimRef') or {}).keys() - step.claim_ref.keys())
        volume = await c.patch(PERSISTENTVOLUMES, volume, {'spec': {'claimRef': gone}})
    if step.unbind:
        change = {'spec': {'claimRef': None}, 'metadata': {'annotations': {BY_CONTROLLER: None}}}
        volume = await c.patch(PERSISTENTVOLUMES, volume, change)
    status = {k: v for k, v in (volume.get('status') or {}).items() if k not in ('message', 'reason')}
    status |= {'phase': step.phase} | ({'message': step.note[2]} if step.note is not None else {})
    await c.patch_status(PERSISTENTVOLUMES, volume, status)
    return None


async def _claim(c: Ctx, volume: Obj, ref: Obj) -> Obj | None:
    """The claim of a reference. Before it counts as gone the server is asked: data may depend on it."""
    name, namespace = str(ref.get('name')), str(ref.get('namespace'))
    held = c.get(PERSISTENTVOLUMECLAIMS, f'{namespace}/{name}')
    if held is not None or get_path(volume, 'status.phase') in ('Released', 'Failed'):
        return held
    try:
        return await c.client.get(PERSISTENTVOLUMECLAIMS, name, namespace)
    except NotFound:
        return None


@controller('persistentvolumeexpander', primary=PERSISTENTVOLUMECLAIMS)
async def expand(c: Ctx, key: str) -> Result | None:
    """Growing a volume is its driver's: said here, so that a claim which never grows does not puzzle anybody."""
    claim = c.get(PERSISTENTVOLUMECLAIMS, key)
    if claim is not None and p.needs_growth(claim):
        c.event(claim, 'Normal', 'ExternalExpanding', 'waiting for an external controller to expand this PVC')
    return None
