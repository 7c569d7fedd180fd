"""The edges of a container's life: its postStart hook, and its end with preStop hook, signal and grace.

Both take time and neither holds up the pod's worker: a pod whose hook hangs can still be deleted. A container whose
postStart hook is under way is neither started nor ready, so that what waits for it goes on waiting. Of a pod that ends
all containers share one grace: the hooks of all run at once, and sidecars, which go last, have what the others left.
Source: kuberuntime_container.go, kuberuntime_termination_order.go.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import structlog

from kcore.tasks import start
from knode.errors import ShimError
from knode.pods.hooks import HookFailed, Hooks
from knode.pods.host import Host
from knode.pods.model import MINIMUM_GRACE_S, SIGNAL_GRACE_S, WHERE, Checks, Kind, Obj, Start, Stop, containers_of
from knode.runtime.driver import Record

if TYPE_CHECKING:
    from knode.pods.worker import PodWorker

log = structlog.get_logger('knode.lifecycle')

NOT_YET = Checks(started=False, ready=False)


class Lifecycle:
    def __init__(self, host: Host, worker: PodWorker) -> None:
        self._host, self._worker = host, worker
        self._hooks = Hooks(host, worker)
        self.group: asyncio.TaskGroup | None = None
        self._starting: dict[str, asyncio.Task[None]] = {}
        """Running postStart hooks by container id."""
        self._held: dict[str, asyncio.Task[None] | None] = {}
        """preStop hooks of containers whose turn to end is still to come, by container id; None: it has none."""
        self._stops: dict[str, float] = {}
        """When a container is killed (wall seconds), by its id."""
        self._ending_at: float | None = None

    def hooked(self) -> frozenset[str]:
        """Ids of containers whose postStart hook is under way."""
        return frozenset(self._starting)

    def checks(self) -> dict[str, Checks]:
        return dict.fromkeys(self._starting, NOT_YET)

    def forget(self, container_id: str) -> None:
        self._stops.pop(container_id, None)
        self._held.pop(container_id, None)

    def close(self) -> None:
        for task in self._starting.values():
            task.cancel()

    # --- start

    def started(self, action: Start, record: Record) -> None:
        if (action.container.get('lifecycle') or {}).get('postStart'):
            assert self.group is not None
            hook = self._post_start(action, record)
            self._starting[record.id] = start(self.group, f'postStart {record.name}', hook)

    async def _post_start(self, action: Start, record: Record) -> None:
        try:
            await self._hooks.run(action.container, record, 'postStart')
        except HookFailed as e:
            log.info('hook failed', container=record.name, err=str(e))
            with contextlib.suppress(ShimError):  # it has just ended by itself
                await self._worker.annotate(record, {'post_start_error': str(e)})
            self._emit('Warning', 'FailedPostStartHook', 'PostStartHook failed', record.name, action.kind)
        finally:
            del self._starting[record.id]
            self._worker.wake()

    def _emit(self, level: str, reason: str, message: str, name: str, kind: Kind) -> None:
        self._host.emit(self._worker.pod, level, reason, message, container=name, where=WHERE[kind])

    # --- end

    def _now(self) -> float:
        return self._host.env.clock.wall().timestamp()

    def _deadline(self, action: Stop) -> float:
        now = self._now()
        if not self._worker.ending:
            return now + action.grace_s
        if self._ending_at is None:
            self._ending_at = now
        return max(self._ending_at + action.grace_s, now + MINIMUM_GRACE_S)

    def stop(self, action: Stop) -> None:
        """Once per container; a repeated call counts only if it shortens the grace."""
        record, deadline = action.record, self._deadline(action)
        if action.held:
            self._hold(action, deadline)
            return
        before = self._stops.get(record.id)
        if before is not None and deadline >= before - 0.5:
            return
        self._stops[record.id] = deadline
        found: tuple[Obj, Kind] | None = (
            None  # a hook that has run, or is running, is not run again: the deadline moves
        )
        if before is None and record.id not in self._held:
            found = self._announced(action)
        assert self.group is not None
        start(self.group, f'stop {record.name}', self._stop_gracefully(action, found, deadline))

    def _announced(self, action: Stop) -> tuple[Obj, Kind] | None:
        """The container, after the event that it ends."""
        kinds = containers_of(self._worker.pod['spec'])
        found = next((ck for ck in kinds if ck[0]['name'] == action.record.name), None)
        self._emit('Normal', 'Killing', action.message, action.record.name, found[1] if found else 'main')
        return found

    def _hold(self, action: Stop, deadline: float) -> None:
        record = action.record
        if record.id in self._held or record.id in self._stops:
            return
        found, self._held[record.id] = self._announced(action), None
        if found is not None and (found[0].get('lifecycle') or {}).get('preStop'):
            assert self.group is not None
            hook = start(self.group, f'preStop {record.name}', self._pre_stop(found, record, deadline))
            self._held[record.id] = hook

    async def _stop_gracefully(self, action: Stop, found: tuple[Obj, Kind] | None, deadline: float) -> None:
        record, handle = action.record, self._worker.checkpoint.handle
        if handle is None:
            return
        try:
            if (hook := self._held.get(record.id)) is not None:
                await asyncio.wait({hook}, timeout=max(0.0, deadline - self._now()))
            elif found is not None and action.prestop and (found[0].get('lifecycle') or {}).get('preStop'):
                await self._pre_stop(found, record, deadline)
            # Upstream leaves the signal at least this long, even when the hook used up all the grace.
            left = max(self._stops.get(record.id, deadline) - self._now(), SIGNAL_GRACE_S)
            with self._host.metrics.operation('stop_container', self._host.env.clock):
                await self._worker.driver.stop(handle, record.id, grace_s=left)
        except ShimError as e:
            log.info('container was gone before it could be stopped', container=record.name, err=str(e))
            self._worker.wake()

    async def _pre_stop(self, found: tuple[Obj, Kind], record: Record, deadline: float) -> None:
        container, kind = found
        try:
            async with asyncio.timeout(max(0.0, deadline - self._now())):
                await self._hooks.run(container, record, 'preStop')
        except TimeoutError:
            log.info('preStop hook ran out of grace', container=record.name)
        except HookFailed as e:
            log.info('hook failed', container=record.name, err=str(e))
            self._emit('Warning', 'FailedPreStopHook', 'PreStopHook failed', record.name, kind)
