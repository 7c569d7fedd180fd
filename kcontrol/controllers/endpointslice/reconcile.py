"""The EndpointSlice controller."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from kclient.errors import ApiError, Conflict, NotFound
from kclient.model import Obj
from kcontrol.controller import Ctx, Result, Watching, controller
from kcontrol.controllers.endpoints.reconcile import pods_of, services_of_pod
from kcontrol.controllers.endpointslice.plan import MANAGED_LABEL, MANAGER, SERVICE_LABEL, SLICE_MAX, Plan, plan
from kcontrol.figures import (
    ENDPOINTS_ADDED,
    ENDPOINTS_REMOVED,
    ENDPOINTS_WANTED,
    SLICE_CHANGES,
    SLICE_SYNCS,
    SLICES,
    SLICES_WANTED,
)
from kcore.meta.gvk import ENDPOINTSLICES, NODES, PODS, SERVICES
from kcore.meta.objects import labels_of, name_of, namespace_of

CATCH_UP_S = 5.0
"""Safety net: the event that shows our own write brings us back much earlier."""
ZONE = 'topology.kubernetes.io/zone'


def service_of_slice(_: Ctx, old: Obj | None, new: Obj | None) -> Iterable[str]:
    obj = new if new is not None else old
    name = labels_of(obj).get(SERVICE_LABEL) if obj is not None else None
    return (f'{namespace_of(obj)}/{name}',) if obj is not None and name else ()


@controller(
    'endpointslice',
    primary=SERVICES,
    watches=[
        Watching(PODS, services_of_pod),
        Watching(ENDPOINTSLICES, service_of_slice),
        Watching(NODES, lambda _c, _old, _new: ()),
    ],
    workers=5,
)
async def reconcile(c: Ctx, key: str) -> Result | None:
    service = c.get(SERVICES, key)
    if service is None or not (service.get('spec') or {}).get('selector'):
        _forget(c, key)
        return None  # slices of a service that is gone fall to the garbage collector
    if service['spec'].get('type') == 'ExternalName':
        return None
    if not c.caught_up(key, ENDPOINTSLICES):
        return Result(CATCH_UP_S)
    zones = {name_of(n): labels_of(n).get(ZONE, '') for n in c.list(NODES)}
    there = _slices(c, service)
    step = plan(service, pods_of(c, service), there, zones)
    try:
        for piece in step.create:
            await c.create(ENDPOINTSLICES, piece, owner=key)
            c.figures.count(SLICE_CHANGES, 'create')
        for piece, change in step.update:
            await c.patch(ENDPOINTSLICES, piece, change)
            c.figures.count(SLICE_CHANGES, 'update')
        for piece in step.delete:
            with contextlib.suppress(NotFound):
                await c.delete(ENDPOINTSLICES, piece, owner=key)
                c.figures.count(SLICE_CHANGES, 'delete')
    except ApiError as e:
        if e.has_cause('NamespaceTerminating'):
            return None
        if not isinstance(e, (Conflict, NotFound)):
            text = f'Error updating Endpoint Slices for Service {key}: {e}'
            c.event(service, 'Warning', 'FailedToUpdateEndpointSlices', text)
        c.figures.count(SLICE_SYNCS, 'error')
        raise
    c.figures.count(SLICE_SYNCS, 'success')
    _count(c, key, there, step)
    return None


def _count(c: Ctx, key: str, there: Iterable[Obj], step: Plan) -> None:
    """What a pass changed, and what all passes together say there is."""
    changes = {name_of(piece): change for piece, change in step.update}
    dropped = {name_of(piece) for piece in step.delete}
    kept = [{**s, **changes.get(name_of(s), {})} for s in there if name_of(s) not in dropped]
    after, before = [*kept, *step.create], _members(there)
    now = _members(after)
    c.figures.observe(ENDPOINTS_ADDED, len(now - before))
    c.figures.observe(ENDPOINTS_REMOVED, len(before - now))
    least = max(1, -(-len(now) // SLICE_MAX))
    tally: dict[str, tuple[int, int, int]] = c.state.setdefault('tally', {})
    tally[key] = len(after), least, len(now)
    _show(c)


def _forget(c: Ctx, key: str) -> None:
    if c.state.get('tally', {}).pop(key, None) is not None:
        _show(c)


def _show(c: Ctx) -> None:
    for at, figure in enumerate((SLICES, SLICES_WANTED, ENDPOINTS_WANTED)):
        c.figures.observe(figure, sum(counts[at] for counts in c.state['tally'].values()))


def _members(slices: Iterable[Obj]) -> set[tuple[str, ...]]:
    return {tuple(e.get('addresses') or ()) for s in slices for e in s.get('endpoints') or ()}


def _slices(c: Ctx, service: Obj) -> list[Obj]:
    wanted = {SERVICE_LABEL: name_of(service), MANAGED_LABEL: MANAGER}.items()
    return [s for s in c.owned(ENDPOINTSLICES, service) if wanted <= labels_of(s).items()]
