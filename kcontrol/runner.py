"""Run controllers for one term of leadership: wire informers to queues, queues to workers.

Nothing outlives the term: caches are built anew by the next leader, so a deposed one holds no stale state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import NoReturn

import structlog
from structlog.contextvars import bound_contextvars

from kclient.api import Client
from kclient.discovery import Discovery
from kclient.errors import ApiError, Conflict, Deposed, NotFound
from kclient.events import EventRecorder
from kclient.informer import Handler, InformerSet, strip_managed_fields
from kclient.model import Obj
from kclient.queue import WorkQueue
from kcontrol.config import ControlConfig
from kcontrol.controller import Controller, Ctx, Keys, Loop, Terminal, controller_keys
from kcontrol.figures import RUNNING
from kcontrol.metrics import Metrics
from kcore.env import Env
from kcore.meta.gvk import PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES
from kcore.tasks import start_essential, start_restarting

log = structlog.get_logger('kcontrol')

MANAGER = 'kube-controller-manager'
_VOLUMES = PERSISTENTVOLUMES, PERSISTENTVOLUMECLAIMS
RECHECK_MIN_S = 0.05
"""A reconcile that asks to be called again at once is called after this: it must not starve the event loop."""

BEHIND_S = 5.0
"""Safety net: the event that shows a controller its own write brings the key back much earlier."""

IN_WORK_MAX_S = 600.0
"""A reconcile that takes longer hangs: its requests have deadlines of 30 s. Shown by /healthz."""


class Runner:
    """All controllers of one term."""

    def __init__(
        self, client: Client, env: Env, config: ControlConfig, controllers: Iterable[Controller | Loop],
        *, metrics: Metrics | None = None,
    ) -> None:  # fmt: skip
        self._env, self.metrics = env, metrics if metrics is not None else Metrics()
        self._informers = InformerSet(client, transform=strip_managed_fields)
        self._recorders: list[EventRecorder] = []
        self._running: list[tuple[Controller | Loop, Ctx]] = []
        for declared in controllers:
            recorder = EventRecorder(client, env, component_of(declared.name))
            queue: WorkQueue[str] = WorkQueue(env)
            ctx = Ctx(client, env, self._informers, recorder, config, queue, declared.name)
            ctx.figures = self.metrics.figures
            ctx.primary = declared.primary if isinstance(declared, Controller) else None
            self._recorders.append(recorder)
            self._running.append((declared, ctx))
            if isinstance(declared, Controller):
                for resource in declared.resources:
                    ctx.informer(resource)

    @property
    def idle(self) -> bool:
        """No controller has anything to do now (delayed work apart)."""
        return all(not c.queue.busy for _, c in self._running)

    def stuck(self) -> dict[str, bool]:
        """Controller → whether something has been in work for longer than IN_WORK_MAX_S."""
        return {d.name: any(s > IN_WORK_MAX_S for s in c.queue.in_work_s()) for d, c in self._running}

    def debug(self) -> dict[str, object]:
        return {d.name: c.queue.snapshot() for d, c in self._running}

    def _volumes(self) -> tuple[list[Obj], list[Obj]]:
        """(volumes, claims) of the caches, where a controller keeps such."""
        volumes, claims = ([i.store for i in self._informers if i.resource == r] for r in _VOLUMES)
        return [v for s in volumes for v in s.list()], [x for s in claims for x in s.list()]

    async def run(self) -> None:
        """Until cancelled, or until something essential dies."""
        self.metrics.watch_queues({d.name: c.queue for d, c in self._running})
        try:
            async with asyncio.TaskGroup() as group:
                self._informers.start(group)
                for recorder in self._recorders:
                    start_restarting(group, 'event recorder', recorder.run, self._env)
                await self._informers.synced()
                self.metrics.watch_volumes(self._volumes)
                log.info('caches synced', kinds=len(list(self._informers)))
                for declared, ctx in self._running:
                    self._start(group, declared, ctx)
                    self.metrics.figures.observe(RUNNING, 1, declared.name, MANAGER)
        finally:
            for declared, ctx in self._running:
                ctx.queue.close()
                self.metrics.figures.observe(RUNNING, 0, declared.name, MANAGER)

    def _start(self, group: asyncio.TaskGroup, declared: Controller | Loop, ctx: Ctx) -> None:
        if isinstance(declared, Loop):
            start_restarting(group, declared.name, lambda: declared.run(ctx), self._env)
            return
        _feed(ctx, declared)
        for number in range(declared.workers):
            start_essential(group, f'{declared.name} worker {number}', self._work(declared, ctx))

    async def _work(self, declared: Controller, ctx: Ctx) -> NoReturn:
        while True:
            key = await ctx.queue.get()
            began = self._env.clock.monotonic()
            try:
                with bound_contextvars(controller=declared.name, object=key):
                    outcome = await work_once(declared, ctx, key)
            finally:
                ctx.queue.done(key)
            self.metrics.reconciled(declared.name, outcome, self._env.clock.monotonic() - began)


def served_only(declared: Iterable[Controller | Loop], found: Discovery) -> list[Controller | Loop]:
    """Without those whose kinds this server does not have: an informer of an unknown kind never gets in step."""
    kept: list[Controller | Loop] = []
    for one in declared:
        missing = [r for r in one.resources if not found.serves(r)]
        if missing:
            log.warning('controller left out', controller=one.name, missing=str(missing[0]))
        else:
            kept.append(one)
    return kept


async def work_once(declared: Controller, ctx: Ctx, key: str) -> str:
    """One reconcile with its consequences for the queue.

    Returns: success, requeue_after, behind, terminal, conflict or error.
    """
    if not ctx.sees_itself(key):
        # It would decide from what it has itself changed since, and meet a conflict. The event of its write is coming.
        ctx.queue.add_after(key, BEHIND_S)
        return 'behind'
    try:
        result = await declared.reconcile(ctx, key)
    except Terminal as e:
        log.warning('reconcile gave up', err=str(e))
        ctx.queue.forget(key)
        return 'terminal'
    except (Conflict, NotFound) as e:
        log.debug('reconcile met a newer object', err=str(e))
        ctx.queue.add_rate_limited(key, shared=False)
        return 'conflict'
    except (ApiError, Deposed) as e:
        log.warning('reconcile failed', err=f'{type(e).__name__}: {e}')
        ctx.queue.add_rate_limited(key)
        return 'error'
    except Exception as e:
        log.error('reconcile crashed', err=f'{type(e).__name__}: {e}', exc_info=e)
        ctx.queue.add_rate_limited(key)
        return 'error'
    ctx.queue.forget(key)
    if result is None:
        return 'success'
    ctx.queue.add_after(key, max(result.after_s, RECHECK_MIN_S))
    return 'requeue_after'


_COMPONENTS = {
    'replicationcontroller': 'replication-controller',
    'horizontalpodautoscaler': 'horizontal-pod-autoscaler',
    'nodelifecycle': 'node-controller',
    'nodeipam': 'cidrAllocator',
    'tainteviction': 'taint-eviction-controller',
    'disruption': 'controllermanager',
    'endpoints': 'endpoint-controller',
    'endpointslice': 'endpoint-slice-controller',
    'endpointslicemirroring': 'endpoint-slice-mirroring-controller',
    'persistentvolumebinder': 'persistentvolume-controller',
    'persistentvolumeclaimbinder': 'persistentvolume-controller',
    'persistentvolumeexpander': 'volume_expand',
    'ephemeralvolume': 'ephemeral_volume',
}


def component_of(name: str) -> str:
    """The source component of a controller's events, as upstream names it."""
    return _COMPONENTS.get(name, f'{name}-controller')


def _feed(ctx: Ctx, declared: Controller) -> None:
    """Changes of the watched resources become keys in the queue."""

    def handler(keys: Keys) -> Handler:
        def changed(old: Obj | None, new: Obj | None) -> None:
            for key in keys(ctx, old, new):
                ctx.queue.add(key)

        return changed

    ctx.informer(declared.primary).on_change(handler(declared.concerns))
    for resource in declared.owns:
        ctx.informer(resource).on_change(handler(controller_keys(declared.primary)))
    for watching in declared.watches:
        ctx.informer(watching.resource).on_change(handler(watching.keys))
