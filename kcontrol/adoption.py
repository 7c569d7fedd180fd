"""Carry out a claim: adopt and release dependents on the server."""

from __future__ import annotations

from kclient.errors import Conflict, Invalid, NotFound
from kclient.model import Obj
from kcontrol.claim import Claim
from kcontrol.controller import Ctx
from kcore.meta.gvk import Resource
from kcore.meta.objects import deleting, owner_ref


async def carry_out(c: Ctx, claim: Claim, owner: Obj, owner_resource: Resource, resource: Resource) -> list[Obj]:
    """Write adoptions and releases. Returns all that `owner` has now, adopted objects as the server returned them."""
    held = [*claim.keep]
    if claim.adopt:
        meta = owner['metadata']
        fresh = await c.client.get(owner_resource, meta['name'], meta.get('namespace'))
        # The cache may be behind: an owner that is going away, or a namesake, must not adopt.
        if fresh['metadata']['uid'] != meta['uid'] or deleting(fresh):
            return held
    for obj in claim.adopt:
        refs = [*(obj['metadata'].get('ownerReferences') or ()), owner_ref(owner, owner_resource)]
        try:
            held.append(await c.patch(resource, obj, {'metadata': {'ownerReferences': refs}}))
        except (NotFound, Conflict, Invalid):
            continue  # gone, or taken by somebody else: its next event brings us back
    for obj in claim.release:
        refs = [r for r in obj['metadata'].get('ownerReferences') or () if r.get('uid') != owner['metadata']['uid']]
        try:
            await c.patch(resource, obj, {'metadata': {'ownerReferences': refs or None}})
        except (NotFound, Conflict, Invalid):
            continue
    return held
