"""The `process` driver: containers are host processes under a pause shim per pod.

A shim that dies takes its containers with it (PDEATHSIG); what they had put elsewhere is found by the mark in its
environment and killed before the pod gets a new sandbox, and at the agent's start for pods that nobody knows.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import orjson
import structlog

from kcore.env import Env
from knode.errors import ShimError, ShimGone
from knode.runtime import usage
from knode.runtime.cgroups import Cgroups
from knode.runtime.driver import (
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
from knode.runtime.shim import host
from knode.runtime.shim.container import MARK
from knode.runtime.shim.core import SOCKET_FILE
from knode.runtime.shim.state import STATE_FILE, State, latest
from knode.runtime.shim_client import FdChannel, ShimConnection
from knode.runtime.zygote import Zygote

log = structlog.get_logger('knode.process')

REMOVE_TIMEOUT_S = 10.0
"""How long a shim may take to kill everything before it is killed itself."""
NS_PER_S = 1_000_000_000


class _Pod:
    """What is known of one sandbox."""

    def __init__(self, handle: Handle, changed: Callable[[], None], cgroups: Cgroups | None) -> None:
        self.handle, self.changed, self.cgroups = handle, changed, cgroups
        self.records: dict[str, Record] = {}
        self.connection: ShimConnection | None = None
        self.lost = asyncio.Event()

    def on_event(self, event: Mapping[str, Any]) -> None:
        if event['event'] == 'container':
            self.take(event['record'])
            self.changed()

    def on_lost(self) -> None:
        self.connection = None
        self.lost.set()
        self.changed()

    def take(self, data: Mapping[str, Any]) -> Record:
        record = Record(**data)
        if record.signal == signal.SIGKILL and self.cgroups and self.cgroups.oom_killed(self.handle.uid, record.id):
            record = replace(record, reason='OOMKilled')
        known = self.records.get(record.id)
        if known is not None and known.finished_ns and not record.finished_ns:
            return known  # the answer to `start` is read after the news of the end: an end is final
        self.records[record.id] = record
        for old in [r for r in self.records.values() if r.name == record.name and r.attempt < record.attempt - 1]:
            del self.records[old.id]
            if self.cgroups:
                self.cgroups.remove(self.handle.uid, old.id)
        return record

    def shim(self) -> ShimConnection:
        if self.connection is None:
            raise ShimGone('the pod sandbox is gone')
        return self.connection


class ProcessDriver:
    name = 'process'

    def __init__(self, env: Env, cgroups: Cgroups | None = None) -> None:
        self.capabilities = Capabilities(
            change_user=os.geteuid() == 0, limits_memory=cgroups is not None and cgroups.limits_memory
        )
        self._env, self._cgroups = env, cgroups
        self._zygote = Zygote(env)
        self._pods: dict[str, _Pod] = {}

    async def prepare(self) -> None:
        if self._cgroups:
            self._cgroups.sweep()
        can = await self._zygote.probe()
        self.capabilities = replace(self.capabilities, isolates_fs=bool(can.get('mounts')))
        log.info('process driver ready', **asdict(self.capabilities))

    async def close(self) -> None:
        for pod in self._pods.values():
            pod.changed = lambda: None
            if pod.connection is not None:
                pod.connection.close()
        await self._zygote.close()

    async def open(self, sandbox: Sandbox, changed: Callable[[], None]) -> Handle:
        self._restore(sandbox)
        await self._bury(sandbox.directory)
        connection, state = await self._zygote.fork(sandbox.directory, sandbox.memory)
        handle = Handle(self.name, sandbox.uid, sandbox.directory, state['pid'], state['start_ticks'])
        self._hold(handle, changed, connection, state)
        return handle

    def _restore(self, sandbox: Sandbox) -> None:
        """Write down what is known of earlier attempts, should somebody have removed the pod's directory."""
        pod, path = self._pods.get(sandbox.uid), Path(sandbox.directory) / STATE_FILE
        if pod is not None and not self._env.disk.exists(path):
            last = {'version': 1, 'pid': pod.handle.pid, 'start_ticks': pod.handle.start_ticks}
            state = last | {'containers': [asdict(r) for r in pod.records.values()]}
            self._env.disk.replace(path, orjson.dumps(state), sync=False)

    async def recover(self, handle: Handle, changed: Callable[[], None]) -> bool:
        if host.start_ticks(handle.pid) == handle.start_ticks:
            try:
                connection = await ShimConnection.open(handle.directory, SOCKET_FILE)
                state = await connection.call('status')
                if state['pid'] == handle.pid:
                    self._hold(handle, changed, connection, state)
                    return True
                connection.close()
                raise ShimGone('another shim has the socket')
            except ShimError as e:
                log.warning('shim did not answer', uid=handle.uid, err=str(e))
        await self._bury(handle.directory)
        pod = _Pod(handle, changed, self._cgroups)
        for data in self._saved(handle.directory):
            if not data['finished_ns']:
                now = int(self._env.clock.wall().timestamp() * NS_PER_S)
                data |= {'finished_ns': now, 'exit_code': 137, 'signal': 9, 'reason': 'Error'}
            pod.take(data)
        self._pods[handle.uid] = pod
        return False

    def _hold(self, handle: Handle, changed: Callable[[], None], connection: ShimConnection, state: State) -> None:
        pod = _Pod(handle, changed, self._cgroups)
        pod.connection = connection
        for record in state['containers']:
            pod.take(record)
        self._pods[handle.uid] = pod
        connection.attend(pod.on_event, pod.on_lost)

    def _saved(self, directory: str) -> list[dict[str, Any]]:
        try:
            return list(latest(self._env.disk.read(Path(directory) / STATE_FILE))['containers'])
        except (FileNotFoundError, ValueError, KeyError):
            return []

    async def _bury(self, directory: str) -> None:
        """Kill what a dead or mute shim of this directory left behind, if there ever was one."""
        path = Path(directory) / STATE_FILE
        if not self._env.disk.exists(path):
            return
        try:
            state = latest(self._env.disk.read(path))
        except ValueError:
            return
        kill_shim(state)
        ids = [c['id'] for c in state['containers']]
        await self._env.disk.offload(kill_marked, ids)

    def alive(self, handle: Handle) -> bool:
        pod = self._pods.get(handle.uid)
        return pod is not None and pod.connection is not None and pod.handle == handle

    def observe(self, handle: Handle) -> tuple[Record, ...]:
        pod = self._pods.get(handle.uid)
        return tuple(sorted([*pod.records.values()], key=lambda r: r.attempt)) if pod else ()

    def _pod(self, handle: Handle) -> _Pod:
        pod = self._pods.get(handle.uid)
        if pod is None:
            raise ShimGone('the pod sandbox is gone')
        return pod

    async def start(self, handle: Handle, spec: ContainerSpec) -> Record:
        pod = self._pod(handle)
        wanted = spec.to_json()
        if self._cgroups:
            entries = self._cgroups.make(handle.uid, spec.id, spec.limits)
            wanted |= {'cgroups': entries, 'meta': {**spec.meta, 'cgroups': entries}}
        return pod.take(await pod.shim().call('start', spec=wanted))

    async def stop(self, handle: Handle, container_id: str, *, grace_s: float) -> None:
        await self._pod(handle).shim().call('stop', container=container_id, grace_s=grace_s)

    async def kill(self, handle: Handle, container_id: str, reason: str) -> None:
        await self.annotate(handle, container_id, {'reason': reason})
        await self._pod(handle).shim().call('signal', container=container_id, signal=int(signal.SIGKILL))

    async def resize(self, handle: Handle, container_id: str, limits: Limits) -> None:
        if self._cgroups:
            self._cgroups.make(handle.uid, container_id, limits)

    async def annotate(self, handle: Handle, container_id: str, meta: Mapping[str, Any]) -> None:
        pod = self._pod(handle)
        pod.take(await pod.shim().call('annotate', container=container_id, meta=dict(meta)))

    async def exec(self, handle: Handle, container_id: str, spec: Mapping[str, Any], io: Streams) -> int:
        channel = FdChannel(handle.directory, SOCKET_FILE)
        env = {**spec['env'], MARK: container_id}
        request = {'op': 'exec', 'container': container_id, 'spec': {**spec, 'env': env}, 'tty': io.tty}
        try:
            await channel.call(request, (io.stdin, io.stdout, io.stderr))
            while True:
                event = await channel.next()
                if event.get('event') == 'exec-exit':
                    return int(event['exit_code'])
        finally:
            channel.close()

    async def attach(self, handle: Handle, container_id: str, stdout: int, stderr: int) -> Attachment:
        channel = FdChannel(handle.directory, SOCKET_FILE)
        try:
            answer = await channel.call({'op': 'attach', 'container': container_id}, (stdout, stderr))
            fds = channel.received_fds
            return Attachment(fds[0] if answer['stdin'] and fds else -1, bool(answer['tty']))
        finally:
            channel.close()

    async def close_stdin(self, handle: Handle, container_id: str) -> None:
        await self._pod(handle).shim().call('close_stdin', container=container_id)

    async def remove(self, handle: Handle) -> None:
        pod = self._pods.get(handle.uid)
        if pod is not None and pod.connection is not None:
            try:
                await pod.connection.call('close', grace_s=0)
                async with asyncio.timeout(REMOVE_TIMEOUT_S):
                    await pod.lost.wait()
            except (ShimError, TimeoutError) as e:
                log.warning('shim did not end', uid=handle.uid, err=f'{type(e).__name__}: {e}')
        await self._bury(handle.directory)

    def forget(self, handle: Handle) -> None:
        """The pod is gone for good."""
        pod = self._pods.pop(handle.uid, None)
        if pod is not None and pod.connection is not None:
            pod.connection.close()
        if self._cgroups:
            self._cgroups.remove(handle.uid)

    def memory_bytes(self, handle: Handle, container_id: str) -> int:
        running = {r.id: r.pid for r in self.observe(handle) if r.running and r.id == container_id}
        return usage.shared_once(handle.pid, running)

    def stats(self, handle: Handle) -> Mapping[str, Stats]:
        running = {r.id: r.pid for r in self.observe(handle) if r.running and host.start_ticks(r.pid) == r.start_ticks}
        counted = {i: s for i in running if self._cgroups and (s := self._cgroups.stats(handle.uid, i)) is not None}
        others = {i: pid for i, pid in running.items() if i not in counted}
        return counted | (usage.by_container(handle.pid, others) if others else {})


def kill_shim(state: Mapping[str, Any]) -> int:
    """Kill the shim that wrote `state`, unless its pid has become another process's. Returns how many were killed."""
    if not state['start_ticks'] or host.start_ticks(state['pid']) != state['start_ticks']:
        return 0
    try:
        os.kill(state['pid'], signal.SIGKILL)
    except ProcessLookupError:  # it ended by itself just now, and its zygote left no zombie
        return 0
    return 1


def kill_marked(ids: Iterable[str]) -> int:
    """SIGKILL every process whose environment carries the mark of one of these containers. Returns how many.

    Repeats until a pass finds none, since a killed parent's children may have been forked during the pass.
    """
    marks = [f'{MARK}={i}\0'.encode() for i in ids]
    total = 0
    while marks:
        victims = [p for p in _pids() if any(m in host.environ(p) for m in marks) and host.start_ticks(p)]
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if not victims:
            break
        total += len(victims)
    return total


def _pids() -> list[int]:
    return [int(name) for name in os.listdir('/proc') if name.isdigit()]
