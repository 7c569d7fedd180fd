"""The Node object's life: register, renew the lease, report status, come back when deleted.

Heartbeats are renewals of a Lease (cheap); the status is sent when it changed, else every five minutes. Any outage
of the API only delays this; nothing here ends the agent. Source: pkg/kubelet/kubelet_node_status.go,
component-helpers/apimachinery/lease.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any, NoReturn

import structlog

from kclient.api import Client, Obj
from kclient.errors import AlreadyExists, ClientError, Conflict, NotFound
from kclient.events import EventType
from kclient.informer import Informer
from kcore.backoff import Backoff
from kcore.env import Env
from kcore.meta.gvk import LEASES, NODES
from kcore.meta.objects import owner_ref
from kcore.meta.times import format_micro
from knode.addresses import AddressPool
from knode.config import NodeConfig
from knode.node_status import Machine, conditions, labels, node_status, resources, transitions

log = structlog.get_logger('knode.node')

LEASE_NAMESPACE = 'kube-node-lease'
RETRY_BASE_S = 0.2
RETRY_CAP_S = 5.0
CHECK_PERIOD_S = 10.0
NOT_READY_TAINT = 'node.kubernetes.io/not-ready'
CIDR_FILE = 'pod-cidr'
"""In the data directory: the node's podCIDR."""
ESSENTIAL = (
    'capacity', 'allocatable', 'addresses', 'daemonEndpoints', 'nodeInfo', 'images', 'runtimeHandlers', 'features',
)  # fmt: skip
"""What of a status does not change by itself."""
SHUTTING_DOWN = 'node is shutting down'


class NodeKeeper:
    def __init__(self, config: NodeConfig, client: Client, env: Env, pool: AddressPool, machine: Machine) -> None:
        self._config, self._client, self._env, self._pool, self._machine = config, client, env, pool, machine
        self.address = config.listen.rpartition(':')[0]
        self.port = 0
        self.images: Callable[[], list[dict[str, Any]]] = list
        """What the node can run, as its status lists it."""
        self.said: Callable[[EventType, str, str], None] = lambda kind, reason, text: None
        """Takes an event about the node."""
        self.annotations: dict[str, str | None] = {'volumes.kubernetes.io/controller-managed-attach-detach': 'true'}
        """The Node's own; None: to be taken off."""
        self.features: Callable[[], dict[str, Any]] = dict
        """What its runtimes can do: fields of its status."""
        self.informer = Informer(client, NODES, field_selector=f'metadata.name={config.name}')
        self.informer.on_change(self._on_node)
        self.addressed = asyncio.Event()
        """Set once the node has a podCIDR."""
        self.registered, self.leased = asyncio.Event(), asyncio.Event()
        """Set once the API has this agent's own status, and a lease renewed by it."""
        self.avoided = asyncio.Event()
        """Set while the scheduler sends no pods here because the node is not Ready."""
        self._closing = False
        self._reported = asyncio.Event()
        self._changed = asyncio.Event()
        self._node: Obj | None = None
        self._sent: dict[str, Any] | None = None
        self._sent_at = float('-inf')
        self._lease: Obj | None = None
        self._pressure: Collection[str] = ()
        self._remember_addresses()

    def _remember_addresses(self) -> None:
        """What the node was given before: static pods need addresses also while the API is away."""
        try:
            self._pool.set_cidr(self._env.disk.read(self._config.data_dir / CIDR_FILE).decode())
        except FileNotFoundError:
            return
        except ValueError as e:
            log.error('remembered pod addresses are damaged', err=str(e))

    def _on_node(self, old: Obj | None, new: Obj | None) -> None:
        self._node = new
        if new is None:
            log.warning('node object was deleted')
            self._sent = None
        elif cidr := new['spec'].get('podCIDR'):
            if cidr != self._pool.cidr:
                log.info('pod addresses given', cidr=cidr)
                self._pool.set_cidr(cidr)
                self._env.disk.replace(self._config.data_dir / CIDR_FILE, cidr.encode())
            self.addressed.set()
        taints = [] if new is None else new['spec'].get('taints') or []
        if any(t['key'] == NOT_READY_TAINT and t['effect'] == 'NoSchedule' for t in taints):
            self.avoided.set()
        else:
            self.avoided.clear()
        self._changed.set()

    def set_pressure(self, conditions: Collection[str]) -> None:
        """The pressure conditions that hold from now on."""
        self._pressure = conditions
        self._changed.set()

    async def close(self) -> None:
        """Say that the node is not Ready any more, and return once the API knows."""
        self._closing = True
        self._reported.clear()
        self._changed.set()
        await self._reported.wait()

    async def run_status(self) -> NoReturn:
        """Register and report, for ever."""
        self.said('Normal', 'Starting', 'Starting kubelet.')
        backoff = Backoff(RETRY_BASE_S, RETRY_CAP_S, self._env.rng)
        while True:
            self._changed.clear()
            try:
                if self._node is None:
                    await self._register()
                await self._report()
                backoff.reset()
                pause = CHECK_PERIOD_S
            except ClientError as e:
                log.warning('node status not sent', err=f'{type(e).__name__}: {e}')
                pause = backoff.next()
            try:
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _register(self) -> None:
        name = self._config.name
        wanted: dict[str, Any] = {
            'apiVersion': 'v1',
            'kind': 'Node',
            'metadata': {
                'name': name,
                'labels': self.labels(),
                'annotations': {k: v for k, v in self.annotations.items() if v is not None},
            },
            'spec': {},
            'status': self._status([]),
        }
        try:
            self._node = await self._client.create(NODES, wanted)
            log.info('node registered', node=name)
            self._announce({}, wanted['status'])
        except AlreadyExists:
            self._node = await self._client.get(NODES, name)
            missing = {
                kind: {k: v for k, v in wanted_here.items() if (self._node['metadata'].get(kind) or {}).get(k) != v}
                for kind, wanted_here in (('labels', self.labels()), ('annotations', self.annotations))
            }
            if any(missing.values()):
                self._node = await self._client.patch(NODES, name, {'metadata': missing})
        self._sent = None
        self._on_node(None, self._node)

    def _announce(self, before: dict[str, Any], status: dict[str, Any]) -> None:
        """What a new status changes, as events. before: the node's status in the API."""
        boot_id, known = status['nodeInfo']['bootID'], (before.get('nodeInfo') or {}).get('bootID')
        if self._sent_at == float('-inf') and known not in {None, '', boot_id}:
            self.said('Warning', 'Rebooted', f'Node {self._config.name} has been rebooted, boot id: {boot_id}')
        for reason in transitions(before.get('conditions') or (), status['conditions']):
            self.said('Normal', reason, f'Node {self._config.name} status is now: {reason}')

    def _status(self, before: list[dict[str, Any]]) -> dict[str, Any]:
        status = node_status(self._machine, self.address, self.port, self.images()) | self.features()
        ready = '' if self._pool.cidr else 'container runtime network not ready: the node has no podCIDR yet'
        if self._closing:
            ready = SHUTTING_DOWN
        status['conditions'] = conditions(self._pressure, ready, before, self._env.clock.wall())
        return status

    async def _report(self) -> None:
        node = self._node
        if node is None:
            return
        status = self._status((node.get('status') or {}).get('conditions') or [])
        essence = _essence(status)
        now = self._env.clock.monotonic()
        # What others made of the status (a lost node's conditions become Unknown) has to be put right at once.
        agreed = _essence(node.get('status') or {})
        same = essence == self._sent and all(agreed.get(k) == v for k, v in essence.items())
        if same and now - self._sent_at < self._config.status_period_s:
            return
        try:
            self._node = await self._client.patch(
                NODES, self._config.name, {'status': status}, kind='strategic', subresource='status'
            )
        except NotFound:
            self._node = None
            raise
        self._announce(node.get('status') or {}, status)
        self._sent, self._sent_at = essence, now
        self.registered.set()
        if any(c['message'] == SHUTTING_DOWN for c in status['conditions']):
            self._reported.set()

    async def run_lease(self) -> NoReturn:
        """Renew every `heartbeat_s`; after a failure sooner."""
        backoff = Backoff(RETRY_BASE_S, RETRY_CAP_S, self._env.rng)
        while True:
            try:
                await self._renew()
                self.leased.set()
                backoff.reset()
                pause = self._config.heartbeat_s
            except ClientError as e:
                log.warning('node lease not renewed', err=f'{type(e).__name__}: {e}')
                pause = min(backoff.next(), self._config.heartbeat_s)
            await asyncio.sleep(pause)

    async def _renew(self) -> None:
        if self._lease is None:
            self._lease = await self._acquire()
        lease = {**self._lease, 'spec': self._lease_spec()}
        if self._node is not None and not lease['metadata'].get('ownerReferences'):
            reference = {
                k: v for k, v in owner_ref(self._node, NODES).items() if k not in {'controller', 'blockOwnerDeletion'}
            }
            lease['metadata'] = {**lease['metadata'], 'ownerReferences': [reference]}
        try:
            self._lease = await self._client.update(LEASES, lease)
        except (NotFound, Conflict):
            self._lease = None
            raise

    async def _acquire(self) -> Obj:
        name = self._config.name
        try:
            return await self._client.get(LEASES, name, LEASE_NAMESPACE)
        except NotFound:
            lease = {'metadata': {'name': name, 'namespace': LEASE_NAMESPACE}, 'spec': self._lease_spec()}
            return await self._client.create(LEASES, lease)

    def _lease_spec(self) -> dict[str, Any]:
        return {
            'holderIdentity': self._config.name,
            'leaseDurationSeconds': self._config.lease_duration_s,
            'renewTime': format_micro(self._env.clock.wall()),
        }

    def allocatable(self) -> dict[str, str]:
        return resources(self._machine)

    def known_node(self) -> Obj | None:
        """The Node object; None while it has not been seen."""
        return self._node

    def reference(self) -> Obj:
        """What events about the node refer to: by name, as the kubelet does, since it may not know the uid."""
        name = self._config.name
        return {'apiVersion': 'v1', 'kind': 'Node', 'metadata': {'name': name, 'uid': name}}

    def labels(self) -> dict[str, str]:
        return labels(self._config.name, self._machine, self._config.labels)


def _essence(status: dict[str, Any]) -> dict[str, Any]:
    """A status without what changes by itself: times, free memory in messages, key order."""
    keep = {k: status.get(k) for k in ESSENTIAL}
    keep['conditions'] = {
        c['type']: (c.get('status'), c.get('reason'))
        for c in status.get('conditions') or ()
        if c['type'] in {'Ready', 'MemoryPressure', 'DiskPressure', 'PIDPressure'}
    }
    return keep
