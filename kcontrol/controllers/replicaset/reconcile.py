"""The ReplicaSet controller: claim pods, create or delete the difference, write the status."""

from __future__ import annotations

from kclient.model import Obj
from kcontrol.adoption import carry_out
from kcontrol.claim import plan_claim
from kcontrol.controller import Ctx, Result, controller
from kcontrol.controllers.replicaset.plan import plan_replicas, plan_status, pod_from_template
from kcontrol.pods import Failed, create_pods, delete_pods
from kcore.meta.gvk import PODS, REPLICASETS, Resource
from kcore.meta.objects import controller_of, namespace_of, owner_ref

CATCH_UP_S = 5.0
"""Safety net: the event that shows our own write brings us back much earlier."""


@controller('replicaset', primary=REPLICASETS, owns=[PODS], workers=5)
async def reconcile(c: Ctx, key: str) -> Result | None:
    return await reconcile_replicas(c, key, REPLICASETS)


async def reconcile_replicas(c: Ctx, key: str, resource: Resource) -> Result | None:
    """The same for every owner of identical pods."""
    rs = c.get(resource, key)
    if rs is None:
        return None
    if not c.caught_up(key, PODS):
        return Result(CATCH_UP_S)
    namespace = namespace_of(rs)
    candidates = [*c.owned(PODS, rs), *c.orphans(PODS, namespace)]
    pods = await carry_out(c, plan_claim(rs, candidates), rs, resource, PODS)
    plan = plan_replicas(rs, pods, _siblings(c, rs, resource), c.now())
    failed: Failed | None = None
    try:
        if plan.create:
            pod = pod_from_template(rs, owner_ref(rs, resource), rs['spec']['template'])
            await create_pods(c, rs, [pod] * plan.create)
        await delete_pods(c, rs, plan.delete)
    except Failed as e:
        failed = e
    # Counted from what was there before the writes: their events bring the next pass.
    failure = (failed.reason, str(failed)) if failed is not None else None
    await c.patch_status(resource, rs, plan_status(rs, pods, failure, c.now()))
    if failed is not None:
        raise failed.cause
    return Result(plan.recheck_s) if plan.recheck_s is not None else None


def _siblings(c: Ctx, rs: Obj, resource: Resource) -> list[Obj]:
    """Pods of all ReplicaSets of the same Deployment: deletions spread over nodes for them together."""
    ref = controller_of(rs)
    if ref is None:
        return c.owned(PODS, rs)
    family = c.informer(resource).store.by_index('controller', str(ref['uid']))
    return [pod for member in family for pod in c.owned(PODS, member)]
