"""What the proxy counts, under kube-proxy's names where they mean the same. Source: pkg/proxy/metrics/metrics.go."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from kcore.metrics import CollectorRegistry
from knode.proxy.work import Work

SYNC_S = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384)


class ProxyMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.sync = Histogram(
            'kubeproxy_sync_proxy_rules_duration_seconds', 'SyncProxyRules latency in seconds',
            buckets=SYNC_S, registry=registry,
        )  # fmt: skip
        self.synced_at = Gauge(
            'kubeproxy_sync_proxy_rules_last_timestamp_seconds',
            'The last time proxy rules were successfully synced', registry=registry,
        )  # fmt: skip
        self.endpoint_changes = Counter(
            'kubeproxy_sync_proxy_rules_endpoint_changes', 'Cumulative proxy rules Endpoint changes', registry=registry
        )
        self.service_changes = Counter(
            'kubeproxy_sync_proxy_rules_service_changes', 'Cumulative proxy rules Service changes', registry=registry
        )


class TrafficMetrics(Collector):
    """What goes through, read when somebody asks."""

    def __init__(self, work: Work, listening: Callable[[], int]) -> None:
        self._work, self._listening = work, listening

    def collect(self) -> Iterator[Metric]:
        work = self._work
        yield _gauge(
            'kubeling_proxy_frontends', 'Addresses at which this agent listens for Services', self._listening()
        )
        yield _gauge('kubeling_proxy_connections', 'TCP connections through this agent', work.connections)
        yield _gauge('kubeling_proxy_flows', 'UDP flows through this agent', work.flows)
        yield _counter('kubeling_proxy_bytes', 'Bytes carried, both ways', work.bytes)
        yield _counter('kubeling_proxy_backend_failures', 'Backends that did not answer', work.failed)
        yield _counter('kubeling_proxy_refused', 'Clients turned away', work.refused)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value)
