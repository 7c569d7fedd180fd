"""The controller of the cluster's name servers. Without an address for their Service it does nothing."""

from __future__ import annotations

from collections.abc import Iterable

from kclient.errors import AlreadyExists
from kclient.model import Obj
from kcontrol.controller import Ctx, Result, Watching, controller, own_key
from kcontrol.controllers.clusterdns.plan import LABELS, service, subsets
from kcore.meta.clusterdns import NAMESPACE, SERVICE
from kcore.meta.gvk import ENDPOINTS, NODES, SERVICES

KEY = f'{NAMESPACE}/{SERVICE}'


def dns_key(c: Ctx, old: Obj | None, new: Obj | None) -> Iterable[str]:
    return (KEY,) if KEY in own_key(c, old, new) else ()


def any_node(c: Ctx, old: Obj | None, new: Obj | None) -> Iterable[str]:
    return (KEY,)


@controller(
    'clusterdns', primary=SERVICES, concerns=dns_key,
    watches=[Watching(ENDPOINTS, dns_key), Watching(NODES, any_node)],
)  # fmt: skip
async def reconcile(c: Ctx, key: str) -> Result | None:
    if not c.config.cluster_dns:
        return None
    wanted = subsets(c.list(NODES))
    try:
        if c.get(SERVICES, key) is None and wanted:
            await c.client.create(SERVICES, service(c.config.cluster_dns))
        held = c.get(ENDPOINTS, key)
        if held is None and wanted:
            meta = {'name': SERVICE, 'namespace': NAMESPACE, 'labels': LABELS}
            await c.client.create(ENDPOINTS, {'metadata': meta, 'subsets': wanted})
        elif held is not None and (held.get('subsets') or []) != wanted:
            await c.patch(ENDPOINTS, held, {'subsets': wanted})
    except AlreadyExists:
        return None  # the cache will show it, and that brings us back
    return None
