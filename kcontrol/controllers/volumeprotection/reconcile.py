"""Put the protecting finalizers on, and take them off what is deleted and no longer used.

Source: pkg/controller/volume/pvcprotection, pvprotection.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from kclient.errors import NotFound
from kclient.model import Obj
from kclient.retry import change
from kcontrol.controller import Ctx, Result, Watching, controller
from kcontrol.volumes import claims_of
from kcore.meta.gvk import PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, PODS, Resource
from kcore.meta.objects import controller_of, deleting, get_path, is_pod_finished, name_of, namespace_of, uid_of

CLAIM_FINALIZER, VOLUME_FINALIZER = 'kubernetes.io/pvc-protection', 'kubernetes.io/pv-protection'


def claims_of_pod(_: Ctx, old: Obj | None, new: Obj | None) -> Iterable[str]:
    """A pod that went or ended may have been the last user."""
    pod = new if new is not None else old
    if pod is None or (new is not None and not is_pod_finished(new)):
        return ()
    return (f'{namespace_of(pod)}/{name}' for name in claims_of(pod))


def in_use(claim: Obj, pods: Iterable[Obj]) -> bool:
    """Pure. Whether a pod that is bound to a node and has not ended uses the claim."""
    for pod in pods:
        if name_of(claim) not in claims_of(pod) or is_pod_finished(pod):
            continue
        if (pod.get('spec') or {}).get('nodeName') and not _foreign(claim, pod):
            return True
    return False


def _foreign(claim: Obj, pod: Obj) -> bool:
    """An ephemeral volume whose claim belongs to somebody else never gets that claim."""
    named = {f'{name_of(pod)}-{v.get("name")}' for v in pod['spec'].get('volumes') or () if v.get('ephemeral')}
    owner = controller_of(claim)
    return name_of(claim) in named and (owner is None or owner.get('uid') != uid_of(pod))


@controller('pvcprotection', primary=PERSISTENTVOLUMECLAIMS, watches=[Watching(PODS, claims_of_pod)])
async def protect_claims(c: Ctx, key: str) -> Result | None:
    claim = c.get(PERSISTENTVOLUMECLAIMS, key)
    if claim is None:
        return None
    used = True
    if deleting(claim):
        used = in_use(claim, c.in_namespace(PODS, namespace_of(claim)))
        if not used:  # the cache may be behind a pod that was just bound: ask before data are let go
            used = in_use(claim, (await c.client.list(PODS, namespace_of(claim))).items)
    await _keep(c, PERSISTENTVOLUMECLAIMS, claim, CLAIM_FINALIZER, used=used)
    return None


@controller('pvprotection', primary=PERSISTENTVOLUMES)
async def protect_volumes(c: Ctx, key: str) -> Result | None:
    volume = c.get(PERSISTENTVOLUMES, key)
    if volume is None:
        return None
    used = not deleting(volume) or get_path(volume, 'status.phase') == 'Bound'
    await _keep(c, PERSISTENTVOLUMES, volume, VOLUME_FINALIZER, used=used)
    return None


async def _keep(c: Ctx, resource: Resource, obj: Obj, finalizer: str, *, used: bool) -> None:
    """The finalizer on what exists, and off what is deleted and not `used` any more."""

    def make(now: Obj) -> Obj | None:
        held = now['metadata'].get('finalizers') or []
        if deleting(now):
            wanted = held if used else [f for f in held if f != finalizer]
        else:
            wanted = held if finalizer in held else [*held, finalizer]
        return None if wanted == held else {'metadata': {'finalizers': wanted or None}}

    with contextlib.suppress(NotFound):
        await change(c.client, resource, obj, make)
