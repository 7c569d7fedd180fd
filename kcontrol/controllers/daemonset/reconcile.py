"""The DaemonSet controller."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kclient.model import Obj
from kcontrol.adoption import carry_out
from kcontrol.claim import plan_claim, selector_of
from kcontrol.controller import Ctx, Result, Watching, controller
from kcontrol.controllers.daemonset.placement import node_of, pod_for
from kcontrol.controllers.daemonset.plan import plan, plan_status
from kcontrol.history import forget_old, sync_revisions
from kcontrol.kinds import CONTROLLERREVISIONS, DAEMONSETS
from kcontrol.pods import Failed, create_pods, delete_pods
from kcontrol.revisions import HASH_LABEL, hash_of
from kcore.backoff import Backoff
from kcore.meta.gvk import NODES, PODS
from kcore.meta.objects import key_of, labels_of, name_of, namespace_of, uid_of

CATCH_UP_S = 5.0
"""Safety net: the event that shows our own write brings us back much earlier."""
FAILED_BASE_S, FAILED_CAP_S = 1.0, 900.0
"""Pause before a failed pod of one node is replaced; doubles, and starts anew after twice the cap."""


def all_sets(c: Ctx, old: Obj | None, new: Obj | None) -> Iterable[str]:
    """Every DaemonSet, when a node came, went, or changed in what placement looks at."""
    if old is not None and new is not None and _placement(old) == _placement(new):
        return ()
    return (key_of(ds) for ds in c.list(DAEMONSETS))


def _placement(node: Obj) -> tuple[object, object]:
    return labels_of(node), (node.get('spec') or {}).get('taints')


@controller(
    'daemonset', primary=DAEMONSETS, owns=[PODS, CONTROLLERREVISIONS], watches=[Watching(NODES, all_sets)], workers=2
)
async def reconcile(c: Ctx, key: str) -> Result | None:
    ds = c.get(DAEMONSETS, key)
    if ds is None:
        return None
    if selector_of(ds).empty:
        c.event(
            ds, 'Warning', 'SelectingAll', 'This daemon set is selecting all pods. A non-empty selector is required.'
        )
        return None
    if not c.caught_up(key, PODS):
        return Result(CATCH_UP_S)
    found = await sync_revisions(c, ds, DAEMONSETS)
    if found is None:
        return Result(0)
    revisions, newest = found
    candidates = [*c.owned(PODS, ds), *c.orphans(PODS, namespace_of(ds))]
    pods = await carry_out(c, plan_claim(ds, candidates), ds, DAEMONSETS, PODS)
    nodes, mark = c.list(NODES), hash_of(newest)
    step = plan(ds, nodes, pods, mark, c.now())
    due, wait = _paced(c, ds, step.failed)
    failed: Failed | None = None
    try:
        await delete_pods(c, ds, [*step.delete, *due])
        await create_pods(c, ds, [pod_for(ds, node, mark) for node in step.create])
    except Failed as e:
        failed = e
    await c.patch_status(DAEMONSETS, ds, plan_status(ds, nodes, pods, mark, c.now()))
    if failed is not None:
        raise failed.cause
    live = {labels_of(p).get(HASH_LABEL) for p in pods} | {mark}
    await forget_old(c, ds, revisions, {name_of(r) for r in revisions if hash_of(r) in live})
    waits = [w for w in (wait, step.recheck_s) if w is not None]
    return Result(min(waits)) if waits else None


def _paced(c: Ctx, ds: Obj, failed: Sequence[Obj]) -> tuple[list[Obj], float | None]:
    """(failed pods whose pause is over, seconds until the next one's is)."""
    now = c.env.clock.monotonic()
    pauses: dict[tuple[str, str], tuple[Backoff, float]] = c.state.setdefault('pauses', {})
    due: list[Obj] = []
    waits: list[float] = []
    for pod in failed:
        node = node_of(pod)
        at = (uid_of(ds), node)
        backoff, until = pauses.get(at) or (Backoff(FAILED_BASE_S, FAILED_CAP_S, c.env.rng), now)
        if now < until:
            waits.append(until - now)
            continue
        if now - until > 2 * FAILED_CAP_S:
            backoff.reset()
        pauses[at] = (backoff, now + backoff.next())
        c.event(
            ds,
            'Warning',
            'FailedDaemonPod',
            f'Found failed daemon pod {key_of(pod)} on node {node}, will try to kill it',
        )
        due.append(pod)
    return due, min(waits, default=None)
