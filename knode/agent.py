"""The node agent: registers the node, keeps it alive, and runs the pods that are bound to it.

Parts, each a task of one group: node status and lease (`node`), pod workers (`pods.manager`), statuses on their way
to the API (`pods.statuses`), events, informers, the kubelet API (`server`). Ending the agent ends none of its pods.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from kclient import kubeconfig
from kclient.api import Client
from kclient.events import EventRecorder
from kclient.informer import Informer
from kcore.env import Env
from kcore.meta.gvk import PODS
from kcore.process import Ready
from kcore.tasks import start, start_detached, start_essential, start_restarting, stop
from knode.addresses import AddressPool
from knode.config import NodeConfig
from knode.machine import describe
from knode.node import NodeKeeper
from knode.objects import ApiObjects
from knode.pods.checkpoint import Checkpoints
from knode.pods.host import Host
from knode.pods.manager import PodManager
from knode.pods.statuses import Statuses
from knode.pods.watchdog import Watchdog
from knode.runtime.registry import make_drivers
from knode.server import NodeServer
from knode.shutdown import shut_down
from knode.static.mirrors import Mirrors
from knode.static.source import StaticSource
from knode.stats.collector import Collector
from knode.stats.handlers import StatsHandlers

log = structlog.get_logger('knode.agent')


async def run(config: NodeConfig, env: Env, ready: Ready) -> None:
    """Serve until cancelled."""
    async with Client(kubeconfig.load(config.kubeconfig, env), env, user_agent=f'knode/{config.name}') as client:
        await serve(config, env, client, ready)


async def serve(config: NodeConfig, env: Env, client: Client, ready: Callable[[], None]) -> None:
    """`run` with a client of the caller's.

    ready:  called once the API has the node's status and lease, and the truth about pods that were running before.
    """
    data_dir = config.data_dir.absolute()
    env.disk.mkdir(data_dir, 0o700)
    env.disk.mkdir(data_dir / 'pods', 0o700)
    config = config.model_copy(update={'data_dir': data_dir})
    pool, machine = AddressPool(), describe(config, env)
    keeper = NodeKeeper(config, client, env, pool, machine)
    objects = ApiObjects(client)
    statuses = Statuses(client, env)
    events = EventRecorder(client, env, 'kubelet', config.name)
    drivers = make_drivers(env, config.cgroup_root)
    pods = Informer(client, PODS, field_selector=f'spec.nodeName={config.name}')
    mirrors = Mirrors(client, env, pods, statuses, keeper.known_node)
    host = Host(
        env, config.name, keeper.address, drivers, pool, Checkpoints(env, data_dir), objects, mirrors, events,
        keeper.allocatable(), keeper.known_labels, sync_frequency_s=config.sync_frequency_s,
        pod_pids=config.pod_pids_limit,
    )  # fmt: skip
    manager = PodManager(host, pods, statuses, mirrors)
    collector = Collector(config, env, manager.workers.values)
    server = NodeServer(config, env, manager, StatsHandlers(config, env, manager, collector, host.probe_metrics))

    async def known() -> None:
        await keeper.registered.wait()
        await keeper.leased.wait()
        await manager.adopted()
        log.info('node is known to the API', node=config.name)
        ready()

    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            start_restarting(group, 'watch node', keeper.informer.run, env)
            start_restarting(group, 'node status', keeper.run_status, env)
            start_restarting(group, 'node lease', keeper.run_lease, env)
            start_restarting(group, 'watch services', objects.service_informer.run, env)
            start_restarting(group, 'watch pods', pods.run, env)
            start_restarting(group, 'statuses', statuses.run, env)
            start_restarting(group, 'stats', collector.run, env)
            start_restarting(group, 'events', events.run, env)
            start_restarting(group, 'memory limits', Watchdog(env, manager.workers.values).run, env)
            start_restarting(group, 'mirror pods', mirrors.run, env)
            if (path := config.pod_manifest_path) is not None:
                source = StaticSource(env, path.absolute(), config.name, manager.set_static)
                start_restarting(group, 'static pods', source.run, env)
            else:
                manager.set_static(())
            start_essential(group, 'pods', manager.run())
            start(group, 'ready', known())

    try:
        for driver in drivers.values():
            await driver.prepare()
        await server.start()
        keeper.port = server.port
        log.info('agent serves', node=config.name, address=keeper.address, port=server.port)
        working = start_detached('agent', work())
        try:
            await asyncio.wait({working})
            working.result()
        except asyncio.CancelledError:
            if config.shutdown_grace_period_s:
                await shut_down(keeper, manager, config.shutdown_grace_period_s)
            raise
        finally:
            await stop(working)
    finally:
        await server.close()
        for driver in drivers.values():
            await driver.close()
