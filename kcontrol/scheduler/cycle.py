"""The scheduler as a running component: informers feed `Core`, its decisions become bindings, conditions and events.

One loop decides, a pool of workers writes. The answer to a binding can be lost with the connection; then the pod is
read back until its fate is certain, and stays assumed meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import structlog

from kclient.api import Client
from kclient.errors import ApiError, Conflict, Forbidden, NotFound, ServerFailed, Timeout, TooManyRequests, Unavailable
from kclient.events import EventRecorder
from kclient.informer import Informer, strip_managed_fields
from kcontrol.figures import PREEMPTION_ATTEMPTS, PREEMPTION_VICTIMS, SCHEDULE_ATTEMPTS, SCHEDULE_S
from kcontrol.kinds import (
    CSIDRIVERS,
    CSISTORAGECAPACITIES,
    PODDISRUPTIONBUDGETS,
    REPLICATIONCONTROLLERS,
    STATEFULSETS,
    STORAGECLASSES,
)
from kcontrol.metrics import Metrics
from kcontrol.scheduler.core import Bind, BindVolumes, Core, Decision, Failure
from kcontrol.scheduler.podinfo import PodInfo
from kcontrol.scheduler.queue import Place
from kcontrol.volumes import SELECTED_NODE, reservation
from kcore.backoff import Backoff
from kcore.env import Env
from kcore.meta.gvk import (
    NAMESPACES,
    NODES,
    PERSISTENTVOLUMECLAIMS,
    PERSISTENTVOLUMES,
    PODS,
    REPLICASETS,
    SERVICES,
    Resource,
)
from kcore.meta.objects import annotations_of, get_condition, name_of, namespace_of
from kcore.meta.times import format_time
from kcore.tasks import start_essential, start_restarting

log = structlog.get_logger('kcontrol.scheduler')

Obj = dict[str, Any]

OPTIONAL = frozenset(
    {STATEFULSETS, REPLICATIONCONTROLLERS, PODDISRUPTIONBUDGETS, STORAGECLASSES, CSIDRIVERS, CSISTORAGECAPACITIES}
)
"""Kinds that a server need not have."""

WRITERS = 16
"""Bindings and reports under way at once."""
WRITES_WAITING_MAX = 256
"""Decisions not yet written; at the limit deciding pauses until the API has caught up."""
READ_BACK_CAP_S = 5.0
"""Longest pause between attempts to learn what became of a binding."""

_UNCERTAIN = (Conflict, Unavailable, Timeout, ServerFailed, TooManyRequests)


_QUEUES = {
    'active': Place.ACTIVE, 'backoff': Place.BACKOFF, 'unschedulable': Place.UNSCHEDULABLE, 'gated': Place.GATED,
}  # fmt: skip
"""As upstream's `scheduler_pending_pods` names them."""


async def run_scheduler(
    client: Client, env: Env, *, name: str = 'default-scheduler', metrics: Metrics | None = None
) -> NoReturn:
    """Schedule the pods whose `spec.schedulerName` is `name`, until cancelled; only one at a time should act."""
    await Scheduler(client, env, name, metrics).run()


class Scheduler:
    def __init__(self, client: Client, env: Env, name: str, metrics: Metrics | None = None) -> None:
        self._client, self._env = client, env
        self._metrics = metrics if metrics is not None else Metrics()
        self._work = asyncio.Event()
        self.core = Core(name, env.rng, env.clock.monotonic, self._work.set)
        self._recorder = EventRecorder(client, env, name)
        self._writes: asyncio.Queue[Decision] = asyncio.Queue(WRITES_WAITING_MAX)

    async def run(self) -> NoReturn:
        self._metrics.watch_scheduler(self._waiting)
        async with asyncio.TaskGroup() as group:
            start_restarting(group, 'scheduler events', self._recorder.run, self._env)
            for informer in await self._informers():
                start_restarting(group, f'scheduler {informer.resource.plural}', informer.run, self._env)
                # Nodes, namespaces and placed pods must be known before the first decision.
                await informer.synced()
            for i in range(WRITERS):
                start_essential(group, f'scheduler writer {i}', self._write_all())
            log.info('scheduler started', nodes=len(self.core.cache.nodes), waiting=len(self.core.queue))
            await self._decide_all()
        raise AssertionError('a task group with an endless body ended')

    def _waiting(self) -> dict[str, int]:
        counts = self.core.queue.counts()
        return {name: counts[place] for name, place in _QUEUES.items()}

    async def _informers(self) -> list[Informer]:
        """Pods last: a decision needs everything else. Kinds that the server does not have are left out."""
        core = self.core
        wanted: list[tuple[Resource, Callable[[Obj | None, Obj | None], None]]] = [
            (NAMESPACES, core.namespace_changed),
            (NODES, core.node_changed),
            (SERVICES, core.service_changed),
            (REPLICASETS, partial(core.owner_changed, 'ReplicaSet')),
            (STATEFULSETS, partial(core.owner_changed, 'StatefulSet')),
            (REPLICATIONCONTROLLERS, partial(core.owner_changed, 'ReplicationController')),
            (PODDISRUPTIONBUDGETS, core.budget_changed),
            (STORAGECLASSES, core.class_changed),
            (CSIDRIVERS, core.driver_changed),
            (CSISTORAGECAPACITIES, core.capacity_changed),
            (PERSISTENTVOLUMES, core.volume_changed),
            (PERSISTENTVOLUMECLAIMS, core.claim_changed),
            (PODS, core.pod_changed),
        ]
        informers: list[Informer] = []
        for resource, handler in wanted:
            if resource in OPTIONAL and not await self._has(resource):
                continue
            informer = Informer(self._client, resource, transform=strip_managed_fields)
            informer.on_change(handler)
            informers.append(informer)
        return informers

    async def _has(self, resource: Resource) -> bool:
        """Asks until the server answers."""
        pause = Backoff(0.1, READ_BACK_CAP_S, self._env.rng)
        while True:
            try:
                await self._client.list(resource, limit=1)
            except (NotFound, Forbidden) as e:
                log.info('a kind is left out', kind=resource.qualified, err=str(e))
                return False
            except ApiError as e:
                log.warning('asking for a kind failed', kind=resource.qualified, err=str(e))
                await asyncio.sleep(pause.next())
            else:
                return True

    async def _decide_all(self) -> NoReturn:
        while True:
            self._work.clear()
            began = self._env.clock.monotonic()
            decision = self.core.next()
            if decision is None:
                await self._idle()
            else:
                self._count(decision, self._env.clock.monotonic() - began)
                await self._writes.put(decision)
                await asyncio.sleep(0)  # one pod a turn of the loop: watch events are to come in between

    def _count(self, decision: Decision, seconds: float) -> None:
        if isinstance(decision, BindVolumes):
            return  # half a decision: what becomes of it is counted
        labels = 'scheduled' if isinstance(decision, Bind) else 'unschedulable', self.core.name
        figures = self._metrics.figures
        figures.count(SCHEDULE_ATTEMPTS, *labels)
        figures.observe(SCHEDULE_S, seconds, *labels)
        if isinstance(decision, Failure) and decision.victims:
            figures.count(PREEMPTION_ATTEMPTS)
            figures.observe(PREEMPTION_VICTIMS, len(decision.victims))

    async def _idle(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.core.idle_s()):
                await self._work.wait()

    async def _write_all(self) -> NoReturn:
        while True:
            decision = await self._writes.get()
            match decision:
                case Bind(pod=pod):
                    await self._bind(pod)
                case BindVolumes():
                    await self._bind_volumes(decision)
                case Failure():
                    await self._report(decision)

    async def _bind(self, pod: PodInfo) -> None:
        meta = {'namespace': pod.namespace, 'name': pod.name, 'uid': pod.uid}
        target = {'apiVersion': 'v1', 'kind': 'Node', 'name': pod.node}
        body = {'apiVersion': 'v1', 'kind': 'Binding', 'metadata': meta, 'target': target}
        try:
            await self._client.create(PODS, body, subresource='binding', name=pod.name)
        except NotFound:
            self.core.lost(pod)
            return
        except _UNCERTAIN as e:
            log.warning('binding uncertain', object=pod.key, node=pod.node, err=str(e))
            if not await self._read_back(pod):
                return
        except ApiError as e:
            self.core.unbound(pod)
            self._recorder.event(pod.obj, 'Warning', 'FailedScheduling', f'binding rejected: {e}')
            return
        self.core.bound(pod)
        log.info('pod bound', object=pod.key, node=pod.node)
        self._recorder.event(pod.obj, 'Normal', 'Scheduled', f'Successfully assigned {pod.key} to {pod.node}')

    async def _bind_volumes(self, decision: BindVolumes) -> None:
        """Bound to the versions that were decided about; the rest is the work of their binder and of provisioners."""
        pod, choice = decision
        try:
            for volume, claim in choice.bind:
                await self._change(PERSISTENTVOLUMES, volume, reservation(volume, claim))
            for claim in choice.provision:
                chosen = annotations_of(claim).get(SELECTED_NODE) == choice.node
                mark = {'metadata': {'annotations': {SELECTED_NODE: choice.node}}}
                await self._change(PERSISTENTVOLUMECLAIMS, claim, None if chosen else mark)
        except ApiError as e:
            self.core.volumes_refused(pod, str(e))
        else:
            self.core.volumes_written(pod)

    async def _change(self, resource: Resource, obj: Obj, change: Obj | None) -> None:
        if change is not None:
            pin = {k: obj['metadata'].get(k) for k in ('uid', 'resourceVersion')}
            body = {**change, 'metadata': {**(change.get('metadata') or {}), **pin}}
            await self._client.patch(resource, name_of(obj), body, namespace_of(obj) or None)

    async def _read_back(self, pod: PodInfo) -> bool:
        """Whether the binding did happen; tells the core when it did not."""
        pause = Backoff(0.1, READ_BACK_CAP_S, self._env.rng)
        while True:
            try:
                found = await self._client.get(PODS, pod.name, pod.namespace)
            except NotFound:
                self.core.lost(pod)
                return False
            except ApiError as e:
                log.warning('reading a pod back failed', object=pod.key, err=str(e))
                await asyncio.sleep(pause.next())
                continue
            if found['metadata'].get('uid') != pod.uid:
                self.core.lost(pod)
                return False
            node = (found.get('spec') or {}).get('nodeName') or ''
            if node != pod.node:
                # Bound elsewhere by somebody else, the informer will say so; not bound at all, it is tried again.
                self.core.unbound(pod)
            return node == pod.node

    async def _report(self, failure: Failure) -> None:
        """Evict victims, tell those who lost their turn, then say in status and event why the pod waits."""
        pod = failure.pod
        for victim in failure.victims:
            await self._evict(victim, pod, failure.nominated)
        for other in failure.outranked:
            await self._patch_status(other, {'nominatedNodeName': None})
        self._recorder.event(pod.obj, 'Warning', 'FailedScheduling', failure.message)
        if patch := self._status_patch(failure):
            await self._patch_status(pod, patch)
            log.info('pod unschedulable', object=pod.key, reason=failure.message)

    async def _patch_status(self, pod: PodInfo, patch: Obj) -> None:
        body = {'status': patch, 'metadata': {'uid': pod.uid}}
        try:
            await self._client.patch(PODS, pod.name, body, pod.namespace, kind='strategic', subresource='status')
        except NotFound:
            return
        except ApiError as e:
            log.warning('pod status not written', object=pod.key, err=str(e))

    def _status_patch(self, failure: Failure) -> Obj:
        """Empty when the status says it all already."""
        pod = failure.pod
        patch: Obj = {}
        known = get_condition(pod.obj, 'PodScheduled') or {}
        if (known.get('status'), known.get('message')) != ('False', failure.message):
            now = format_time(self._env.clock.wall())
            since = known.get('lastTransitionTime', now) if known.get('status') == 'False' else now
            patch['conditions'] = [{
                'type': 'PodScheduled', 'status': 'False', 'reason': 'Unschedulable', 'message': failure.message,
                'lastProbeTime': None, 'lastTransitionTime': since,
            }]  # fmt: skip
        if failure.nominated != pod.nominated:
            patch['nominatedNodeName'] = failure.nominated or None
        return patch

    async def _evict(self, victim: PodInfo, pod: PodInfo, node: str) -> None:
        condition = {
            'type': 'DisruptionTarget', 'status': 'True', 'reason': 'PreemptionByScheduler',
            'message': f'{self.core.name}: preempting to accommodate a higher priority pod',
            'lastProbeTime': None, 'lastTransitionTime': format_time(self._env.clock.wall()),
        }  # fmt: skip
        status = {'status': {'conditions': [condition]}, 'metadata': {'uid': victim.uid}}
        try:
            await self._client.patch(
                PODS, victim.name, status, victim.namespace, kind='strategic', subresource='status'
            )
            await self._client.delete(PODS, victim.name, victim.namespace, uid=victim.uid)
        except (NotFound, Conflict):
            return  # gone, or replaced by a namesake: its room is free, which the informer will show
        except ApiError as e:
            log.warning('preemption failed', object=victim.key, err=str(e))
            return
        log.info('pod preempted', object=victim.key, node=node, by=pod.key)
        self._recorder.event(victim.obj, 'Normal', 'Preempted', f'Preempted by pod {pod.uid} on node {node}')
