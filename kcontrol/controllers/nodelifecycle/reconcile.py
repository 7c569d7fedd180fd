"""The node lifecycle controller: one monitor that looks at every node each period, and at once when a node changes."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import NoReturn

import structlog

from kclient.errors import ApiError, Conflict, NotFound
from kclient.model import Obj
from kcontrol.controller import Ctx, loop
from kcontrol.controllers.nodelifecycle.plan import (
    Heart,
    Limiter,
    all_down,
    eviction_of,
    eviction_rates,
    not_ready_pod_status,
    readiness,
    silent,
    unknown_conditions,
    wanted_taints,
    zone_of,
)
from kcontrol.figures import NODE_EVICTIONS, NODE_HEALTH_S, NODES_HEALTH_S, ZONE_HEALTH, ZONE_SICK, ZONE_SIZE
from kcore.meta.gvk import LEASES, NODES, PODS
from kcore.meta.objects import name_of

log = structlog.get_logger('kcontrol.nodelifecycle')

LEASE_NAMESPACE = 'kube-node-lease'
NODE_INDEX = 'node'


def by_node(pod: Obj) -> tuple[str, ...]:
    """Index function: the node that a pod is bound to."""
    node = (pod.get('spec') or {}).get('nodeName')
    return (str(node),) if node else ()


NEEDS = NODES, LEASES, PODS


@dataclass(slots=True)
class Monitor:
    """What is remembered of the nodes during one term of leadership."""

    hearts: dict[str, Heart] = field(default_factory=dict)
    """Node uid → its heartbeat."""
    ready: dict[str, str] = field(default_factory=dict)
    """Node uid → its readiness when last looked at."""
    names: dict[str, Obj] = field(default_factory=dict)
    limiter: Limiter = field(default_factory=Limiter)
    all_down: bool = False
    """At the last look no node was ready."""


@loop('nodelifecycle', needs=NEEDS)
async def run(c: Ctx) -> NoReturn:
    nodes, changed = c.informer(NODES), asyncio.Event()
    for resource in NEEDS:
        await c.informer(resource).synced()
    c.informers.get(PODS, indexers={NODE_INDEX: by_node})
    nodes.on_change(lambda _old, _new: changed.set())
    monitor = Monitor()
    while True:
        changed.clear()
        await look(c, monitor)
        try:
            async with asyncio.timeout(c.config.node_monitor_period_s):
                await changed.wait()
        except TimeoutError:
            continue


async def look(c: Ctx, monitor: Monitor) -> None:
    """One pass: first who is alive, since that decides how fast the silent ones may be evicted, if at all."""
    nodes, now = c.list(NODES), c.env.clock.monotonic()
    await _look(c, monitor, nodes, now)
    c.figures.observe(NODES_HEALTH_S, c.env.clock.monotonic() - now)


async def _look(c: Ctx, monitor: Monitor, nodes: list[Obj], now: float) -> None:
    _note_comings_and_goings(c, monitor, nodes)
    nodes = [await _tried(node, _listen(c, monitor, node, now)) or node for node in nodes]
    down = all_down(nodes)
    if monitor.all_down and not down:
        # What the others said meanwhile may not have reached us: they get the grace once more.
        for heart in monitor.hearts.values():
            heart.since = now
    monitor.all_down = down
    rates = eviction_rates(nodes)
    _count_zones(c, nodes)
    for node in nodes:
        await _tried(node, _judge(c, monitor, node, rates, now))


def _count_zones(c: Ctx, nodes: list[Obj]) -> None:
    zones: dict[str, list[bool]] = {}
    for node in nodes:
        zones.setdefault(zone_of(node), []).append(readiness(node) == 'True')
    for zone, ready in zones.items():
        c.figures.observe(ZONE_SIZE, len(ready), zone)
        c.figures.observe(ZONE_SICK, ready.count(False), zone)
        c.figures.observe(ZONE_HEALTH, 100 * ready.count(True) / len(ready), zone)


async def _tried(node: Obj, step: Coroutine[None, None, Obj | None]) -> Obj | None:
    """One node's trouble is not another's."""
    try:
        return await step
    except (NotFound, Conflict):
        return None  # changed or gone meanwhile: the change brings the next pass
    except ApiError as e:
        log.warning('node could not be updated', node=name_of(node), err=str(e))
        return None


def _note_comings_and_goings(c: Ctx, monitor: Monitor, nodes: list[Obj]) -> None:
    present = {str(n['metadata']['uid']): n for n in nodes}
    for uid, node in present.items():
        if uid not in monitor.names:
            text = f'Node {name_of(node)} event: Registered Node {name_of(node)} in Controller'
            c.event(node, 'Normal', 'RegisteredNode', text)
        monitor.names[uid] = node
    for uid in monitor.names.keys() - present.keys():
        gone = monitor.names.pop(uid)
        monitor.hearts.pop(uid, None)
        monitor.ready.pop(uid, None)
        text = f'Node {name_of(gone)} event: Removing Node {name_of(gone)} from Controller'
        c.event(gone, 'Normal', 'RemovingNode', text)


async def _listen(c: Ctx, monitor: Monitor, node: Obj, now: float) -> Obj:
    """The node, with its conditions Unknown if it has been silent for too long."""
    began = c.env.clock.monotonic()
    try:
        return await _hear(c, monitor, node, now)
    finally:
        c.figures.observe(NODE_HEALTH_S, c.env.clock.monotonic() - began)


async def _hear(c: Ctx, monitor: Monitor, node: Obj, now: float) -> Obj:
    heart = monitor.hearts.setdefault(str(node['metadata']['uid']), Heart(since=now))
    heart.observe(node, c.get(LEASES, f'{LEASE_NAMESPACE}/{name_of(node)}'), now)
    if not silent(node, heart, now, c.config.node_monitor_grace_period_s, c.config.node_startup_grace_period_s):
        return node
    status = {**(node.get('status') or {}), 'conditions': unknown_conditions(node, c.now())}
    if not await c.patch_status(NODES, node, status):
        return node
    log.warning('node fell silent', node=name_of(node))
    return await c.client.get(NODES, name_of(node))


async def _judge(c: Ctx, monitor: Monitor, node: Obj, rates: dict[str, float], now: float) -> None:
    """Events, pods and taints that follow from a node's readiness."""
    uid, ready = str(node['metadata']['uid']), readiness(node)
    turned = monitor.ready.get(uid) != ready
    if ready != 'True' and turned and monitor.ready.get(uid) == 'True':
        text = f'Node {name_of(node)} status is now: NodeNotReady'
        c.event(node, 'Normal', 'NodeNotReady', text)
    # An agent that is alive answers for its own pods after the first time; for a silent one nobody else does.
    if ready == 'Unknown' or (ready == 'False' and turned):
        await _mark_pods(c, node)
    monitor.ready[uid] = ready
    eviction = eviction_of(node, monitor.all_down, monitor.limiter, rates, now)
    taints = wanted_taints(node, eviction, c.now())
    if taints is not None:
        await c.patch(NODES, node, {'spec': {'taints': taints or None}})
        if eviction == 'now':
            c.figures.count(NODE_EVICTIONS, zone_of(node))


async def _mark_pods(c: Ctx, node: Obj) -> None:
    """Pods of a node that is not ready are not ready either, though nobody is there to say so."""
    for pod in c.informer(PODS).store.by_index(NODE_INDEX, name_of(node)):
        status = not_ready_pod_status(pod, c.now())
        if status is None:
            continue
        c.event(pod, 'Warning', 'NodeNotReady', 'Node is not ready')
        try:
            await c.patch_status(PODS, pod, status)
        except (NotFound, Conflict):
            continue
