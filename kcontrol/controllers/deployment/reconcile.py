"""The Deployment controller: claim ReplicaSets, carry out one step of the rollout, write the status."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from kclient.errors import AlreadyExists, NotFound
from kclient.model import Obj
from kcontrol.adoption import carry_out
from kcontrol.claim import plan_claim, selector_of
from kcontrol.controller import Ctx, Result, Watching, controller
from kcontrol.controllers.deployment import history, rollout
from kcontrol.controllers.deployment.plan import Plan, Scale, View, next_status, plan
from kcontrol.controllers.deployment.status import recheck_s
from kcore.meta.gvk import DEPLOYMENTS, PODS, REPLICASETS
from kcore.meta.objects import controller_of, is_pod_finished, name_of, namespace_of


def recreate_waits_for(c: Ctx, old: Obj | None, new: Obj | None) -> Iterable[str]:
    """A pod that ended: its Deployment may be a Recreate that waits for it."""
    pod = new if new is not None else old
    if pod is None or (new is not None and not is_pod_finished(new)):
        return ()
    ref = controller_of(pod)
    rs = c.get(REPLICASETS, f'{namespace_of(pod)}/{ref["name"]}') if ref and ref.get('kind') == 'ReplicaSet' else None
    owner = controller_of(rs) if rs is not None else None
    return (f'{namespace_of(pod)}/{owner["name"]}',) if owner and owner.get('kind') == 'Deployment' else ()


@controller(
    'deployment', primary=DEPLOYMENTS, owns=[REPLICASETS], watches=[Watching(PODS, recreate_waits_for)], workers=5
)
async def reconcile(c: Ctx, key: str) -> Result | None:
    d = c.get(DEPLOYMENTS, key)
    if d is None:
        return None
    if selector_of(d).empty:
        c.event(
            d, 'Warning', 'SelectingAll', 'This deployment is selecting all pods. A non-empty selector is required.'
        )
        return None
    candidates = [*c.owned(REPLICASETS, d), *c.orphans(REPLICASETS, namespace_of(d))]
    sets = await carry_out(c, plan_claim(d, candidates), d, DEPLOYMENTS, REPLICASETS)
    view = View(d, tuple(sets))
    view = View(d, tuple(sets), _old_pods_left(c, view.old))
    step = plan(view)
    d = await _write(c, d, step, view.new)
    if d is None:
        return None
    status = next_status(View(d, view.sets, view.old_pods_left), c.now(), step.note)
    await c.patch_status(DEPLOYMENTS, d, status)
    wait = recheck_s(d, status, c.now())
    return Result(wait) if wait is not None else None


def _old_pods_left(c: Ctx, old: Iterable[Obj]) -> bool:
    return any(not is_pod_finished(pod) for rs in old for pod in c.owned(PODS, rs))


async def _write(c: Ctx, d: Obj, step: Plan, new: Obj | None) -> Obj | None:
    """Carry the pass out. Returns the Deployment as it is now; None when the pass must start over."""
    updated = await c.patch(REPLICASETS, new, step.update_new) if new is not None and step.update_new else None
    if step.create is not None and not await _create(c, d, step.create):
        return None
    if step.revision is not None:
        d = await c.patch(DEPLOYMENTS, d, {'metadata': {'annotations': {history.REVISION: step.revision}}})
    for scale in step.scale:
        # The write above gave the newest set a new version; the plan still holds the one before.
        fresh = updated is not None and name_of(updated) == name_of(scale.rs)
        await _scale(c, d, replace(scale, rs=updated) if fresh and updated is not None else scale)
    for rs in step.delete:
        try:
            await c.delete(REPLICASETS, rs)
        except NotFound:
            continue
    return d


async def _create(c: Ctx, d: Obj, rs: Obj) -> bool:
    """False when the name is taken by something else: the collision count grows, the next pass takes another name."""
    try:
        await c.client.create(REPLICASETS, rs)
    except AlreadyExists:
        held = await c.client.get(REPLICASETS, name_of(rs), namespace_of(rs))
        ref = controller_of(held)
        ours = ref is not None and ref.get('uid') == d['metadata']['uid']
        if ours and history.same_template(held, d['spec']['template']):
            return True  # our own earlier write, which the cache does not show yet
        collisions = int((d.get('status') or {}).get('collisionCount') or 0) + 1
        await c.patch_status(DEPLOYMENTS, d, {**(d.get('status') or {}), 'collisionCount': collisions})
        return False
    if rollout.size(rs):
        text = f'Scaled up replica set {name_of(rs)} from 0 to {rollout.size(rs)}'
        c.event(d, 'Normal', 'ScalingReplicaSet', text)
    return True


async def _scale(c: Ctx, d: Obj, scale: Scale) -> None:
    change: Obj = {'metadata': {'annotations': scale.annotations}}
    if scale.moves:
        change['spec'] = {'replicas': scale.replicas}
    await c.patch(REPLICASETS, scale.rs, change)
    if scale.moves:
        before = rollout.size(scale.rs)
        way = 'up' if scale.replicas > before else 'down'
        text = f'Scaled {way} replica set {name_of(scale.rs)} from {before} to {scale.replicas}'
        c.event(d, 'Normal', 'ScalingReplicaSet', text)
