"""The disruption controller: keeps the status of budgets, which evictions take from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kclient.errors import NotFound
from kclient.model import Obj
from kcontrol.controller import Ctx, Result, Watching, controller
from kcontrol.controllers.disruption.plan import (
    count,
    failed_status,
    granted,
    needs_scale,
    plan_status,
    stale_in_s,
    unmanaged,
)
from kcontrol.kinds import PODDISRUPTIONBUDGETS, REPLICATIONCONTROLLERS, STATEFULSETS
from kcore.meta.gvk import DEPLOYMENTS, PODS, REPLICASETS, Resource
from kcore.meta.objects import (
    condition_is,
    controller_of,
    get_path,
    is_pod_finished,
    key_of,
    labels_of,
    name_of,
    namespace_of,
)
from kcore.meta.selectors import from_label_selector
from kcore.meta.times import format_time

_KNOWN = (REPLICASETS, REPLICATIONCONTROLLERS, STATEFULSETS, DEPLOYMENTS)
RETRY_S = 60.0
"""Pods that cannot be counted are looked at again: their owner may have got a scale."""


class CannotCount(Exception):
    """The pods' owners do not say how many pods there should be."""


def budgets_of(c: Ctx, old: Obj | None, new: Obj | None) -> Iterable[str]:
    """Budgets that cover the pod, before or after."""
    found: dict[str, None] = {}
    for pod in (old, new):
        for budget in c.in_namespace(PODDISRUPTIONBUDGETS, namespace_of(pod)) if pod is not None else ():
            if covers(budget, pod or {}):
                found[key_of(budget)] = None
    return found


def budgets_of_owner(c: Ctx, old: Obj | None, new: Obj | None) -> Iterable[str]:
    """All budgets of the namespace, when an owner changed its size."""
    obj = new if new is not None else old
    if obj is None or (old is not None and new is not None and _size(old) == _size(new)):
        return ()
    return (key_of(b) for b in c.in_namespace(PODDISRUPTIONBUDGETS, namespace_of(obj)))


def _size(obj: Obj) -> object:
    return get_path(obj, 'spec.replicas')


def covers(budget: Obj, pod: Obj) -> bool:
    return from_label_selector((budget.get('spec') or {}).get('selector')).matches(labels_of(pod))


@controller(
    'disruption',
    primary=PODDISRUPTIONBUDGETS,
    watches=[Watching(PODS, budgets_of), *(Watching(r, budgets_of_owner) for r in _KNOWN)],
    workers=2,
)
async def reconcile(c: Ctx, key: str) -> Result | None:
    budget = c.get(PODDISRUPTIONBUDGETS, key)
    if budget is None:
        return None
    pods = [p for p in c.in_namespace(PODS, namespace_of(budget)) if covers(budget, p) and not is_pod_finished(p)]
    try:
        scales = await _scales(c, pods) if needs_scale(budget) else {}
        status = plan_status(budget, pods, count(budget, pods, scales), c.now())
    except (CannotCount, ValueError) as e:
        c.event(
            budget,
            'Warning',
            'CalculateExpectedPodCountFailed',
            f'Failed to calculate the number of expected pods: {e}',
        )
        await c.patch_status(PODDISRUPTIONBUDGETS, budget, failed_status(budget, str(e), c.now()))
        return Result(RETRY_S)
    if not pods:
        c.event(budget, 'Normal', 'NoPods', 'No matching pods found')
    if text := unmanaged(budget, pods):
        c.event(budget, 'Warning', 'UnmanagedPods', text)
    await c.patch_status(PODDISRUPTIONBUDGETS, budget, status)
    _, wait = granted(budget, pods, c.now())
    return Result(wait) if wait is not None else None


async def _scales(c: Ctx, pods: Sequence[Obj]) -> dict[str, int]:
    """Uid of each top owner → its replicas. Pods without a controller do not count. Raises CannotCount."""
    found: dict[str, int] = {}
    seen: set[str] = set()
    for pod in pods:
        ref = controller_of(pod)
        if ref is None or str(ref['uid']) in seen:
            continue
        seen.add(str(ref['uid']))
        scale = await _owner_scale(c, ref, namespace_of(pod))
        if scale is None:
            raise CannotCount(f'found no controllers for pod "{name_of(pod)}"')
        found[scale[0]] = scale[1]
    return found


async def _owner_scale(c: Ctx, ref: Obj, namespace: str) -> tuple[str, int] | None:
    """(uid, replicas) of the owner, or of the Deployment above; None when it is gone. Raises CannotCount."""
    known = next((r for r in _KNOWN if r.kind == ref['kind'] and r.api_version == ref['apiVersion']), None)
    if known is None:
        return await _foreign_scale(c, ref, namespace)
    owner = c.get(known, f'{namespace}/{ref["name"]}')
    if owner is None or owner['metadata']['uid'] != ref['uid']:
        return None
    above = controller_of(owner)
    if known == REPLICASETS and above is not None and above.get('kind') == DEPLOYMENTS.kind:
        return await _owner_scale(c, above, namespace)
    return str(ref['uid']), int((owner.get('spec') or {}).get('replicas', 1))


async def _foreign_scale(c: Ctx, ref: Obj, namespace: str) -> tuple[str, int] | None:
    """What the owner's scale subresource says."""
    resource: Resource | None = (await c.discovery()).find(str(ref['apiVersion']), str(ref['kind']))
    if resource is None:
        return None
    try:
        scale = await c.client.get(resource, str(ref['name']), namespace, subresource='scale')
    except NotFound:
        if not await _there(c, resource, ref, namespace):
            return None
        raise CannotCount(f'{resource} does not implement the scale subresource') from None
    if scale['metadata'].get('uid') != ref['uid']:
        return None
    return str(ref['uid']), int((scale.get('spec') or {}).get('replicas') or 0)


async def _there(c: Ctx, resource: Resource, ref: Obj, namespace: str) -> bool:
    try:
        return bool((await c.client.get(resource, str(ref['name']), namespace))['metadata']['uid'] == ref['uid'])
    except NotFound:
        return False


def disrupted(_: Ctx, _old: Obj | None, new: Obj | None) -> Iterable[str]:
    """A pod that was said to be disrupted."""
    return (key_of(new),) if new is not None and condition_is(new, 'DisruptionTarget') else ()


@controller('stalepoddisruption', primary=PODS, concerns=disrupted)
async def take_back(c: Ctx, key: str) -> Result | None:
    """A disruption that did not happen is not announced for ever."""
    pod = c.get(PODS, key)
    wait = stale_in_s(pod, c.now()) if pod is not None else None
    if pod is None or wait is None:
        return None
    if wait > 0:
        return Result(wait)
    held = [x for x in pod['status']['conditions'] if x.get('type') != 'DisruptionTarget']
    off = {'type': 'DisruptionTarget', 'status': 'False', 'lastTransitionTime': format_time(c.now())}
    await c.patch_status(PODS, pod, {**pod['status'], 'conditions': [*held, off]})
    return None
