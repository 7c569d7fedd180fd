"""The node IPAM controller: writes `spec.podCIDR` and `spec.podCIDRs` of nodes that have none."""

from __future__ import annotations

from kclient.model import Obj
from kcontrol.controller import Ctx, Result, controller
from kcontrol.controllers.nodeipam.plan import allocate, capacity
from kcontrol.figures import CIDRS_ALLOCATED, CIDRS_MAX, CIDRS_USED
from kcore.meta.gvk import NODES
from kcore.meta.objects import name_of

RETRY_EXHAUSTED_S = 30.0


# One worker: two must not choose the same network.
@controller('nodeipam', primary=NODES, workers=1)
async def reconcile(c: Ctx, key: str) -> Result | None:
    pending: dict[str, str] = c.state.setdefault('pending', {})
    node = c.get(NODES, key)
    if node is None or _cidrs(node):
        pending.pop(key, None)
        return None
    nodes = c.list(NODES)
    # Networks that were written but that the cache does not show yet are taken too.
    used = [cidr for n in nodes for cidr in _cidrs(n)]
    used += [cidr for name, cidr in pending.items() if name != key]
    cidr = pending.get(key) or allocate(c.config.cluster_cidr, used)
    if cidr is None:
        text = f'Node {name_of(node)} status is now: CIDRNotAvailable'
        c.event(node, 'Normal', 'CIDRNotAvailable', text)
        return Result(RETRY_EXHAUSTED_S)
    pending[key] = cidr
    # Conditional on uid only: kubelets write the node's status all the time, and the field is set once.
    await c.patch(NODES, node, {'spec': {'podCIDR': cidr, 'podCIDRs': [cidr]}}, conditional=False)
    most = capacity(c.config.cluster_cidr)
    c.figures.count(CIDRS_ALLOCATED, c.config.cluster_cidr)
    c.figures.observe(CIDRS_USED, len({*used, cidr}) / most, c.config.cluster_cidr)
    c.figures.observe(CIDRS_MAX, most, c.config.cluster_cidr)
    return None


def _cidrs(node: Obj) -> list[str]:
    spec = node.get('spec') or {}
    return [*(spec.get('podCIDRs') or ([spec['podCIDR']] if spec.get('podCIDR') else []))]
