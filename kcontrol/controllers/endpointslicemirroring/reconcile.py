"""The mirroring controller."""

from __future__ import annotations

from collections.abc import Iterable

from kclient.errors import AlreadyExists, Forbidden, NotFound
from kclient.model import Obj
from kcontrol.controller import Ctx, Result, Watching, controller, own_key
from kcontrol.controllers.endpointslice.plan import MANAGED_LABEL, SERVICE_LABEL
from kcontrol.controllers.endpointslicemirroring.plan import MANAGER, SUBSET_MAX, mirrored, same, skipped, slices
from kcontrol.figures import MIRROR_CHANGES
from kcore.meta.gvk import ENDPOINTS, ENDPOINTSLICES, SERVICES
from kcore.meta.objects import labels_of, name_of, namespace_of


def of_slice(_: Ctx, old: Obj | None, new: Obj | None) -> Iterable[str]:
    piece = new if new is not None else old
    if piece is None or labels_of(piece).get(MANAGED_LABEL) != MANAGER:
        return ()
    return (f'{namespace_of(piece)}/{labels_of(piece).get(SERVICE_LABEL, "")}',)


@controller(
    'endpointslicemirroring',
    primary=ENDPOINTS,
    watches=[Watching(SERVICES, own_key), Watching(ENDPOINTSLICES, of_slice)],
    workers=2,
)
async def reconcile(c: Ctx, key: str) -> Result | None:
    endpoints, service = c.get(ENDPOINTS, key), c.get(SERVICES, key)
    namespace = key.partition('/')[0]
    mine = {SERVICE_LABEL: key.partition('/')[2], MANAGED_LABEL: MANAGER}.items()
    there = {name_of(s): s for s in c.in_namespace(ENDPOINTSLICES, namespace) if mine <= labels_of(s).items()}
    wanted: list[Obj] = []
    if endpoints is not None and service is not None and mirrored(endpoints, service):
        wanted = slices(endpoints, service)
        if over := skipped(endpoints):
            text = f'A max of {SUBSET_MAX} addresses can be mirrored to EndpointSlices per Endpoints subset.'
            c.event(endpoints, 'Warning', 'TooManyAddressesToMirror', f'{text} {over} addresses were skipped')
    for piece in wanted:
        held = there.pop(name_of(piece), None)
        if held is not None and held.get('addressType') != piece['addressType']:
            await c.delete(ENDPOINTSLICES, held)  # the address type of a slice never changes
            return Result(0.1)
        await _write(c, held, piece)
    for old in there.values():
        try:
            await c.delete(ENDPOINTSLICES, old)
        except NotFound:
            continue
        c.figures.count(MIRROR_CHANGES, 'delete')
    return None


async def _write(c: Ctx, held: Obj | None, piece: Obj) -> None:
    if held is not None:
        if not same(held, piece):
            change = {k: piece[k] for k in ('endpoints', 'ports')}
            gone = {k: None for k in labels_of(held) if k not in labels_of(piece)}
            await c.patch(ENDPOINTSLICES, held, {**change, 'metadata': {'labels': {**gone, **labels_of(piece)}}})
            c.figures.count(MIRROR_CHANGES, 'update')
        return
    try:
        await c.client.create(ENDPOINTSLICES, piece)
    except AlreadyExists:
        return
    except Forbidden as e:
        if not e.has_cause('NamespaceTerminating'):
            raise
        return
    c.figures.count(MIRROR_CHANGES, 'create')
