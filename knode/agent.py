"""The node agent: registers the node, keeps it alive, and runs the pods that are bound to it.

Parts, each a task of one group: node status and lease (`node`), pod workers (`pods.manager`), statuses on their way
to the API (`pods.statuses`), events, informers, the kubelet API (`server`). Ending the agent ends none of its pods.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

import structlog

from kclient import kubeconfig
from kclient.api import Client
from kclient.events import EventRecorder, Pace
from kclient.informer import Informer
from kcore.env import Env
from kcore.meta.gvk import PODS
from kcore.process import Ready, Run
from kcore.tasks import start, start_detached, start_essential, start_restarting, stop
from knode.access import Access
from knode.addresses import AddressPool
from knode.config import NodeConfig
from knode.eviction.manager import EvictionManager
from knode.images.collector import GcPolicy, ImageCollector
from knode.images.store import ImageStore
from knode.machine import describe
from knode.network import ServiceNetwork
from knode.node import NodeKeeper
from knode.objects import ApiObjects
from knode.pods.checkpoint import Checkpoints
from knode.pods.host import Host
from knode.pods.manager import PodManager
from knode.pods.metrics import KubeletMetrics
from knode.pods.statuses import Statuses
from knode.pods.watchdog import Watchdog
from knode.runtime.registry import features, make_drivers
from knode.server import NodeServer
from knode.shutdown import phases_of, shut_down
from knode.static.mirrors import Mirrors
from knode.static.source import StaticSource
from knode.stats.collector import Collector
from knode.stats.handlers import StatsHandlers
from knode.volumes.memory import Memory

if TYPE_CHECKING:
    from knode.join import Credentials  # takes `cryptography` in, which an agent with credentials has no use for

log = structlog.get_logger('knode.agent')


async def run(config: NodeConfig, env: Env, ready: Ready) -> None:
    """Serve until cancelled."""
    async with Client(kubeconfig.load(config.kubeconfig, env), env, user_agent=f'knode/{config.name}') as client:
        await serve(config, env, client, ready)


def joined(credentials: Credentials) -> Run[NodeConfig]:
    """`run`, with credentials that are kept fresh beside it."""

    async def both(config: NodeConfig, env: Env, ready: Ready) -> None:
        async with asyncio.TaskGroup() as group:
            start_restarting(group, 'credentials', credentials.keep, env)
            start_essential(group, 'agent', run(config, env, ready))

    return both


async def serve(config: NodeConfig, env: Env, client: Client, ready: Callable[[], None]) -> None:
    """`run` with a client of the caller's.

    ready:  called once the API has the node's status and lease, and the truth about pods that were running before.
    """
    data_dir = config.data_dir.absolute()
    env.disk.mkdir(data_dir, 0o700)
    env.disk.mkdir(data_dir / 'pods', 0o700)
    await Agent(config.model_copy(update={'data_dir': data_dir}), env, client).serve(ready)


class Agent:
    """The parts of one node agent, joined."""

    def __init__(self, config: NodeConfig, env: Env, client: Client) -> None:
        self._config, self._env = config, env
        pool = AddressPool()
        self._keeper = keeper = NodeKeeper(config, client, env, pool, describe(config, env))
        self._objects = ApiObjects(client)
        self._metrics = metrics = KubeletMetrics()
        self._statuses = Statuses(client, env, metrics)
        pace = Pace(config.event_qps, config.event_burst)
        self._events = events = EventRecorder(client, env, 'kubelet', config.name, pace=pace)
        keeper.said = lambda kind, reason, text: events.event(keeper.reference(), kind, reason, text)
        self._drivers = make_drivers(env, config.cgroup_root)
        self._pods = Informer(client, PODS, field_selector=f'spec.nodeName={config.name}')
        self._pods.on_change(self._statuses.heard)
        self._mirrors = Mirrors(client, env, self._pods, self._statuses, keeper.known_node)
        self._images = ImageStore(env, config.data_dir / 'images')
        keeper.images, keeper.features = self._images.listed, lambda: features(self._drivers)
        host = Host(
            env, config.name, keeper.address, self._drivers, pool, Checkpoints(env, config.data_dir), self._objects,
            self._mirrors, events, self._images, keeper.allocatable(), keeper.known_node,
            metrics=metrics, sync_frequency_s=config.sync_frequency_s, pod_pids=config.pod_pids_limit,
            memory=Memory.open(config.memory_dir, config.data_dir),
        )  # fmt: skip
        self._manager = manager = PodManager(host, self._pods, self._statuses, self._mirrors)

        def warn(reason: str, text: str) -> None:
            keeper.said('Warning', reason, text)

        policy = GcPolicy(
            config.image_gc_high_threshold, config.image_gc_low_threshold, config.minimum_image_ttl_s,
            config.maximum_image_ttl_s,
        )  # fmt: skip
        self._garbage = ImageCollector(
            env, self._images, policy, in_use=manager.images_in_use, metrics=metrics, said=warn
        )
        self._collector = collector = Collector(config, env, manager.workers.values)
        self._eviction = EvictionManager(
            config, env, manager.workers.values, collector, metrics=metrics, tell=keeper.set_pressure,
            said=warn, free_images=self._garbage.free,
        )  # fmt: skip
        host.refusal = self._eviction.verdict
        self._network = None
        if config.proxy_mode != 'none':
            self._network = ServiceNetwork(
                config, env, client, keeper=keeper, pool=pool, services=self._objects.service_informer,
                pods=self._pods,                 registry=host.metrics.registry,
            )  # fmt: skip
            host.cluster_dns, host.name_server = self._network.name_server()
        stats = StatsHandlers(config, env, manager, collector, host)
        self._server = NodeServer(config, env, manager, stats, Access(config, env, client))

    async def serve(self, ready: Callable[[], None]) -> None:
        config, keeper, server = self._config, self._keeper, self._server
        try:
            for driver in self._drivers.values():
                await driver.prepare()
            await server.start()
            keeper.port = server.port
            log.info('agent serves', node=config.name, address=keeper.address, port=server.port)
            working = start_detached('agent', self._work(ready))
            try:
                await asyncio.wait({working})
                working.result()
            except asyncio.CancelledError:
                if phases := phases_of(config):
                    await self._shut_down(phases)
                raise
            finally:
                await stop(working)
        finally:
            await self._images.close()
            await server.close()
            for driver in self._drivers.values():
                await driver.close()

    async def _shut_down(self, phases: Mapping[int, float]) -> None:
        self._metrics.shutdown_began(self._env.clock.wall().timestamp())
        await shut_down(self._keeper, self._manager, phases)
        self._metrics.shutdown_ended(self._env.clock.wall().timestamp())

    async def _work(self, ready: Callable[[], None]) -> None:
        async with asyncio.TaskGroup() as group:
            for name, task in self._tasks().items():
                start_restarting(group, name, task, self._env)
            start_essential(group, 'pods', self._manager.run())
            start(group, 'ready', self._known(ready))

    def _tasks(self) -> dict[str, Callable[[], Awaitable[object]]]:
        """What runs for ever, and again when it fails."""
        tasks: dict[str, Callable[[], Awaitable[object]]] = {
            'watch node': self._keeper.informer.run,
            'node status': self._keeper.run_status,
            'node lease': self._keeper.run_lease,
            'watch services': self._objects.service_informer.run,
            'watch pods': self._pods.run,
            'watch mounted objects': self._objects.watches.run,
            'statuses': self._statuses.run,
            'events': self._events.run,
            'stats': self._collector.run,
            'eviction': self._eviction.run,
            'image garbage': self._garbage.run,
            'memory limits': Watchdog(self._env, self._manager.workers.values).run,
            'mirror pods': self._mirrors.run,
        }
        if self._network is not None:
            tasks |= self._network.tasks()
        if (path := self._config.pod_manifest_path) is None:
            self._manager.set_static(())
        else:
            source = StaticSource(self._env, path.absolute(), self._config.name, self._manager.set_static)
            tasks['static pods'] = source.run
        return tasks

    async def _known(self, ready: Callable[[], None]) -> None:
        await self._keeper.registered.wait()
        await self._keeper.leased.wait()
        await self._manager.adopted()
        log.info('node is known to the API', node=self._config.name)
        ready()
