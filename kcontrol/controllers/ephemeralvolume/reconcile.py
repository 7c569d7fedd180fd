"""Creates the claims of pods' generic ephemeral volumes. Source: pkg/controller/volume/ephemeral/controller.go."""

from __future__ import annotations

from collections.abc import Iterable

from kclient.errors import AlreadyExists, ApiError
from kclient.model import Obj
from kcontrol.controller import Ctx, Result, Watching, controller
from kcontrol.figures import CLAIMS_MADE, CLAIMS_NOT_MADE
from kcore.meta.gvk import PERSISTENTVOLUMECLAIMS, PODS
from kcore.meta.objects import (
    controller_of,
    deleting,
    is_pod_finished,
    key_of,
    name_of,
    namespace_of,
    owner_ref,
    uid_of,
)

RETRY_S = 60.0
"""A claim of somebody else's in the way may have gone."""


def pod_of_claim(_: Ctx, old: Obj | None, new: Obj | None) -> Iterable[str]:
    """The pod whose claim went away."""
    ref = controller_of(old) if old is not None and new is None else None
    return (f'{namespace_of(old)}/{ref["name"]}',) if old is not None and ref and ref.get('kind') == 'Pod' else ()


def claims_for(pod: Obj) -> list[Obj]:
    """Pure. The claims as they are created."""
    made: list[Obj] = []
    for volume in (pod.get('spec') or {}).get('volumes') or ():
        template = (volume.get('ephemeral') or {}).get('volumeClaimTemplate')
        if template is None:
            continue
        given = template.get('metadata') or {}
        meta = {k: given[k] for k in ('labels', 'annotations') if given.get(k)}
        meta |= {'name': f'{name_of(pod)}-{volume["name"]}', 'namespace': namespace_of(pod)}
        meta['ownerReferences'] = [owner_ref(pod, PODS)]
        api, kind = PERSISTENTVOLUMECLAIMS.api_version, PERSISTENTVOLUMECLAIMS.kind
        made.append({'apiVersion': api, 'kind': kind, 'metadata': meta, 'spec': template.get('spec') or {}})
    return made


def pod_with_templates(_: Ctx, _old: Obj | None, new: Obj | None) -> Iterable[str]:
    """A pod that wants claims of its own."""
    volumes = (new.get('spec') or {}).get('volumes') or () if new is not None else ()
    return (key_of(new),) if new is not None and any(v.get('ephemeral') for v in volumes) else ()


@controller(
    'ephemeralvolume',
    primary=PODS,
    concerns=pod_with_templates,
    watches=[Watching(PERSISTENTVOLUMECLAIMS, pod_of_claim)],
    workers=2,
)
async def reconcile(c: Ctx, key: str) -> Result | None:
    pod = c.get(PODS, key)
    if pod is None or deleting(pod) or is_pod_finished(pod):
        return None
    waits = False
    for claim in claims_for(pod):
        volume = name_of(claim).removeprefix(f'{name_of(pod)}-')
        held = c.get(PERSISTENTVOLUMECLAIMS, f'{namespace_of(pod)}/{name_of(claim)}')
        if held is None:
            try:
                await _create(c, claim)
            except ApiError as e:
                c.event(pod, 'Warning', 'FailedBinding', f'ephemeral volume {volume}: {e}')
                raise
        elif (controller_of(held) or {}).get('uid') != uid_of(pod):
            text = f'PVC {namespace_of(pod)}/{name_of(claim)} was not created for pod {key} (pod is not owner)'
            c.event(pod, 'Warning', 'FailedBinding', f'ephemeral volume {volume}: {text}')
            waits = True
    return Result(RETRY_S) if waits else None


async def _create(c: Ctx, claim: Obj) -> None:
    c.figures.count(CLAIMS_MADE)
    try:
        await c.client.create(PERSISTENTVOLUMECLAIMS, claim)
    except AlreadyExists:
        return
    except ApiError as e:
        c.figures.count(CLAIMS_NOT_MADE)
        if not e.has_cause('NamespaceTerminating'):
            raise
