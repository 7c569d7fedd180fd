"""A node's pods in virtual time: the real manager and workers over the simulated driver; what surrounds them is faked.

The API is a dictionary; what the workers tell it is kept with the second at which they told it.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kcore.env import Env
from kcore.meta.gvk import Resource
from kcore.meta.objects import key_of
from kcore.sim import World
from kcore.tasks import start_detached, stop
from knode.addresses import AddressPool
from knode.images.store import ImageStore
from knode.pods.checkpoint import Checkpoints
from knode.pods.host import Host
from knode.pods.manager import PodManager
from knode.runtime.simulated import SimulatedDriver

ALLOCATABLE = {'cpu': '4', 'memory': '4Gi', 'pods': '10', 'ephemeral-storage': '10Gi'}


class InlineDisk:
    """The real disk, since pods' directories are real, without threads, of which virtual time knows nothing."""

    def __init__(self) -> None:
        self._real = Env.real(seed=1).disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def offload(self, call: Callable[..., Any], *args: Any) -> Any:
        return call(*args)

    sync_soon = offload


class VirtualNode:
    def __init__(self, root: Path, *, seed: int = 1) -> None:
        self.world = World(seed)
        self.env = dataclasses.replace(self.world.host('n').env, disk=InlineDisk())  # type: ignore[arg-type]
        self.began = self.env.clock.wall().timestamp()
        self.pods: dict[str, dict[str, Any]] = {}
        self.told: list[tuple[float, str, dict[str, Any]]] = []
        """(second, pod's name, status)."""
        self.events: list[tuple[float, str, str, str]] = []
        """(second, pod's name, reason, message)."""
        self.node: dict[str, Any] = {'metadata': {'name': 'n', 'labels': {}}, 'spec': {}, 'status': {}}
        self.objects: dict[str, dict[str, Any]] = {}
        """What pods refer to, by `plural/namespace/name`."""
        self._handlers: list[Callable[..., None]] = []
        self._serial = 0
        self.drivers = {'process': SimulatedDriver(self.env), 'other': SimulatedDriver(self.env)}
        self.drivers['other'].name = 'other'
        pool = AddressPool()
        pool.set_cidr('127.64.9.0/24')
        self.statuses = SimpleNamespace(push=self._push, finish_unknown=self._forget, sent=self._sent)
        informer = SimpleNamespace(
            synced=_done, on_change=self._handlers.append,
            store=SimpleNamespace(get=self.pods.get, list=lambda: list(self.pods.values())),
        )  # fmt: skip
        mirrors = SimpleNamespace(keep=lambda pod: None, drop=lambda pod: None, settle=lambda: None)
        objects = SimpleNamespace(
            read=self._read,
            follow=lambda refs, tell: None,
            tells=lambda refs: True,
            token=_nothing,
            services=lambda namespace: (),
        )
        self.host = Host(
            self.env, 'n', '127.0.0.1', self.drivers, pool,
            Checkpoints(self.env, root), objects, self.statuses, SimpleNamespace(event=self._event),
            ImageStore(self.env, root / 'images'), ALLOCATABLE, lambda: self.node,
        )  # type: ignore[arg-type] # fmt: skip
        self.manager = PodManager(self.host, informer, self.statuses, mirrors)  # type: ignore[arg-type]

    @property
    def now(self) -> float:
        return round(self.env.clock.wall().timestamp() - self.began, 1)

    def run(self, script: Callable[[], Awaitable[None]]) -> None:
        """The script beside the manager, in virtual time."""

        async def main() -> None:
            running = start_detached('manager', self.manager.run())
            while not self._handlers:  # virtual time: it follows the API after a few turns of the loop
                await asyncio.sleep(0.001)
            await script()
            await stop(running)

        self.world.run(main())

    # --- the API's side

    def create(self, name: str, notes: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
        """A pod that is bound here. notes: what its simulated containers do, e.g. {'run-for': '5'}."""
        self._serial += 1
        annotations = {f'simulated.kubeling.dev/{k}': v for k, v in (notes or {}).items()}
        meta = {'name': name, 'namespace': 'default', 'uid': f'u{self._serial}', 'annotations': annotations}
        containers = spec.pop('containers', None) or [{'name': 'c', 'image': 'busybox'}]
        pod = {
            'apiVersion': 'v1', 'kind': 'Pod', 'metadata': meta,
            'spec': {'containers': containers, 'nodeName': 'n', 'terminationGracePeriodSeconds': 30, **spec},
        }  # fmt: skip
        self.write(pod)
        return pod

    def delete(self, name: str, grace_s: int = 30) -> None:
        pod = self.pods[f'default/{name}']
        meta = {**pod['metadata'], 'deletionTimestamp': '2026-01-01T00:00:00Z', 'deletionGracePeriodSeconds': grace_s}
        self.write({**pod, 'metadata': meta})

    def resize(self, name: str, **resources: Any) -> None:
        """Give the pod's only container other resources."""
        pod = self.pods[f'default/{name}']
        containers = [{**pod['spec']['containers'][0], 'resources': resources}]
        self.write({**pod, 'spec': {**pod['spec'], 'containers': containers}})

    def write(self, pod: dict[str, Any]) -> None:
        old = self.pods.get(key_of(pod))
        self.pods[key_of(pod)] = pod
        for handler in self._handlers:
            handler(old, pod)

    def _forget(self, pod: dict[str, Any]) -> None:
        old = self.pods.pop(key_of(pod), None)
        for handler in self._handlers if old else ():
            asyncio.get_running_loop().call_soon(handler, old, None)

    def _push(self, pod: dict[str, Any], status: dict[str, Any], *, finished: bool) -> None:
        if status:
            self.told.append((self.now, pod['metadata']['name'], status))
        if finished:
            self._forget(pod)

    async def _read(self, resource: Resource, name: str, namespace: str) -> dict[str, Any] | None:
        return self.objects.get(f'{resource.plural}/{namespace}/{name}')

    async def _sent(self, uids: Any) -> None:
        return None

    def _event(self, pod: dict[str, Any], kind: str, reason: str, message: str, *, field_path: str = '') -> None:
        self.events.append((self.now, pod['metadata']['name'], reason, message))

    # --- what a test asks

    def status(self, name: str) -> dict[str, Any]:
        """What the API was told last of this pod."""
        return next(status for _, n, status in reversed(self.told) if n == name)

    def heard(self, name: str, *reasons: str) -> list[tuple[float, str, str]]:
        """(second, reason, message) of the pod's events of these reasons."""
        return [(at, reason, text) for at, n, reason, text in self.events if n == name and reason in reasons]


async def _done() -> None:
    return None


async def _nothing(*args: Any) -> None:
    return None
