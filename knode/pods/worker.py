"""One pod's worker: look, decide, act, tell, wait.

Level-triggered: every wake-up (API change, shim event, probe verdict, due time) leads to the same loop body. What a
worker must remember over an agent restart is in the records (`knode.runtime`) or the checkpoint; what it may forget
(image back-off, the last status sent) is in here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import structlog

from kclient.errors import ClientError
from kcore.backoff import Backoff
from kcore.meta.objects import deleting, is_pod_finished
from kcore.meta.times import format_time, parse_time
from kcore.tasks import start
from knode.errors import (
    ContainerConfigError,
    NoAddress,
    NodeError,
    ShimError,
    VolumeError,
)
from knode.pods.checkpoint import Checkpoint, renewed
from knode.pods.environment import references
from knode.pods.host import Host
from knode.pods.launch import Paths, container_spec
from knode.pods.lifecycle import Lifecycle
from knode.pods.model import (
    MINIMUM_GRACE_S,
    WHERE,
    Action,
    CloseSandbox,
    Decision,
    Obj,
    OpenSandbox,
    Pending,
    Resize,
    Start,
    Stop,
    Verdict,
    View,
    Wait,
)
from knode.pods.plan import decide
from knode.pods.pulls import Pulls
from knode.pods.resize import held, is_resized
from knode.pods.resources import limits_of
from knode.pods.security import announcements, merged
from knode.pods.status import TERMINAL
from knode.pods.telling import Teller
from knode.probes.manager import Prober
from knode.runtime.driver import Record, Sandbox
from knode.static.manifest import is_static
from knode.volumes.manager import NAME_SERVER, Volumes

log = structlog.get_logger('knode.worker')

RETRY_S = 5.0
"""Pause before a container with a broken configuration is tried again."""


class PodWorker:
    def __init__(self, host: Host, checkpoint: Checkpoint) -> None:
        self._host, self._env = host, host.env
        self.checkpoint = checkpoint
        self.uid = checkpoint.uid
        self.wanted = checkpoint.pod
        """As the API has it: what it asks for may be more than the node has granted."""
        self.pending: Pending | None = None
        """Why not."""
        self._resize_error = ''
        self.removed = self.gone = False
        """The API does not know the pod any more."""
        self.retired = is_static(checkpoint.pod) and deleting(checkpoint.pod)
        """A static pod whose manifest is gone."""
        self.paths = Paths(host.checkpoints.directory(self.uid))
        handle = checkpoint.handle
        self.driver = (host.drivers.get(handle.driver) if handle else None) or host.default_driver
        """Until there is a sandbox nobody knows which: the RuntimeClass is read when it opens."""
        self._wake = asyncio.Event()
        self._waits: dict[str, Wait] = {}
        self._pulls = Pulls(host, self._pulled)
        self._unsaved = False
        self._backoff = Backoff(0.2, 10.0, self._env.rng)
        self.volumes = Volumes(host, self.paths, lambda: self.checkpoint.address, lambda: self.driver.capabilities)
        self.lifecycle = Lifecycle(host, self)
        self.teller = Teller(host, self)
        self._seen_at = self._env.clock.monotonic()
        self.prober = Prober(host, self, self.wake)
        self.listeners: set[asyncio.Event] = set()
        """Set after each turn: for those who wait for one of the containers."""

    # --- inputs

    def wake(self) -> None:
        self._wake.set()

    def update(self, pod: Obj) -> None:
        if any(pod['metadata'].get(k) != self.pod['metadata'].get(k) for k in ('labels', 'annotations')):
            self.volumes.stale.set()
        self.wanted = pod
        self.teller.heard(pod, self._pulls.seconds)
        self._take(held(pod, self.pod))
        if is_pod_finished(pod) and not self.ended and not is_static(pod):
            said = pod['status']
            self.end(Verdict(said.get('reason') or '', said.get('message') or ''))
        if not self.resizing:
            self.pending = None

    def _take(self, pod: Obj) -> None:
        # Before there is a sandbox nothing is kept: a shim in a directory without a checkpoint is a stranger's.
        self._unsaved |= self.checkpoint.handle is not None and pod['spec'] != self.pod['spec']
        self.checkpoint = renewed(self.checkpoint, pod=pod)
        self.wake()

    @property
    def resizing(self) -> bool:
        """It wants other resources than it was granted, and is to go on."""
        return is_resized(self.wanted, self.pod) and self.holds_resources and not self.ending

    def grant(self) -> None:
        """It is to have the resources that it wants."""
        self.pending = None
        self._resize_error = ''
        self._take(self.wanted)

    def put_off(self, pending: Pending) -> None:
        """It is to go on with what it has."""
        if pending != self.pending:
            self.pending = pending
            log.info('resize not granted', object=self.key, reason=pending.reason, why=pending.message)
            self.wake()

    def remove(self) -> None:
        """The pod is gone from the API: forced deletion, or deleted while the agent was away."""
        self.removed = True
        self.wake()

    def retire(self) -> None:
        """The static pod's manifest is gone: it ends as a deleted pod does, with its own grace."""
        if not self.retired:
            self.retired = self._unsaved = True
            grace = int(self.pod['spec'].get('terminationGracePeriodSeconds', 30))
            stamp = format_time(self._env.clock.wall())
            meta = {**self.pod['metadata'], 'deletionTimestamp': stamp, 'deletionGracePeriodSeconds': grace}
            self.update({**self.pod, 'metadata': meta})

    def end(self, verdict: Verdict) -> None:
        """Eviction, deadline, refused admission: the pod fails, and no later agent takes it up again."""
        if self.checkpoint.verdict is None:
            self.checkpoint = renewed(self.checkpoint, verdict=verdict)
            self._unsaved = True
            self.wake()

    async def kill(self, record: Record, reason: str) -> None:
        """End one container at once. Raises ShimError."""
        if self.checkpoint.handle is not None:
            await self.driver.kill(self.checkpoint.handle, record.id, reason)

    def announce(self, kind: str, reason: str, message: str) -> None:
        """An event about the pod."""
        self._host.emit(self.pod, kind, reason, message)

    def refuse(self, verdict: Verdict) -> None:
        """`end` for a pod that was never taken: nothing of it is kept here, the API alone remembers."""
        self.checkpoint = renewed(self.checkpoint, verdict=replace(verdict, refused=True))
        self.wake()

    async def until(self, condition: Callable[[PodWorker], bool]) -> None:
        """Wait until `condition` holds after a turn; a worker that is gone ends every wait."""
        turned = asyncio.Event()
        self.listeners.add(turned)
        try:
            while not condition(self) and not self.gone:
                await turned.wait()
                turned.clear()
        finally:
            self.listeners.discard(turned)

    @property
    def holds_resources(self) -> bool:
        return not self.ended and (self.checkpoint.verdict is None or bool(self.sandbox()))

    @property
    def ending(self) -> bool:
        """Its containers have to end, for whatever reason."""
        return self._grace() is not None or self.checkpoint.verdict is not None

    @property
    def ended(self) -> bool:
        """The API is being told that the pod has failed or succeeded."""
        return (self.teller.told or {}).get('phase') in TERMINAL

    @property
    def status(self) -> Mapping[str, Any]:
        """What the API was told last, or has, when it was told nothing yet."""
        return self.teller.told or self.pod.get('status') or {}

    @property
    def pod(self) -> Obj:
        return self.checkpoint.pod

    @property
    def key(self) -> str:
        meta = self.pod['metadata']
        return f'{meta["namespace"]}/{meta["name"]}'

    # --- the loop

    async def run(self) -> None:
        """Until the pod is gone from this node; its processes, address and directory are then released."""
        with structlog.contextvars.bound_contextvars(object=self.key, uid=self.uid):
            async with asyncio.TaskGroup() as group:
                self.lifecycle.group = group
                self._host.metrics.worker_began(self._env.clock.monotonic() - self._seen_at)
                await self._recover()
                refresher = start(group, 'refresh volumes', self.volumes.keep_fresh(lambda: self.pod))
                while not await self._turn():
                    pass
                self.prober.close()
                self.lifecycle.close()
                refresher.cancel()
            await self._leave()
            self.gone = True
            for listener in self.listeners:
                listener.set()

    async def _recover(self) -> None:
        if self.checkpoint.handle is None:
            return
        self._host.addresses.adopt(self.uid, self.checkpoint.address)
        alive = await self.driver.recover(self.checkpoint.handle, self.wake)
        log.info('pod taken up again', alive=alive)
        if alive:
            self.volumes.resume()
        # Told before anything is started again: the API's last word may be from before a power cut.
        self.prober.adjust(self.view())
        self.teller.tell(self.view(), done=False)

    async def _turn(self) -> bool:
        """One look at the pod. True when the worker has nothing left to do, ever."""
        self._wake.clear()
        began = self._env.clock.monotonic()
        kind = 'kill' if self.ending else 'sync' if self.checkpoint.handle else 'create'
        try:
            self._judge_deadline()
            if self._unsaved:
                await self._host.checkpoints.save(self.checkpoint)
                self._unsaved = False
            await self._look_after_sandbox()
            decision = await self._act(decide(self.view()))
            self._backoff.reset()
        except (NodeError, ClientError, OSError) as e:
            log.warning('pod sync failed', err=f'{type(e).__name__}: {e}')
            decision = Decision(wake_at=self._now() + self._backoff.next())
        except Exception:  # a bug must not cost the node its other pods
            log.exception('pod sync crashed')
            decision = Decision(wake_at=self._now() + self._backoff.next())
        self._host.metrics.synced(kind, self._env.clock.monotonic() - began)
        view = self.view()
        self.teller.tell(view, done=decision.done)
        self.prober.adjust(view)
        for listener in self.listeners:
            listener.set()
        if decision.done:
            return await self._dismissed()
        await self._pause(decision.wake_at)
        return False

    async def _act(self, decision: Decision) -> Decision:
        """Returns the decision that was carried out last: a new sandbox is followed by its first containers at once."""
        starting = any(isinstance(a, OpenSandbox | Start) for a in decision.actions)
        async with self._host.turns.turn() if starting else contextlib.nullcontext():
            await self._perform_all(decision.actions)
            if OpenSandbox() in decision.actions:
                decision = decide(self.view())
                await self._perform_all(decision.actions)
        return decision

    async def _look_after_sandbox(self) -> None:
        """A sandbox that fell silent is asked again; if it is dead, so are its containers, and the records say so."""
        handle = self.checkpoint.handle
        if handle is None or self.driver.alive(handle):
            return
        if any(r.running for r in self.driver.observe(handle)):
            alive = await self.driver.recover(handle, self.wake)
            log.warning('pod sandbox fell silent', alive=alive)

    async def _pause(self, wake_at: float | None) -> None:
        due = [t for t in (wake_at, self._deadline()) if t is not None]
        try:
            async with asyncio.timeout(max(0.0, min(due) - self._now()) + 0.001 if due else None):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _dismissed(self) -> bool:
        """Wait for the API to forget a pod that has ended here."""
        while not self.removed and not self.retired:
            await self._wake.wait()
            self._wake.clear()
        return True

    async def _leave(self) -> None:
        if self.checkpoint.handle is not None:
            self.driver.forget(self.checkpoint.handle)
        await self.volumes.remove()
        await self._host.checkpoints.remove(self.uid)
        self._host.addresses.release(self.uid)
        log.info('pod removed')

    # --- looking

    def _now(self) -> float:
        return self._env.clock.wall().timestamp()

    def records(self) -> dict[str, list[Record]]:
        found: dict[str, list[Record]] = {}
        if self.checkpoint.handle is not None:
            for record in self.driver.observe(self.checkpoint.handle):
                found.setdefault(record.name, []).append(record)
        return found

    def sandbox(self) -> str:
        handle = self.checkpoint.handle
        return f'{handle.pid}-{handle.start_ticks}' if handle is not None and self.driver.alive(handle) else ''

    def view(self) -> View:
        records, unstarted = self.records(), set(self.lifecycle.hooked())
        for name, attempts in records.items():
            if attempts[-1].running and 'post_start_error' in attempts[-1].meta:
                unstarted.add(attempts[-1].id)
            if attempts[-1].running or attempts[-1].finished_ns:
                wait = self._waits.get(name)
                if wait is not None and attempts[-1].running:
                    del self._waits[name]
        return View(
            self.pod, records, self._now(), self.sandbox(), self._grace(), self.checkpoint.verdict,
            dict(self._waits), self.prober.checks() | self.lifecycle.checks(), frozenset(unstarted),
            self.pending, self._resize_error,
        )  # fmt: skip

    def _grace(self) -> float | None:
        meta = self.pod['metadata']
        if self.removed and not meta.get('deletionTimestamp'):
            return MINIMUM_GRACE_S if self.checkpoint.verdict is None else 0.0
        if meta.get('deletionTimestamp'):
            grace = meta.get('deletionGracePeriodSeconds')
            seconds = float(self.pod['spec'].get('terminationGracePeriodSeconds', 30) if grace is None else grace)
            return MINIMUM_GRACE_S if self.removed else max(seconds, MINIMUM_GRACE_S)
        return None

    def _deadline(self) -> float | None:
        limit = self.pod['spec'].get('activeDeadlineSeconds')
        began = self.checkpoint.start_time
        if limit is None or not began or self.checkpoint.verdict is not None:
            return None
        return parse_time(began).timestamp() + float(limit)

    def _judge_deadline(self) -> None:
        deadline = self._deadline()
        if deadline is None or self._now() < deadline or self.ended:
            return
        message = 'Pod was active on the node longer than the specified deadline'
        self._host.emit(self.pod, 'Normal', 'DeadlineExceeded', message)
        self.end(Verdict('DeadlineExceeded', message))

    # --- acting

    def _pulled(self, container: str) -> None:
        self._waits.pop(container, None)
        self.wake()

    async def _perform_all(self, actions: Iterable[Action]) -> None:
        for action in actions:
            await self._perform(action)

    async def _perform(self, action: Action) -> None:
        match action:
            case OpenSandbox():
                await self._open_sandbox()
            case CloseSandbox():
                self.volumes.release()
                if self.checkpoint.handle is not None:
                    with self._host.metrics.operation('remove_podsandbox', self._env.clock):
                        await self.driver.remove(self.checkpoint.handle)
                self.wake()
            case Start():
                await self._start(action)
                self.wake()
            case Stop():
                if action.replaces and not action.record.meta.get('replaced'):
                    await self.annotate(action.record, {'replaced': True})
                self.lifecycle.stop(action)
            case Resize():
                await self._resize(action)

    async def _resize(self, action: Resize) -> None:
        handle, c = self.checkpoint.handle, action.container
        if handle is not None:
            try:
                await self.driver.resize(handle, action.record.id, limits_of(self.pod, c, self._host.pod_pids))
            except (ShimError, OSError) as e:
                self._resize_error = str(e)
                raise
            self._resize_error = ''
            await self.annotate(action.record, {'resources': c.get('resources') or {}})

    async def annotate(self, record: Record, meta: Mapping[str, Any]) -> None:
        """Keep facts where the next agent finds them. Raises ShimError."""
        if self.checkpoint.handle is not None:
            await self.driver.annotate(self.checkpoint.handle, record.id, meta)

    async def _open_sandbox(self) -> None:
        meta = self.pod['metadata']
        if self.checkpoint.handle is not None:
            text = 'Pod sandbox changed, it will be killed and re-created.'
            self._host.emit(self.pod, 'Normal', 'SandboxChanged', text)
        try:
            address = self.host_address()
            start_time = self.checkpoint.start_time or format_time(self._env.clock.wall())
            self.checkpoint = renewed(self.checkpoint, address=address, start_time=start_time)
            # No checkpoint yet: a directory without one is a stranger's, whose shim the next agent kills.
            self.paths.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            await self.volumes.set_up(self.pod)
            self.driver = await self._host.driver_for(self.pod)
            await self._pulls.look_for_secrets(self.pod)
            sandbox = Sandbox(
                self.uid, meta['namespace'], meta['name'], str(self.paths.root), meta.get('annotations') or {},
                self.volumes.memory(self.pod),
            )  # fmt: skip
            handler = self.driver.name if self.pod['spec'].get('runtimeClassName') else ''
            with self._host.metrics.sandbox(handler, self._env.clock):
                handle = await self.driver.open(sandbox, self.wake)
        except (ShimError, NoAddress) as e:
            self._host.metrics.pod_started(failed=True)
            self._host.emit(self.pod, 'Warning', 'FailedCreatePodSandBox', f'Failed to create pod sandbox: {e}')
            raise
        except VolumeError as e:
            self._host.emit(self.pod, 'Warning', 'FailedMount', str(e))
            raise
        self._host.metrics.pod_started()
        self.checkpoint = renewed(self.checkpoint, handle=handle)
        await self._host.checkpoints.save(self.checkpoint)
        self.wake()

    def host_address(self) -> str:
        if self.pod['spec'].get('hostNetwork'):
            return self._host.host_ip
        return self._host.addresses.take(self.uid)

    async def _start(self, action: Start) -> None:
        c, name = action.container, action.container['name']
        where = WHERE[action.kind]
        image = self._pulls.image(self.pod, action, self._now())
        if isinstance(image, Wait):
            self._waits[name] = image
            return
        if self.checkpoint.handle is None:
            return
        try:
            sources = await self._host.sources(self.pod, *references(c))
            place = (self.paths, self.checkpoint.address, self.sandbox())
            can = self.driver.capabilities
            spec = container_spec(self._host, self.pod, action, image, sources=sources, place=place, can=can)
            spec = self.volumes.mount(self.pod, c, spec)
            self.paths.work(name).mkdir(mode=0o755, parents=True, exist_ok=True)
        except ClientError as e:
            self._waits[name] = Wait(
                'CreateContainerConfigError', f'cannot read configuration: {e}', self._now() + RETRY_S
            )
            return
        except (ContainerConfigError, NodeError) as e:
            reason = 'CreateContainerConfigError' if isinstance(e, ContainerConfigError) else 'CreateContainerError'
            self._host.metrics.container_started(action.kind, reason)
            self._waits[name] = Wait(reason, str(e), self._now() + RETRY_S)
            self._host.emit(self.pod, 'Warning', 'Failed', f'Error: {e}', container=name, where=where)
            return
        self._waits.pop(name, None)
        if c.get('volumeMounts') and not spec.mounts:
            text = 'this node cannot give containers mount paths: see KUBELING_MOUNT_<VOLUME> in the environment'
            self._host.emit(self.pod, 'Warning', 'MountPathUnavailable', text, container=name, where=where)
        if NAME_SERVER in spec.env:
            text = f"this node cannot write the cluster's name server into resolv.conf: see {NAME_SERVER}"
            self._host.emit(self.pod, 'Warning', 'MissingClusterDNS', text, container=name, where=where)
        for text in announcements(merged(self.pod, c), can):
            self._host.emit(self.pod, 'Warning', 'SecurityNotEnforced', text, container=name, where=where)
        with self._host.metrics.operation('start_container', self._env.clock):
            record = await self.driver.start(self.checkpoint.handle, spec)
        self._host.metrics.container_started(action.kind, '' if record.started_ns else 'RunContainerError')
        self._host.emit(self.pod, 'Normal', 'Created', f'Created container: {name}', container=name, where=where)
        if record.started_ns:
            self._host.emit(self.pod, 'Normal', 'Started', f'Started container {name}', container=name, where=where)
            self.lifecycle.started(action, record)
        else:
            self._host.emit(self.pod, 'Warning', 'Failed', f'Error: {record.message}', container=name, where=where)
