"""The ResourceQuota controller: recounts what a namespace uses; admission keeps the count from growing too far."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from kclient.discovery import discover
from kclient.model import Obj
from kcontrol.controller import Ctx, Result, Watching, controller
from kcontrol.controllers.resourcequota.plan import resource_of, used
from kcontrol.kinds import RESOURCEQUOTAS
from kcore.meta.gvk import PODS, Resource
from kcore.meta.objects import is_pod_finished, key_of, namespace_of

RECOUNT_S = 300.0
"""Everything is counted again after this, whatever the events said."""


def quotas_of(c: Ctx, old: Obj | None, new: Obj | None) -> Iterable[str]:
    """Quotas of the namespace of an object that came, went or ended."""
    obj = new if new is not None else old
    if obj is None or (old is not None and new is not None and _weight(old) == _weight(new)):
        return ()
    return (key_of(q) for q in c.in_namespace(RESOURCEQUOTAS, namespace_of(obj)))


def _weight(obj: Obj) -> object:
    """What of an object can change its usage while it exists."""
    if obj.get('kind') == PODS.kind:
        spec = obj.get('spec') or {}
        return is_pod_finished(obj), [c.get('resources') for c in spec.get('containers') or ()]
    if obj.get('kind') in ('Service', 'PersistentVolumeClaim'):
        return obj.get('spec'), (obj.get('status') or {}).get('capacity')
    return None


@controller('resourcequota', primary=RESOURCEQUOTAS, watches=[Watching(PODS, quotas_of)], workers=2)
async def reconcile(c: Ctx, key: str) -> Result | None:
    quota = c.get(RESOURCEQUOTAS, key)
    if quota is None:
        return None
    hard = (quota.get('spec') or {}).get('hard') or {}
    counted: dict[str, list[Obj]] = {}
    for name in {resource_of(n) for n in hard}:
        resource = await _resource(c, name)
        if resource is not None:
            counted[name] = c.in_namespace(resource, namespace_of(quota))
    status = {'hard': dict(hard), 'used': used(quota, counted)}
    await c.patch_status(RESOURCEQUOTAS, quota, status)
    return Result(RECOUNT_S)


def _enqueue(c: Ctx, old: Obj | None, new: Obj | None) -> None:
    for key in quotas_of(c, old, new):
        c.queue.add(key)


async def _resource(c: Ctx, name: str) -> Resource | None:
    """The resource to count, with its cache in step; None when the server has no such kind."""
    watched: dict[str, Resource] = c.state.setdefault('watched', {'pods': PODS})
    found = watched.get(name)
    if found is not None:
        return found
    served = (await discover(c.client)).with_verbs('list', 'watch')
    found = next((r for r in served if r.qualified == name), None)
    if found is None:
        return None
    informer = c.informer(found)
    await informer.synced()
    if name not in watched:  # another worker may have been here meanwhile
        watched[name] = found
        informer.on_change(partial(_enqueue, c))
    return found
