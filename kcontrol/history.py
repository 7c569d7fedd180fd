"""Keep a workload's ControllerRevisions in step with its template."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from kclient.errors import AlreadyExists, NotFound
from kclient.model import Obj
from kcontrol.adoption import carry_out
from kcontrol.claim import plan_claim
from kcontrol.controller import Ctx
from kcontrol.kinds import CONTROLLERREVISIONS
from kcontrol.revisions import data_of, equal_to, new_revision, next_number, obsolete
from kcore.meta.gvk import Resource
from kcore.meta.objects import name_of, namespace_of


async def sync_revisions(c: Ctx, owner: Obj, resource: Resource) -> tuple[list[Obj], Obj] | None:
    """(all revisions, the one of the present template). None when the pass must start over: the name was taken."""
    candidates = [*c.owned(CONTROLLERREVISIONS, owner), *c.orphans(CONTROLLERREVISIONS, namespace_of(owner))]
    held = await carry_out(c, plan_claim(owner, candidates), owner, resource, CONTROLLERREVISIONS)
    found, number = equal_to(owner, held), next_number(held)
    if found is None:
        found = await _create(c, owner, resource, number)
        if found is None:
            return None
        held = [r for r in held if name_of(r) != name_of(found)] + [found]
    elif int(found['revision']) < number - 1:  # the template came back: its revision is the newest again
        newest = await c.patch(CONTROLLERREVISIONS, found, {'revision': number})
        held, found = [newest if r is found else r for r in held], newest
    return held, found


async def _create(c: Ctx, owner: Obj, resource: Resource, number: int) -> Obj | None:
    wanted = new_revision(owner, resource, number)
    try:
        return await c.client.create(CONTROLLERREVISIONS, wanted)
    except AlreadyExists:
        there = await c.client.get(CONTROLLERREVISIONS, name_of(wanted), namespace_of(wanted))
    uids = {r.get('uid') for r in there['metadata'].get('ownerReferences') or ()}
    if there.get('data') == data_of(owner) and owner['metadata']['uid'] in uids:
        return there  # our own write, which the cache does not show yet
    collisions = int((owner.get('status') or {}).get('collisionCount') or 0)
    await c.patch_status(resource, owner, {**(owner.get('status') or {}), 'collisionCount': collisions + 1})
    return None


async def forget_old(c: Ctx, owner: Obj, revisions: Iterable[Obj], live: Collection[str]) -> None:
    """Delete what goes beyond the history limit."""
    for revision in obsolete(owner, revisions, live):
        try:
            await c.delete(CONTROLLERREVISIONS, revision)
        except NotFound:
            continue
