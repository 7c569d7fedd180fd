"""The taint eviction controller: deletes pods when the time that they tolerate has passed."""

from __future__ import annotations

from collections.abc import Iterable

from kclient.errors import NotFound
from kclient.model import Obj
from kclient.retry import change
from kcontrol.controller import Ctx, Result, Watching, controller
from kcontrol.controllers.nodelifecycle.reconcile import NODE_INDEX, by_node
from kcontrol.controllers.tainteviction.plan import Seen, dated, evict_in_s, first_seen, no_execute
from kcontrol.figures import EVICTED_PODS, EVICTION_LATENESS_S
from kcore.meta.gvk import NODES, PODS
from kcore.meta.objects import deleting, is_pod_finished, key_of, name_of
from kcore.meta.times import format_time

MESSAGE = 'Taint manager: deleting due to NoExecute taint'


def pods_of_node(c: Ctx, old: Obj | None, new: Obj | None) -> Iterable[str]:
    """All pods of a node whose taints changed."""
    seen: dict[str, Seen] = c.state.setdefault('seen', {})
    if new is None:
        if old is not None:
            seen.pop(name_of(old), None)
        return ()
    taints = no_execute(new)
    seen[name_of(new)] = first_seen(taints, seen.get(name_of(new), {}), c.now())
    if old is not None and no_execute(old) == taints:
        return ()
    pods = c.informers.get(PODS, indexers={NODE_INDEX: by_node})
    return (key_of(pod) for pod in pods.store.by_index(NODE_INDEX, name_of(new)))


def _wait_s(c: Ctx, pod: Obj) -> float | None:
    node = c.get(NODES, str((pod.get('spec') or {}).get('nodeName') or ''))
    if node is None:
        return None
    return evict_in_s(pod, dated(no_execute(node), c.state.get('seen', {}).get(name_of(node), {})), c.now())


def pod_that_may_go(c: Ctx, old: Obj | None, new: Obj | None) -> Iterable[str]:
    """A pod that came to its node, changed what it tolerates, or ended."""
    if old is not None and new is not None and _fate(old) == _fate(new):
        return ()
    pod = new if new is not None else old
    return (key_of(pod),) if pod is not None and pod['spec'].get('nodeName') else ()


def _fate(pod: Obj) -> tuple[object, ...]:
    spec = pod['spec']
    return spec.get('nodeName'), spec.get('tolerations'), deleting(pod), is_pod_finished(pod)


@controller('tainteviction', primary=PODS, concerns=pod_that_may_go, watches=[Watching(NODES, pods_of_node)], workers=5)
async def reconcile(c: Ctx, key: str) -> Result | None:
    planned: set[str] = c.state.setdefault('planned', set())
    pod = c.get(PODS, key)
    if pod is None or deleting(pod) or is_pod_finished(pod):
        planned.discard(key)
        return None
    wait = _wait_s(c, pod)
    if wait is None and key in planned:
        c.event(pod, 'Normal', 'TaintManagerEviction', f'Cancelling deletion of Pod {key}')
        planned.discard(key)
    if wait is None:
        return None
    if wait > 0:
        planned.add(key)
        return Result(wait)
    c.event(pod, 'Normal', 'TaintManagerEviction', f'Marking for deletion Pod {key}')
    target = {
        'type': 'DisruptionTarget', 'status': 'True', 'lastTransitionTime': format_time(c.now()),
        'reason': 'DeletionByTaintManager', 'message': MESSAGE,
    }  # fmt: skip

    def marked(now: Obj) -> Obj:
        held = [x for x in (now.get('status') or {}).get('conditions') or () if x.get('type') != 'DisruptionTarget']
        return {'status': {'conditions': [*held, target]}}

    try:
        await change(c.client, PODS, pod, marked, subresource='status')
        await c.delete(PODS, pod)
    except NotFound:
        return None
    c.figures.count(EVICTED_PODS)
    c.figures.observe(EVICTION_LATENESS_S, -wait)
    return None
