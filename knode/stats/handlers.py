"""The kubelet API's paths about use and health figures."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

from aiohttp import web
from prometheus_client import PlatformCollector, ProcessCollector
from prometheus_client.registry import Collector as Exposed

from kcore.env import Env
from kcore.meta import quantity
from kcore.metrics import CONTENT_TYPE, CollectorRegistry, render
from knode.config import NodeConfig, shutdown_phases
from knode.pods.host import Host
from knode.pods.manager import PodManager
from knode.pods.worker import PodWorker
from knode.static.manifest import is_static
from knode.stats.collector import Collector
from knode.stats.disks import Disks
from knode.stats.exposition import AgentMetrics, CadvisorMetrics, Counts, ResourceMetrics, SpaceMetrics
from knode.stats.summary import summary, with_disks

Obj = dict[str, Any]
AGENT, CADVISOR = '/metrics', '/metrics/cadvisor'


class StatsHandlers:
    def __init__(self, config: NodeConfig, env: Env, manager: PodManager, collector: Collector, host: Host) -> None:
        self._config, self._env, self._manager, self._collector = config, env, manager, collector
        cores = float(quantity.parse(config.cpu)) if config.cpu else float(os.cpu_count() or 1)

        def latest() -> Any:
            return collector.snapshot

        self._disks = Disks(env, config.data_dir, manager.workers.values)
        agent = AgentMetrics(config.name, self._counts)
        self.registry = host.metrics.registry
        self.registry.register(agent)
        self.registry.register(SpaceMetrics(latest, lambda: self._disks.latest))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._registries = {
            AGENT: self.registry,
            '/metrics/resource': _registry(ResourceMetrics(latest)),
            CADVISOR: _registry(
                CadvisorMetrics(latest, cores, collector.capacity_bytes, disks=lambda: self._disks.latest)
            ),
            '/metrics/probes': host.probe_metrics.registry,
        }

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_get('/stats/summary', self._summary)
        for path in self._registries:
            router.add_get(path, self._metrics)

    async def _metrics(self, request: web.Request) -> web.Response:
        await self._collector.sampled.wait()
        if request.path in {AGENT, CADVISOR}:
            await self._disks.look()
        return web.Response(body=render(self._registries[request.path]), headers={'Content-Type': CONTENT_TYPE})

    async def _summary(self, request: web.Request) -> web.Response:
        await self._collector.sampled.wait()
        snapshot = self._collector.snapshot
        assert snapshot is not None
        document = summary(snapshot, self._config.name, self._collector.capacity_bytes)
        if request.query.get('only_cpu_and_memory') != 'true':
            document = with_disks(document, await self._disks.look())
        return web.json_response(document)

    def _counts(self) -> Counts:
        workers = list(self._manager.workers.values())
        handles = [(w.driver, w.checkpoint.handle) for w in workers]
        records = [r for driver, h in handles if h is not None for r in driver.observe(h)]
        alive = sum(1 for driver, h in handles if h is not None and driver.alive(h))
        running = sum(1 for r in records if r.running)
        return Counts(
            alive, running, sum(1 for r in records if r.finished_ns),
            ephemeral=sum(len(w.pod['spec'].get('ephemeralContainers') or ()) for w in workers),
            working=Counter(map(_sort, workers)),
        )  # fmt: skip

    async def configz(self, request: web.Request) -> web.Response:
        return web.json_response({'kubeletconfig': configz(self._config)})


def _sort(worker: PodWorker) -> tuple[str, str, str]:
    """Lifecycle, origin, and whether it is static."""
    cycle = 'terminated' if worker.ended else 'terminating' if worker.ending else 'sync'
    return cycle, 'orphan' if worker.removed else 'desired', 'true' if is_static(worker.pod) else ''


def configz(config: NodeConfig) -> Obj:
    """The settings as a KubeletConfiguration, as far as they are in it."""
    address, _, port = config.listen.rpartition(':')
    return {
        'kind': 'KubeletConfiguration', 'apiVersion': 'kubelet.config.k8s.io/v1beta1',
        'address': address, 'port': int(port),
        'tlsCertFile': str(config.tls_cert or ''), 'tlsPrivateKeyFile': str(config.tls_key or ''),
        'authentication': {'x509': {'clientCAFile': str(config.client_ca or '')}},
        'maxPods': config.pods,
        'nodeStatusUpdateFrequency': f'{config.heartbeat_s:g}s',
        'nodeStatusReportFrequency': f'{config.status_period_s:g}s',
        'nodeLeaseDurationSeconds': config.lease_duration_s,
        'shutdownGracePeriod': f'{config.shutdown_grace_period_s:g}s',
        'shutdownGracePeriodCriticalPods': f'{config.shutdown_grace_period_critical_pods_s:g}s',
        'shutdownGracePeriodByPodPriority': [
            {'priority': least, 'shutdownGracePeriodSeconds': seconds}
            for least, seconds in shutdown_phases(config.shutdown_grace_period_by_pod_priority).items()
        ],
        'readOnlyPort': _port(config.read_only_listen), 'healthzPort': _port(config.healthz_listen),
        'authorization': {'mode': config.authorization_mode},
        'staticPodPath': str(config.pod_manifest_path or ''),
        'syncFrequency': f'{config.sync_frequency_s:g}s',
        'imageGCHighThresholdPercent': config.image_gc_high_threshold,
        'imageGCLowThresholdPercent': config.image_gc_low_threshold,
        'imageMinimumGCAge': f'{config.minimum_image_ttl_s:g}s',
        'imageMaximumGCAge': f'{config.maximum_image_ttl_s:g}s',
        'podPidsLimit': config.pod_pids_limit or -1,
        'evictionHard': _pairs(config.eviction_hard, '<'), 'evictionSoft': _pairs(config.eviction_soft, '<'),
        'evictionSoftGracePeriod': _pairs(config.eviction_soft_grace_period, '='),
        'evictionMinimumReclaim': _pairs(config.eviction_minimum_reclaim, '='),
        'evictionMaxPodGracePeriod': config.eviction_max_pod_grace_period,
        'evictionPressureTransitionPeriod': f'{config.eviction_pressure_transition_period_s:g}s',
        'logging': {'format': 'json'},
    }  # fmt: skip


def _port(address: str | None) -> int:
    """0: there is no such door."""
    return int(address.rpartition(':')[2]) if address else 0


def _pairs(text: str, between: str) -> dict[str, str]:
    parts = (part.partition(between) for part in text.split(',') if part)
    return {name.strip(): value.strip() for name, _, value in parts}


def _registry(exposed: Exposed) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(exposed)
    return registry
