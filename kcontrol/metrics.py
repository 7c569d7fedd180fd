"""Figures of the controller manager under upstream's names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from kclient.queue import WorkQueue
from kclient.transport import Answer
from kcontrol.figures import Figures
from kcore.metrics import CollectorRegistry

Family = CounterMetricFamily | GaugeMetricFamily
BUCKETS_S = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)
"""Upstream's: a decade each."""
REQUEST_BUCKETS_S = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)


class _Queues(Collector):
    """Reads the queues when scraped."""

    def __init__(self) -> None:
        self.queues: Mapping[str, WorkQueue[str]] = {}

    def collect(self) -> Iterator[Family]:
        depth = GaugeMetricFamily('workqueue_depth', 'Keys that wait for a worker.', labels=['name'])
        adds = CounterMetricFamily('workqueue_adds', 'Keys that became takeable.', labels=['name'])
        retries = CounterMetricFamily('workqueue_retries', 'Keys added after a failure.', labels=['name'])
        text = 'Seconds of all keys in work so far.'
        unfinished = GaugeMetricFamily('workqueue_unfinished_work_seconds', text, labels=['name'])
        text = 'Seconds of the key that has been in work for longest.'
        longest = GaugeMetricFamily('workqueue_longest_running_processor_seconds', text, labels=['name'])
        for name, queue in self.queues.items():
            depth.add_metric([name], len(queue))
            adds.add_metric([name], queue.adds)
            retries.add_metric([name], queue.retries)
            in_work = queue.in_work_s()
            unfinished.add_metric([name], sum(in_work))
            longest.add_metric([name], max(in_work, default=0.0))
        yield from (depth, adds, retries, unfinished, longest)


class _Pending(Collector):
    """Asks the scheduler, while one runs here, how many pods wait in which of its queues."""

    def __init__(self) -> None:
        self.counts: Callable[[], Mapping[str, int]] = dict

    def collect(self) -> Iterator[Family]:
        pending = GaugeMetricFamily('scheduler_pending_pods', 'Pods that wait, by queue.', labels=['queue'])
        for queue, count in self.counts().items():
            pending.add_metric([queue], count)
        yield pending


class Metrics:
    """One set a process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._queues, self._pending = _Queues(), _Pending()
        self.registry.register(self._queues)
        self.registry.register(self._pending)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.figures = Figures(self.registry)
        """What single controllers and the scheduler count."""
        self._reconciles = Counter(
            'controller_runtime_reconcile', 'Reconciles by outcome.', ['controller', 'result'], registry=self.registry
        )
        self._seconds = Histogram(
            'controller_runtime_reconcile_time_seconds', 'Length of a reconcile.', ['controller'],
            registry=self.registry,
        )  # fmt: skip
        self._waited = Histogram(
            'workqueue_queue_duration_seconds', 'How long a key waited to be taken.', ['name'],
            buckets=BUCKETS_S, registry=self.registry,
        )  # fmt: skip
        self._worked = Histogram(
            'workqueue_work_duration_seconds', 'How long a key was worked on.', ['name'], buckets=BUCKETS_S,
            registry=self.registry,
        )  # fmt: skip
        self.leader = Gauge(
            'leader_election_master_status', '1 while this process leads.', ['name'], registry=self.registry
        )
        self._requests = Counter(
            'rest_client_requests', 'Requests sent to API servers.', ['code', 'method', 'host'], registry=self.registry
        )
        self._retries = Counter(
            'rest_client_request_retries', 'Requests sent again.', ['code', 'verb', 'host'], registry=self.registry
        )
        self._request_s = Histogram(
            'rest_client_request_duration_seconds', 'Until the headers of an answer came.', ['verb', 'host'],
            buckets=REQUEST_BUCKETS_S, registry=self.registry,
        )  # fmt: skip

        self._kinds: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}

    def watch_queues(self, queues: Mapping[str, WorkQueue[str]]) -> None:
        """Report these queues from now on (a new term has new ones)."""
        self._queues.queues = queues
        for name, queue in queues.items():
            queue.on_take = self._waited.labels(name).observe

    def watch_scheduler(self, counts: Callable[[], Mapping[str, int]]) -> None:
        """Report what `counts()` says: queue → pods that wait in it."""
        self._pending.counts = counts

    def reconciled(self, controller: str, outcome: str, seconds: float) -> None:
        self._reconciles.labels(controller, outcome).inc()
        self._seconds.labels(controller).observe(seconds)
        self._worked.labels(controller).observe(seconds)

    def requested(self, answer: Answer) -> None:
        """For `Client(observe=…)`."""
        verb = answer.call.method
        known = self._kinds.get((answer.code, verb, answer.host))
        if known is None:  # labels are looked up once, not twice a request
            counter = self._requests.labels(answer.code, verb, answer.host)
            known = self._kinds[answer.code, verb, answer.host] = counter, self._request_s.labels(verb, answer.host)
        known[0].inc()
        known[1].observe(answer.seconds)
        if answer.attempt:
            self._retries.labels(answer.code, verb, answer.host).inc()
