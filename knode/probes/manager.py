"""A pod's probes: one task per probe of each running container, and the verdict that the plan reads.

A verdict changes after `failureThreshold` failures or `successThreshold` successes in a row; liveness and readiness
wait for the startup probe. A probe that cannot be made (no such command, no such port) says nothing about the
container: it is told, and not counted. Once a container is condemned, or its pod ends, only readiness is still asked
for. A container that was ready when the agent went away stays so until its probe says otherwise.
Source: pkg/kubelet/prober/worker.go, prober.go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from kcore.tasks import start_detached
from knode.errors import ProbeError, ShimError
from knode.pods.execute import capture
from knode.pods.host import Host
from knode.pods.model import WHERE, Checks, Obj, View, containers_of
from knode.probes.checks import Outcome, http_get, port_number, tcp_connect
from knode.probes.grpc import grpc_health
from knode.runtime.driver import Record

if TYPE_CHECKING:
    from knode.pods.worker import PodWorker

log = structlog.get_logger('knode.probes')

KINDS = {'startupProbe': 'Startup', 'livenessProbe': 'Liveness', 'readinessProbe': 'Readiness'}


@dataclass(slots=True)
class _State:
    record: Record
    started: bool
    ready: bool
    failed: str = ''
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)


class Prober:
    def __init__(self, host: Host, worker: PodWorker, changed: Callable[[], None]) -> None:
        self._host, self._worker, self._changed = host, worker, changed
        self._states: dict[str, _State] = {}

    def checks(self) -> dict[str, Checks]:
        return {i: Checks(s.started, s.ready, s.failed) for i, s in self._states.items()}

    def adjust(self, view: View) -> None:
        """Probe what runs, and only that."""
        running: dict[str, tuple[Obj, Record]] = {}
        for c, kind in containers_of(view.spec):
            r = view.latest(c['name'])
            if kind in {'main', 'sidecar'} and r is not None and r.running and any(k in c for k in KINDS):
                running[r.id] = (c, r)
        for container_id in self._states.keys() - running.keys():
            self._cancel(self._states.pop(container_id))
        ending = view.grace_s is not None or view.verdict is not None
        for container_id, (c, r) in running.items():
            if container_id not in self._states:
                self._begin(c, r)
            elif ending:  # upstream keeps readiness going; a killed container must not be restarted
                self._states[container_id].failed = ''

    def _begin(self, c: Obj, r: Record) -> None:
        ready = 'readinessProbe' not in c or self._was(r, 'ready')
        state = _State(r, 'startupProbe' not in c or self._was(r, 'started'), ready)
        self._states[r.id] = state
        if state.started:
            state.begun.set()
        if not state.started or not state.ready:
            self._changed()
        for key in KINDS:
            if key in c and not (key == 'startupProbe' and state.started):
                state.tasks.append(start_detached(f'{key} {r.name}', self._probe(key, c, r, state)))

    def _was(self, r: Record, what: str) -> bool:
        """What was last known of this very container."""
        if what in r.meta:
            return bool(r.meta[what])
        statuses: Any = (self._worker.pod.get('status') or {}).get('containerStatuses') or ()
        return any(s.get('containerID', '').endswith(r.id) and s.get(what) for s in statuses)

    async def _probe(self, key: str, c: Obj, r: Record, state: _State) -> None:
        probe = c[key]
        age = self._host.env.clock.wall().timestamp() - r.started_ns / 1e9
        await asyncio.sleep(max(0.0, float(probe.get('initialDelaySeconds') or 0) - age))
        if key != 'startupProbe':
            await state.begun.wait()
        good = bad = 0
        while not self._is_over(key, state):
            begun = self._host.env.clock.monotonic()
            try:
                ok, text = await self._once(probe, c, r)
            except ProbeError as e:  # it says nothing about the container: the counts stay
                self._tell(c, f'{KINDS[key]} probe errored and resulted in unknown state: {e}')
                await asyncio.sleep(float(probe.get('periodSeconds') or 10))
                continue
            took = self._host.env.clock.monotonic() - begun
            self._host.probe_metrics.observe(KINDS[key], self._identity(r), took, passed=ok)
            good, bad = (good + 1, 0) if ok else (0, bad + 1)
            if not ok:
                self._tell(c, f'{KINDS[key]} probe failed: {text}')
            elif text:
                self._tell(c, f'{KINDS[key]} probe warning: {text}', reason='ProbeWarning')
            if good >= int(probe.get('successThreshold') or 1):
                await self._verdict(key, r, state, passed=True)
            elif bad >= int(probe.get('failureThreshold') or 3):
                await self._verdict(key, r, state, passed=False)
            if self._is_over(key, state):
                return
            await asyncio.sleep(float(probe.get('periodSeconds') or 10))

    def _is_over(self, key: str, state: _State) -> bool:
        """Nothing more to find out: a pod that ends, or a condemned container, is asked for its readiness alone."""
        if key == 'readinessProbe':
            return False
        return self._worker.ending or bool(state.failed) or (key == 'startupProbe' and state.started)

    def _tell(self, c: Obj, message: str, *, reason: str = 'Unhealthy') -> None:
        where = next(
            (WHERE[kind] for known, kind in containers_of(self._worker.pod['spec']) if known is c), 'containers'
        )
        self._host.emit(self._worker.pod, 'Warning', reason, message, container=c['name'], where=where)

    def _identity(self, r: Record) -> tuple[str, str, str, str]:
        meta = self._worker.pod['metadata']
        return r.name, meta['name'], meta['namespace'], self._worker.uid

    async def _verdict(self, key: str, r: Record, state: _State, *, passed: bool) -> None:
        before = (state.started, state.ready, state.failed)
        if key == 'readinessProbe':
            state.ready = passed
        elif not passed:
            kind = 'liveness' if key == 'livenessProbe' else 'startup'
            once = self._worker.pod['spec'].get('restartPolicy') == 'Never' and r.meta.get('kind') != 'sidecar'
            state.failed = f'Container {r.name} failed {kind} probe{"" if once else ", will be restarted"}'
        elif key == 'startupProbe':
            state.started = True
            state.begun.set()
        if before != (state.started, state.ready, state.failed):
            self._changed()
            await self._remember(r, state)

    async def _remember(self, r: Record, state: _State) -> None:
        """In the container's record, where the next agent finds it: a restart must not unready what is ready."""
        handle = self._worker.checkpoint.handle
        try:
            if handle is not None:
                await self._worker.driver.annotate(handle, r.id, {'ready': state.ready, 'started': state.started})
        except ShimError as e:
            log.info('probe verdict not kept', container=r.name, err=str(e))

    async def _once(self, probe: Obj, c: Obj, r: Record) -> Outcome:
        """Raises ProbeError when the container could not be asked."""
        timeout_s = float(probe.get('timeoutSeconds') or 1)
        address = self._worker.checkpoint.address
        try:
            if 'exec' in probe:
                return await self._exec(probe['exec'].get('command') or [], r, timeout_s)
            if 'httpGet' in probe:
                get = probe['httpGet']
                return await http_get(get, get.get('host') or address, port_number(c, get['port']), timeout_s)
            if 'tcpSocket' in probe:
                tcp = probe['tcpSocket']
                return await tcp_connect(tcp.get('host') or address, port_number(c, tcp['port']), timeout_s)
            if 'grpc' in probe:
                return await grpc_health(
                    address, int(probe['grpc']['port']), probe['grpc'].get('service') or '', timeout_s
                )
        except ValueError as e:
            raise ProbeError(str(e)) from e
        except ProbeError:
            raise
        except Exception as e:
            log.exception('probe crashed', container=c['name'])
            raise ProbeError(f'{type(e).__name__}: {e}') from e
        raise ProbeError(f'missing probe handler for {c["name"]}')

    async def _exec(self, argv: list[str], r: Record, timeout_s: float) -> Outcome:
        handle = self._worker.checkpoint.handle
        if handle is None:
            raise ProbeError('container not running')
        try:
            async with asyncio.timeout(timeout_s):
                code, output = await capture(self._worker.driver, handle, r, argv)
        except TimeoutError:
            return False, f'command timed out: "{" ".join(argv)}" timed out after {timeout_s:g}s'
        except ShimError as e:
            raise ProbeError(f'failed to exec in container: {e}') from e
        return (True, '') if code == 0 else (False, output.strip())

    def _cancel(self, state: _State) -> None:
        for task in state.tasks:
            task.cancel()
        self._host.probe_metrics.forget(self._identity(state.record))

    def close(self) -> None:
        for state in self._states.values():
            self._cancel(state)
        self._states.clear()
