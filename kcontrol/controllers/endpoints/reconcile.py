"""The Endpoints controller: keeps a Service's Endpoints equal to its pods."""

from __future__ import annotations

from collections.abc import Iterable

from kclient.errors import AlreadyExists, ApiError, Conflict, NotFound
from kclient.model import Obj
from kcontrol.controller import Ctx, Result, Watching, controller, own_key
from kcontrol.controllers.endpoints.plan import OVER_CAPACITY, plan
from kcore.meta.gvk import ENDPOINTS, PODS, SERVICES
from kcore.meta.objects import annotations_of, key_of, labels_of, namespace_of
from kcore.meta.selectors import from_labels


def services_of_pod(c: Ctx, old: Obj | None, new: Obj | None) -> Iterable[str]:
    """Services that select the pod, by its labels before or after."""
    pod = new if new is not None else old
    if pod is None or (old is not None and new is not None and not _matters(old, new)):
        return ()
    sides = [labels_of(o) for o in (old, new) if o is not None]
    found = []
    for service in c.in_namespace(SERVICES, namespace_of(pod)):
        selector = (service.get('spec') or {}).get('selector')
        if selector and any(selector.items() <= labels.items() for labels in sides):
            found.append(key_of(service))
    return found


def _matters(old: Obj, new: Obj) -> bool:
    """Whether anything changed that a Service's endpoints show."""

    def shown(pod: Obj) -> tuple[object, ...]:
        spec, status, meta = pod.get('spec') or {}, pod.get('status') or {}, pod['metadata']
        ready = [x.get('status') for x in status.get('conditions') or () if x.get('type') == 'Ready']
        return (
            meta.get('labels'), meta.get('deletionTimestamp'), meta.get('uid'), spec.get('nodeName'),
            status.get('podIP'), status.get('podIPs'), status.get('phase'), ready,
        )  # fmt: skip

    return shown(old) != shown(new)


def pods_of(c: Ctx, service: Obj) -> list[Obj]:
    selector = from_labels(service['spec']['selector'])
    return [p for p in c.in_namespace(PODS, namespace_of(service)) if selector.matches(labels_of(p))]


@controller(
    'endpoints', primary=SERVICES, watches=[Watching(PODS, services_of_pod), Watching(ENDPOINTS, own_key)], workers=5
)
async def reconcile(c: Ctx, key: str) -> Result | None:
    service, held = c.get(SERVICES, key), c.get(ENDPOINTS, key)
    if service is None:
        await _drop(c, held)
        return None
    if not (service.get('spec') or {}).get('selector') or service['spec'].get('type') == 'ExternalName':
        return None
    wanted = plan(service, pods_of(c, service))
    if held is None:
        await _create(c, service, wanted)
        return None
    marked = annotations_of(held).get(OVER_CAPACITY)
    mark = annotations_of(wanted).get(OVER_CAPACITY)
    labels = wanted['metadata'].get('labels') or {}
    if (held.get('subsets') or []) == wanted['subsets'] and labels == labels_of(held) and mark == marked:
        return None
    gone = {k: None for k in labels_of(held) if k not in labels}
    change: Obj = {'subsets': wanted['subsets'] or None, 'metadata': {'labels': {**gone, **labels}}}
    if mark != marked:
        change['metadata']['annotations'] = {OVER_CAPACITY: mark}
    try:
        await c.patch(ENDPOINTS, held, change)
    except (Conflict, NotFound):
        raise
    except ApiError as e:
        text = f'Failed to update endpoint {key}: {e}'
        c.event(held, 'Warning', 'FailedToUpdateEndpoint', text)
        raise
    return None


async def _create(c: Ctx, service: Obj, wanted: Obj) -> None:
    try:
        await c.client.create(ENDPOINTS, wanted)
    except AlreadyExists:
        return
    except ApiError as e:
        if e.has_cause('NamespaceTerminating'):
            return
        text = f'Failed to create endpoint for service {key_of(service)}: {e}'
        c.event(service, 'Warning', 'FailedToCreateEndpoint', text)
        raise


async def _drop(c: Ctx, held: Obj | None) -> None:
    """The service is gone; Endpoints that a leader elector of old keeps as its lock are not ours."""
    if held is None or 'control-plane.alpha.kubernetes.io/leader' in annotations_of(held):
        return
    try:
        await c.delete(ENDPOINTS, held)
    except NotFound:
        return
