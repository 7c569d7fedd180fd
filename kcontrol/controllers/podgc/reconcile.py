"""The pod garbage collector: looks over all pods now and then."""

from __future__ import annotations

import asyncio
from typing import NoReturn

import structlog

from kclient.errors import ApiError, Conflict, NotFound
from kclient.model import Obj
from kcontrol.controller import Ctx, loop
from kcontrol.controllers.podgc.plan import Doomed, is_out_of_service, node_of, plan
from kcontrol.figures import FORCED_DELETIONS, FORCED_ERRORS
from kcore.meta.gvk import NODES, PODS
from kcore.meta.objects import name_of, namespace_of
from kcore.meta.times import format_time

log = structlog.get_logger('kcontrol.podgc')

PERIOD_S = 20.0
QUARANTINE_S = 40.0
"""How long a node must be missing before its pods are removed: it may just be registering again."""


@loop('podgc', needs=(PODS, NODES))
async def run(c: Ctx) -> NoReturn:
    pods, nodes = c.informer(PODS), c.informer(NODES)
    await pods.synced()
    await nodes.synced()
    missing: dict[str, float] = {}
    while True:
        await sweep(c, missing)
        await asyncio.sleep(PERIOD_S)


async def sweep(c: Ctx, missing: dict[str, float]) -> int:
    """One pass. missing: node name → when it was first missed (monotonic seconds). Returns pods removed."""
    now, pods = c.env.clock.monotonic(), c.list(PODS)
    nodes = {name_of(n): n for n in c.list(NODES)}
    absent = {node_of(p) for p in pods} - nodes.keys() - {''}
    for name in missing.keys() - absent:
        del missing[name]
    for name in absent:
        missing.setdefault(name, now)
    gone = [name for name in absent if now - missing[name] >= QUARANTINE_S and await _gone(c, name)]
    out = [name for name, node in nodes.items() if is_out_of_service(node)]
    doomed = plan(pods, gone, out, c.config.terminated_pod_gc_threshold)
    removed = 0
    for one in doomed:
        try:
            await _remove(c, one)
            removed += 1
            c.figures.count(FORCED_DELETIONS, namespace_of(one.pod), one.label)
        except (NotFound, Conflict):
            continue
        except ApiError as e:
            c.figures.count(FORCED_ERRORS, namespace_of(one.pod), one.label)
            log.warning('pod could not be removed', object=f'{namespace_of(one.pod)}/{name_of(one.pod)}', err=str(e))
    return removed


async def _gone(c: Ctx, node: str) -> bool:
    """Ask the server: the cache may be behind."""
    try:
        await c.client.get(NODES, node)
    except NotFound:
        return True
    return False


async def _remove(c: Ctx, doomed: Doomed) -> None:
    pod, meta = doomed.pod, doomed.pod['metadata']
    log.info('pod removed', object=f'{namespace_of(pod)}/{name_of(pod)}', why=doomed.why)
    if doomed.fail_first:
        await c.patch_status(PODS, pod, _failed(c, doomed), conditional=False)
    await c.client.delete(PODS, meta['name'], meta.get('namespace'), grace_period_s=0, uid=meta['uid'])


def _failed(c: Ctx, doomed: Doomed) -> Obj:
    """The pod's status as its owner shall see it last."""
    status = {**(doomed.pod.get('status') or {}), 'phase': 'Failed'}
    if not doomed.disrupted:
        return status
    target = {
        'type': 'DisruptionTarget', 'status': 'True', 'lastTransitionTime': format_time(c.now()),
        'reason': 'DeletionByPodGC', 'message': doomed.why,
    }  # fmt: skip
    held = [x for x in status.get('conditions') or () if x.get('type') != 'DisruptionTarget']
    return status | {'conditions': [*held, target]}
