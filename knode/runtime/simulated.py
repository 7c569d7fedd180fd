"""The `simulated` driver: containers without processes, scripted by the pod's own annotations.

`simulated.kubeling.dev/run-for: "5"` (seconds; absent: for ever), `…/exit-code: "7"`, `…/start-error: text`,
`…/start-delay: "0.2"`, `…/cpu: 250m` and `…/memory: 64Mi` (what it uses), each for all containers or for one as
`…/exit-code.<container>`. Thousands of such pods fit into one agent; under virtual time they need none. Nothing
survives the agent: `recover` finds nothing alive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from kcore.env import Env
from kcore.meta import quantity
from knode.errors import ShimError, ShimGone
from knode.runtime.driver import (
    NS,
    Attachment,
    Capabilities,
    ContainerSpec,
    Handle,
    Limits,
    Record,
    Sandbox,
    Stats,
    Streams,
)

PREFIX = 'simulated.kubeling.dev/'


class _Pod:
    def __init__(self, sandbox: Sandbox, handle: Handle, changed: Callable[[], None]) -> None:
        self.sandbox, self.handle, self.changed = sandbox, handle, changed
        self.records: dict[str, Record] = {}
        self.timers: dict[str, asyncio.TimerHandle] = {}
        self.alive = True

    def script(self, key: str, container: str) -> str:
        notes = self.sandbox.annotations
        return notes.get(f'{PREFIX}{key}.{container}', notes.get(f'{PREFIX}{key}', ''))


class SimulatedDriver:
    name: str = 'simulated'
    capabilities = Capabilities(exec=False, attach=False, change_user=True)

    def __init__(self, env: Env) -> None:
        self._env = env
        self._pods: dict[str, _Pod] = {}
        self._serial = 0

    async def prepare(self) -> None:
        return

    async def close(self) -> None:
        for pod in self._pods.values():
            self._end(pod)

    async def open(self, sandbox: Sandbox, changed: Callable[[], None]) -> Handle:
        self._serial += 1
        handle = Handle(self.name, sandbox.uid, sandbox.directory, self._serial, self._now())
        before = self._pods.get(sandbox.uid)
        pod = self._pods[sandbox.uid] = _Pod(sandbox, handle, changed)
        pod.records = dict(before.records) if before else {}
        return handle

    async def recover(self, handle: Handle, changed: Callable[[], None]) -> bool:
        pod = self._pods.get(handle.uid)
        if pod is not None and pod.handle == handle and pod.alive:
            pod.changed = changed
            return True
        return False

    def _now(self) -> int:
        return int(self._env.clock.wall().timestamp() * NS)

    def alive(self, handle: Handle) -> bool:
        pod = self._pods.get(handle.uid)
        return pod is not None and pod.handle == handle and pod.alive

    def observe(self, handle: Handle) -> tuple[Record, ...]:
        pod = self._pods.get(handle.uid)
        return tuple(sorted(pod.records.values(), key=lambda r: r.attempt)) if pod else ()

    def _pod(self, handle: Handle) -> _Pod:
        if not self.alive(handle):
            raise ShimGone('the pod sandbox is gone')
        return self._pods[handle.uid]

    async def start(self, handle: Handle, spec: ContainerSpec) -> Record:
        pod, now = self._pod(handle), self._now()
        record = Record(spec.id, spec.name, spec.attempt, created_ns=now, log=spec.log, meta=dict(spec.meta))
        if delay := pod.script('start-delay', spec.name):
            await asyncio.sleep(float(delay))
            now = self._now()
        if problem := pod.script('start-error', spec.name):
            record = replace(record, finished_ns=now, exit_code=128, reason='StartError', message=problem)
        else:
            record = replace(record, started_ns=now, pid=self._serial)
            if lasting := pod.script('run-for', spec.name):
                code = int(pod.script('exit-code', spec.name) or 0)
                self._finish_after(pod, spec.id, float(lasting), code)
        for old in [r for r in pod.records.values() if r.name == spec.name and r.attempt < spec.attempt - 1]:
            del pod.records[old.id]
        pod.records[spec.id] = record
        return record

    def _finish_after(self, pod: _Pod, container_id: str, seconds: float, code: int, number: int = 0) -> None:
        timer = pod.timers.pop(container_id, None)
        if timer is not None:
            timer.cancel()
        loop = asyncio.get_running_loop()
        pod.timers[container_id] = loop.call_later(seconds, self._finish, pod, container_id, code, number)

    def _finish(self, pod: _Pod, container_id: str, code: int, number: int) -> None:
        pod.timers.pop(container_id, None)
        record = pod.records.get(container_id)
        if record is None or not record.running:
            return
        reason = 'Completed' if code == 0 else 'Error'
        pod.records[container_id] = replace(
            record, finished_ns=self._now(), exit_code=code, signal=number, reason=reason
        )
        pod.changed()

    async def stop(self, handle: Handle, container_id: str, *, grace_s: float) -> None:
        pod = self._pod(handle)
        record = pod.records[container_id]
        pod.records[container_id] = replace(record, stopping=True)
        wanted = float(pod.script('stop-for', record.name) or 0)
        code, number = (143, 15) if wanted <= grace_s else (137, 9)
        self._finish_after(pod, container_id, min(wanted, grace_s), code, number)

    async def kill(self, handle: Handle, container_id: str, reason: str) -> None:
        pod = self._pod(handle)
        await self.annotate(handle, container_id, {'reason': reason})
        self._finish_after(pod, container_id, 0.0, 137, 9)

    async def resize(self, handle: Handle, container_id: str, limits: Limits) -> None:
        self._pod(handle)

    async def annotate(self, handle: Handle, container_id: str, meta: Mapping[str, Any]) -> None:
        pod = self._pod(handle)
        record = pod.records[container_id]
        pod.records[container_id] = replace(record, meta={**record.meta, **meta})

    async def exec(self, handle: Handle, container_id: str, spec: Mapping[str, Any], io: Streams) -> int:
        raise ShimError('simulated containers run no commands')

    async def attach(self, handle: Handle, container_id: str, stdout: int, stderr: int) -> Attachment:
        raise ShimError('simulated containers have no streams')

    async def close_stdin(self, handle: Handle, container_id: str) -> None:
        raise ShimError('simulated containers have no streams')

    def _end(self, pod: _Pod) -> None:
        pod.alive = False
        for timer in pod.timers.values():
            timer.cancel()
        pod.timers.clear()

    async def remove(self, handle: Handle) -> None:
        pod = self._pods.get(handle.uid)
        if pod is None:
            return
        self._end(pod)
        now = self._now()
        for i, r in pod.records.items():
            if r.running:
                pod.records[i] = replace(r, finished_ns=now, exit_code=137, signal=9, reason='Error')
        pod.changed()

    def forget(self, handle: Handle) -> None:
        pod = self._pods.pop(handle.uid, None)
        if pod is not None:
            self._end(pod)

    def memory_bytes(self, handle: Handle, container_id: str) -> int:
        found = self.stats(handle).get(container_id)
        return found.rss_bytes if found else 0

    def stats(self, handle: Handle) -> Mapping[str, Stats]:
        pod, now = self._pods.get(handle.uid), self._now()
        return {} if pod is None else {r.id: _usage(pod, r, now) for r in pod.records.values() if r.running}


def _usage(pod: _Pod, r: Record, now: int) -> Stats:
    cores = quantity.parse(pod.script('cpu', r.name) or 0)
    return Stats(int((now - r.started_ns) * cores), quantity.value(pod.script('memory', r.name) or 0), 1)
