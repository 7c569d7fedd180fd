"""Figures of the controller manager under upstream's names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from kclient.queue import WorkQueue
from kcore.metrics import CollectorRegistry

Family = CounterMetricFamily | GaugeMetricFamily


class _Queues(Collector):
    """Reads the queues when scraped."""

    def __init__(self) -> None:
        self.queues: Mapping[str, WorkQueue[str]] = {}

    def collect(self) -> Iterator[Family]:
        depth = GaugeMetricFamily('workqueue_depth', 'Keys that wait for a worker.', labels=['name'])
        adds = CounterMetricFamily('workqueue_adds', 'Keys that became takeable.', labels=['name'])
        retries = CounterMetricFamily('workqueue_retries', 'Keys added after a failure.', labels=['name'])
        for name, queue in self.queues.items():
            depth.add_metric([name], len(queue))
            adds.add_metric([name], queue.adds)
            retries.add_metric([name], queue.retries)
        yield from (depth, adds, retries)


class Metrics:
    """One set a process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._queues = _Queues()
        self.registry.register(self._queues)
        self._reconciles = Counter(
            'controller_runtime_reconcile', 'Reconciles by outcome.', ['controller', 'result'], registry=self.registry
        )
        self._seconds = Histogram(
            'controller_runtime_reconcile_time_seconds', 'Length of a reconcile.', ['controller'],
            registry=self.registry,
        )  # fmt: skip
        self.leader = Gauge(
            'leader_election_master_status', '1 while this process leads.', ['name'], registry=self.registry
        )

    def watch_queues(self, queues: Mapping[str, WorkQueue[str]]) -> None:
        """Report these queues from now on (a new term has new ones)."""
        self._queues.queues = queues

    def reconciled(self, controller: str, outcome: str, seconds: float) -> None:
        self._reconciles.labels(controller, outcome).inc()
        self._seconds.labels(controller).observe(seconds)
