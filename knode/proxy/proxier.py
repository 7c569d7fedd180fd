"""The service proxy of one node agent: hears of Services and EndpointSlices, and keeps the sockets in line.

It asks the API nothing but the two watches. Only Services that changed, or whose slices did, are planned again.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterable
from typing import NoReturn

import structlog
from prometheus_client import CollectorRegistry

from kclient.events import EventRecorder
from kclient.informer import Informer
from kclient.model import Obj
from kcore.env import Env
from kcore.meta.objects import key_of, labels_of, namespace_of
from knode.proxy.health import HealthPort
from knode.proxy.metrics import ProxyMetrics, TrafficMetrics
from knode.proxy.model import NOTHING, Frontend, Health, Plan
from knode.proxy.plan import SERVICE_LABEL, Facts, host_ports, plan
from knode.proxy.ports import Ports, reason
from knode.proxy.work import Work

log = structlog.get_logger('knode.proxy')

RETRY_S = 30.0
"""Where nobody could listen it is tried again after this, and with every change."""
TURN = 64
"""Services planned before others have their turn."""
SERVICE_INDEX = 'service'
POD = 'pod '
"""Before the key of a pod, which has host ports."""


def service_of(piece: Obj) -> Iterable[str]:
    """Index function of EndpointSlices: the key of their Service."""
    name = labels_of(piece).get(SERVICE_LABEL)
    return (f'{namespace_of(piece)}/{name}',) if name else ()


def _has_host_ports(pod: Obj) -> bool:
    return any(p.get('hostPort') for c in pod['spec'].get('containers') or () for p in c.get('ports') or ())


class Proxier:
    def __init__(
        self, env: Env, facts: Callable[[], Facts], prefix: Callable[[], int], *, services: Informer, slices: Informer,
        pods: Informer, events: EventRecorder, registry: CollectorRegistry,
    ) -> None:  # fmt: skip
        """slices: indexed by SERVICE_INDEX. pods: this node's. prefix: length of a node's podCIDR."""
        self._env, self._services, self._slices, self._pods = env, services, slices, pods
        self._facts, self._prefix, self._events = facts, prefix, events
        self._metrics, self._registry = ProxyMetrics(registry), registry
        self._dirty: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._planned_for: Facts | None = None
        self._health: dict[int, HealthPort] = {}
        self._health_of: dict[str, dict[int, Health]] = {}
        services.on_change(self._on_service)
        slices.on_change(self._on_slice)
        pods.on_change(self._on_pod)

    def _on_service(self, old: Obj | None, new: Obj | None) -> None:
        self._metrics.service_changes.inc()
        self._mark(key_of(obj) for obj in (old, new) if obj is not None)

    def _on_slice(self, old: Obj | None, new: Obj | None) -> None:
        self._metrics.endpoint_changes.inc()
        self._mark(key for obj in (old, new) if obj is not None for key in service_of(obj))

    def _on_pod(self, old: Obj | None, new: Obj | None) -> None:
        """Most have no host ports, and are none of our business."""
        self._mark(f'{POD}{key_of(obj)}' for obj in (old, new) if obj is not None and _has_host_ports(obj))

    def _mark(self, keys: Iterable[str]) -> None:
        before = len(self._dirty)
        self._dirty |= dict.fromkeys(keys)
        if len(self._dirty) > before:
            self._wake.set()

    def look(self) -> None:
        """What the node knows of itself may have changed."""
        self._wake.set()

    async def run(self) -> NoReturn:
        """Serve until cancelled; who uses the proxy then loses the connection."""
        await self._services.synced()
        await self._slices.synced()
        work = Work(self._env.clock, self._prefix)
        ports = Ports(work, self._refused)
        traffic = TrafficMetrics(work, lambda: len(ports))
        self._registry.register(traffic)
        self._planned_for = None
        try:
            while True:
                self._wake.clear()
                await self._sync(ports)
                try:
                    async with asyncio.timeout(RETRY_S if ports.closed else None):
                        await self._wake.wait()
                except TimeoutError:
                    ports.retry()
        finally:
            self._registry.unregister(traffic)
            ports.close()
            for relay in [*work.relays]:
                relay.abort()
            for port in self._health.values():
                port.close()
            self._health.clear()
            self._health_of.clear()

    async def _sync(self, ports: Ports) -> None:
        began, facts = self._env.clock.monotonic(), self._facts()
        if facts != self._planned_for:
            self._planned_for = facts
            self._dirty |= dict.fromkeys(self._services.store.keys())
            self._dirty |= dict.fromkeys(f'{POD}{key_of(p)}' for p in self._pods.store.list() if _has_host_ports(p))
        keys, self._dirty = [*self._dirty], {}
        for i, key in enumerate(keys):
            if i % TURN == TURN - 1:
                await asyncio.sleep(0)
            made = self._plan(key, facts)
            ports.set(key, made)
            await self._keep_health(key, made.health, facts)
        if keys:
            now = self._env.clock.monotonic()
            self._metrics.sync.observe(now - began)
            self._metrics.synced_at.set(self._env.clock.wall().timestamp())

    def _plan(self, key: str, facts: Facts) -> Plan:
        if key.startswith(POD):
            pod = self._pods.store.get(key.removeprefix(POD))
            return NOTHING if pod is None else host_ports(pod, facts)
        service = self._services.store.get(key)
        return NOTHING if service is None else plan(service, self._slices.store.by_index(SERVICE_INDEX, key), facts)

    async def _keep_health(self, key: str, wanted: dict[int, Health], facts: Facts) -> None:
        before = self._health_of.pop(key, {})
        if wanted:
            self._health_of[key] = wanted
        for number in before.keys() - wanted.keys():
            if port := self._health.pop(number, None):
                port.close()
        for number, health in wanted.items():
            if port := self._health.get(number):
                port.health = health
                continue
            try:
                port = HealthPort((facts.address, number), health)
            except OSError as e:
                self._say(
                    key, 'FailedToStartServiceHealthcheck', f'node {facts.node} cannot listen at {number}: {reason(e)}'
                )
                continue
            await port.start()
            self._health[number] = port

    def _refused(self, key: str, frontend: Frontend, why: str) -> None:
        """Not told of: an address of a load balancer or another machine, where somebody else listens."""
        service = self._services.store.get(key)
        inside = service is not None and frontend.ip == service['spec'].get('clusterIP')
        log.warning('service is not served', object=key, frontend=str(frontend), err=why)
        if inside or why != reason(OSError(errno.EADDRNOTAVAIL, '')):
            self._say(key, 'ServiceNotServed', f'nobody listens at {frontend}: {why}')

    def _say(self, key: str, kind: str, text: str) -> None:
        if service := self._services.store.get(key):
            self._events.event({'apiVersion': 'v1', 'kind': 'Service', **service}, 'Warning', kind, text)
