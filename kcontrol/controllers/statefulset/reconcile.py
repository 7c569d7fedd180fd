"""The StatefulSet controller."""

from __future__ import annotations

from kclient.errors import AlreadyExists, ApiError, NotFound
from kclient.model import Obj
from kcontrol.adoption import carry_out
from kcontrol.claim import plan_claim, selector_of
from kcontrol.controller import Ctx, Result, controller
from kcontrol.controllers.statefulset.identity import (
    claim_name,
    claim_owners,
    claim_templates,
    claims_for,
    pod_for,
    wanted,
)
from kcontrol.controllers.statefulset.plan import View, live_revisions, plan, plan_status, recheck_s, view_of
from kcontrol.history import forget_old, sync_revisions
from kcontrol.kinds import CONTROLLERREVISIONS, STATEFULSETS
from kcontrol.pods import Failed, Words, create_pods, delete_pods
from kcore.meta.gvk import PERSISTENTVOLUMECLAIMS, PODS
from kcore.meta.objects import deleting, key_of, name_of, namespace_of

CATCH_UP_S = 5.0
"""Safety net: the event that shows our own write brings us back much earlier."""


@controller('statefulset', primary=STATEFULSETS, owns=[PODS, CONTROLLERREVISIONS], workers=5)
async def reconcile(c: Ctx, key: str) -> Result | None:
    owner = c.get(STATEFULSETS, key)
    if owner is None:
        return None
    if selector_of(owner).empty:
        c.event(owner, 'Warning', 'SelectingAll', 'This stateful set is selecting all pods.')
        return None
    if not c.caught_up(key, PODS):
        return Result(CATCH_UP_S)
    found = await sync_revisions(c, owner, STATEFULSETS)
    if found is None:
        return Result(0)
    revisions, newest = found
    by_name = {name_of(r): r for r in revisions}
    candidates = [*c.owned(PODS, owner), *c.orphans(PODS, namespace_of(owner))]
    pods = await carry_out(c, plan_claim(owner, candidates), owner, STATEFULSETS, PODS)
    current = str((owner.get('status') or {}).get('currentRevision') or '')
    current = current if current in by_name else name_of(newest)
    view = view_of(owner, current, name_of(newest), pods, c.now())
    await _keep_claims(c, view)
    step = plan(view)
    failed: Failed | None = None
    try:
        await delete_pods(c, owner, step.delete, _words(owner))
        for one in step.create:
            await _create_claims(c, owner, one.ordinal)
        made = [pod_for(owner, by_name[current] if one.current else newest, one.ordinal) for one in step.create]
        await create_pods(c, owner, made, _words(owner))
    except Failed as e:
        failed = e
    await c.patch_status(STATEFULSETS, owner, plan_status(view))
    if failed is not None:
        if isinstance(failed.cause, AlreadyExists):
            return Result(1.0)  # the old pod of that name is still there, or the cache is behind
        raise failed.cause
    await forget_old(c, owner, revisions, live_revisions(view))
    wait = recheck_s(view)
    return Result(wait) if wait is not None else None


def _words(owner: Obj) -> Words:
    done, wrong = (
        f'in StatefulSet {name_of(owner)} successful',
        f'in StatefulSet {name_of(owner)} failed error: {{error}}',
    )
    return Words(
        f'create Pod {{name}} {done}', f'create Pod {{name}} {wrong}', f'delete Pod {{name}} {done}',
        f'delete Pod {{name}} {wrong}', expects_namesakes=True,
    )  # fmt: skip


async def _create_claims(c: Ctx, owner: Obj, ordinal: int) -> None:
    """Raises ApiError; a pod is not created without its claims."""
    for claim in claims_for(owner, ordinal):
        held = c.get(PERSISTENTVOLUMECLAIMS, key_of(claim))
        if held is not None:
            if deleting(held):
                c.event(owner, 'Warning', 'FailedCreate', f'pvc {name_of(held)} is being deleted')
            continue
        owners = claim_owners(owner, claim, None, condemned=False)
        if owners:
            claim['metadata']['ownerReferences'] = owners
        what = f'Claim {name_of(claim)} Pod {name_of(owner)}-{ordinal} in StatefulSet {name_of(owner)}'
        try:
            await c.client.create(PERSISTENTVOLUMECLAIMS, claim)
        except AlreadyExists:
            continue
        except ApiError as e:
            c.event(owner, 'Warning', 'FailedCreate', f'create {what} failed error: {e}')
            raise
        c.event(owner, 'Normal', 'SuccessfulCreate', f'create {what} success')


async def _keep_claims(c: Ctx, view: View) -> None:
    """Owner references of claims as the retention policy wants them, before a pod is scaled away."""
    owner = view.owner
    if deleting(owner):
        return
    keep = wanted(owner)
    for ordinal, pod in view.pods.items():
        for template in claim_templates(owner):
            claim = c.get(PERSISTENTVOLUMECLAIMS, f'{namespace_of(owner)}/{claim_name(template, owner, ordinal)}')
            if claim is None:
                continue
            owners = claim_owners(owner, claim, pod, condemned=ordinal not in keep)
            if owners is not None:
                try:
                    change = {'metadata': {'ownerReferences': owners or None}}
                    await c.patch(PERSISTENTVOLUMECLAIMS, claim, change)
                except NotFound:
                    continue
