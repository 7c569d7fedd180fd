"""The TTL controller. Source: pkg/controller/ttl/ttl_controller.go."""

from __future__ import annotations

from collections.abc import Iterable

from kclient.model import Obj
from kcontrol.controller import Ctx, Result, Watching, controller
from kcore.meta.gvk import NODES
from kcore.meta.objects import annotations_of, deleting, name_of

ANNOTATION = 'node.alpha.kubernetes.io/ttl'
STEPS = ((0, 100, 0), (90, 500, 15), (450, 1000, 30), (900, 2000, 60), (1800, 2**31, 300))
"""(at least, at most so many nodes, seconds); the ranges overlap, so that the value does not flap."""


def step_for(nodes: int, held: int) -> int:
    """Pure. Index of the step, starting from the one that holds."""
    while held < len(STEPS) - 1 and nodes > STEPS[held][1]:
        held += 1
    while held > 0 and nodes < STEPS[held][0]:
        held -= 1
    return held


def all_nodes(c: Ctx, old: Obj | None, new: Obj | None) -> Iterable[str]:
    """All nodes, when their number moved into another step."""
    if old is not None and new is not None:
        return ()
    held = int(c.state.get('step', 0))
    c.state['step'] = step_for(len(c.list(NODES)), held)
    return [name_of(n) for n in c.list(NODES)] if c.state['step'] != held else ()


@controller('ttl', primary=NODES, watches=[Watching(NODES, all_nodes)])
async def reconcile(c: Ctx, key: str) -> Result | None:
    node = c.get(NODES, key)
    if node is None or deleting(node):
        return None
    seconds = str(STEPS[int(c.state.get('step', 0))][2])
    if annotations_of(node).get(ANNOTATION) != seconds:
        await c.patch(NODES, node, {'metadata': {'annotations': {ANNOTATION: seconds}}}, conditional=False)
    return None
