"""Figures of the controller manager under upstream's names."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from kclient.model import Obj
from kclient.queue import WorkQueue
from kclient.transport import Answer
from kcontrol.figures import Figures
from kcore.meta.objects import get_path, namespace_of
from kcore.metrics import CollectorRegistry

Family = CounterMetricFamily | GaugeMetricFamily
BUCKETS_S = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)
"""Upstream's: a decade each."""
REQUEST_BUCKETS_S = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)


QUEUES = {
    'bootstrap-signer': 'bootstrap_signer_queue', 'clusterrole-aggregation': 'ClusterRoleAggregator',
    'csrapproving': 'certificate', 'endpoints': 'endpoint', 'endpointslice': 'endpoint_slice',
    'endpointslicemirroring': 'endpoint_slice_mirroring', 'ephemeralvolume': 'ephemeral_volume',
    'gc': 'garbage_collector_attempt_to_delete', 'nodeipam': 'cidrallocator_node',
    'persistentvolumebinder': 'volumes', 'persistentvolumeclaimbinder': 'claims',
    'persistentvolumeexpander': 'volume_expand', 'replicationcontroller': 'replicationmanager',
    'resourcequota': 'resourcequota_primary', 'rootca': 'root_ca_cert_publisher',
    'serviceaccount-token': 'serviceaccount_tokens_secret', 'stalepoddisruption': 'stale_pod_disruption',
    'tainteviction': 'noexec_taint_pod', 'token-cleaner': 'token_cleaner', 'ttl': 'ttlcontroller',
}  # fmt: skip
"""Controller → what upstream calls its queue, where that differs."""


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


class _Volumes(Collector):
    """Counts the volumes and claims that the binder's caches hold."""

    def __init__(self) -> None:
        self.held: Callable[[], tuple[Iterable[Obj], Iterable[Obj]]] = lambda: ((), ())

    def collect(self) -> Iterator[Family]:
        volumes, claims = self.held()
        where = ['namespace', 'storage_class', 'volume_attributes_class']
        yield from _bound('pv', 'Volumes', ['storage_class'], ((_is_bound(v), (_class_of(v),)) for v in volumes))
        yield from _bound(
            'pvc', 'Claims', where, ((_is_bound(x), (namespace_of(x), _class_of(x), _kind_of(x))) for x in claims)
        )


def _bound(
    what: str, name: str, labels: list[str], counted: Iterable[tuple[bool, tuple[str, ...]]]
) -> Iterator[Family]:
    """counted: of each object whether it is bound, and its labels."""
    counts = Counts(counted)
    for word, yes in (('bound', True), ('unbound', False)):
        text = f'{name} that are {"" if yes else "not "}bound.'
        family = GaugeMetricFamily(f'pv_collector_{word}_{what}_count', text, labels=labels)
        for (is_bound, values), count in counts.items():
            if is_bound is yes:
                family.add_metric(values, count)
        yield family


def _is_bound(obj: Obj) -> bool:
    return bool(get_path(obj, 'status.phase') == 'Bound')


def _class_of(obj: Obj) -> str:
    return str(get_path(obj, 'spec.storageClassName') or '')


def _kind_of(claim: Obj) -> str:
    return str(get_path(claim, 'spec.volumeAttributesClassName') or '')


class Metrics:
    """One set a process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._queues, self._pending, self._volumes = _Queues(), _Pending(), _Volumes()
        for collector in (self._queues, self._pending, self._volumes):
            self.registry.register(collector)
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
        """Report these queues, by controller, from now on (a new term has new ones)."""
        self._queues.queues = {QUEUES.get(name, name): queue for name, queue in queues.items()}
        for name, queue in self._queues.queues.items():
            queue.on_take = self._waited.labels(name).observe

    def watch_scheduler(self, counts: Callable[[], Mapping[str, int]]) -> None:
        """Report what `counts()` says: queue → pods that wait in it."""
        self._pending.counts = counts

    def watch_volumes(self, held: Callable[[], tuple[Iterable[Obj], Iterable[Obj]]]) -> None:
        """Report what `held()` returns: (volumes, claims)."""
        self._volumes.held = held

    def reconciled(self, controller: str, outcome: str, seconds: float) -> None:
        self._reconciles.labels(controller, outcome).inc()
        self._seconds.labels(controller).observe(seconds)
        self._worked.labels(QUEUES.get(controller, controller)).observe(seconds)

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
