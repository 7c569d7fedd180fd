"""What the pod workers count, under the kubelet's names. Source: pkg/kubelet/metrics/metrics.go."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from prometheus_client import Counter, Gauge, Histogram

from kcore.env import Clock
from kcore.metrics import CollectorRegistry
from knode.pods.model import Kind

START_S = (0.5, 1, 2, 3, 4, 5, 6, 8, 10, 20, 30, 45, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600)
"""Bounds of the time that a pod takes to run."""
CALL_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Bounds of what upstream gives no others: Go's default ones."""
OPERATION_S = tuple(0.005 * 2.5**n for n in range(14))
STATUS_S = (0.010, 0.050, 0.100, 0.500, 1, 5, 10, 20, 30, 45, 60)
PULL_S = (1, 5, 10, 20, 30, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600)
MB = 1 << 20
IMAGE_SIZES = (
    (0, '0-10MB'), (10 * MB, '10MB-100MB'), (100 * MB, '100MB-500MB'), (500 * MB, '500MB-1GB'), (1024 * MB, '1GB-5GB'),
    (5120 * MB, '5GB-10GB'), (10240 * MB, '10GB-20GB'), (20480 * MB, '20GB-30GB'), (30720 * MB, '30GB-40GB'),
    (40960 * MB, '40GB-60GB'), (61440 * MB, '60GB-100GB'), (102400 * MB, 'GT100GB'),
)  # fmt: skip
"""Least bytes, and how such a size is labelled."""
CONTAINER_TYPES: dict[Kind, str] = {
    'init': 'init_container', 'sidecar': 'init_container', 'main': 'container', 'ephemeral': 'ephemeral_container',
}  # fmt: skip


class KubeletMetrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._count_pods()
        self._count_starts()
        self._count_runtime()
        self._count_node()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f'kubelet_{name}', text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f'kubelet_{name}', text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str, buckets: Sequence[float] = CALL_S) -> Histogram:
        return Histogram(f'kubelet_{name}', text, labels, buckets=buckets, registry=self.registry)

    def _count_pods(self) -> None:
        self._pods = self._counter('started_pods', 'Cumulative number of pods started')
        self._pod_errors = self._counter('started_pods_errors', 'Cumulative number of errors when starting pods')
        self._containers = self._counter(
            'started_containers', 'Cumulative number of containers started', 'container_type'
        )
        self._container_errors = self._counter(
            'started_containers_errors',
            'Cumulative number of errors when starting containers',
            'container_type',
            'code',
        )
        self._per_pod = self._histogram(
            'containers_per_pod_count', 'The number of containers per pod.', buckets=(1, 2, 4, 8, 16)
        )
        self._rejections = self._counter(
            'admission_rejections', 'Cumulative number pod admission rejections by the Kubelet.', 'reason'
        )
        self._orphans = self._counter(
            'orphaned_runtime_pods', 'Number of pods that have been detected in the container runtime without being '
            'already known to the pod worker.',
        )  # fmt: skip

    def _count_starts(self) -> None:
        self._start = self._histogram(
            'pod_start_duration_seconds', 'Duration in seconds from kubelet seeing a pod for the first time to the pod '
            'starting to run', buckets=START_S,
        )  # fmt: skip
        until = 'measured from pod creation timestamp to when all its containers are reported as started via watch'
        self._since_creation = self._histogram(
            'pod_start_total_duration_seconds', 'Duration in seconds to start a pod since creation, including time to '
            f'pull images and run init containers, {until}', buckets=START_S,
        )  # fmt: skip
        self._since_creation_but_pulls = self._histogram(
            'pod_start_sli_duration_seconds', 'Duration in seconds to start a pod, excluding time to pull images, '
            f'{until}', buckets=START_S,
        )  # fmt: skip
        self._worker = self._histogram(
            'pod_worker_duration_seconds', 'Duration in seconds to sync a single pod. Broken down by operation type: '
            'create, sync or kill', 'operation_type',
        )  # fmt: skip
        self._worker_start = self._histogram(
            'pod_worker_start_duration_seconds', 'Duration in seconds from kubelet seeing a pod to starting a worker.'
        )
        self._status = self._histogram(
            'pod_status_sync_duration_seconds', 'Duration in seconds to sync a pod status update. Measures time from '
            'detection of a change to pod status until the API is successfully updated for that pod, even if several '
            'changes to pod status occur in between.', buckets=STATUS_S,
        )  # fmt: skip

    def _count_runtime(self) -> None:
        self._operations = self._counter(
            'runtime_operations', 'Cumulative number of runtime operations by operation type.', 'operation_type'
        )
        self._operation_errors = self._counter(
            'runtime_operations_errors', 'Cumulative number of runtime operation errors by operation type.',
            'operation_type',
        )  # fmt: skip
        self._operation = self._histogram(
            'runtime_operations_duration_seconds', 'Duration in seconds of runtime operations. Broken down by '
            'operation type.', 'operation_type', buckets=OPERATION_S,
        )  # fmt: skip
        self._sandbox = self._histogram(
            'run_podsandbox_duration_seconds', 'Duration in seconds of the run_podsandbox operations. Broken down by '
            'RuntimeClass.Handler.', 'runtime_handler',
        )  # fmt: skip
        self._sandbox_errors = self._counter(
            'run_podsandbox_errors', 'Cumulative number of the run_podsandbox operation errors by '
            'RuntimeClass.Handler.', 'runtime_handler',
        )  # fmt: skip
        self._images = self._counter(
            'image_garbage_collected', 'Total number of images garbage collected by the kubelet, whether through disk '
            'usage or image age.', 'reason',
        )  # fmt: skip
        self._pulls = self._histogram(
            'image_pull_duration_seconds',
            'Duration in seconds to pull an image.',
            'image_size_in_bytes',
            buckets=PULL_S,
        )

    def _count_node(self) -> None:
        # Counters, but without the suffix that the library gives one.
        self._evictions = self._gauge(
            'evictions', 'Cumulative number of pod evictions by eviction signal', 'eviction_signal'
        )
        self._preemptions = self._gauge(
            'preemptions', 'Cumulative number of pod preemptions by preemption resource', 'preemption_signal'
        )
        self._stats_age = self._histogram(
            'eviction_stats_age_seconds', 'Time between when stats are collected, and when pod is evicted based on '
            'those stats by eviction signal', 'eviction_signal',
        )  # fmt: skip
        self._shutdown_start = self._gauge(
            'graceful_shutdown_start_time_seconds', 'Last graceful shutdown start time since unix epoch in seconds'
        )
        self._shutdown_end = self._gauge(
            'graceful_shutdown_end_time_seconds', 'Last graceful shutdown end time since unix epoch in seconds'
        )

    @contextlib.contextmanager
    def operation(self, kind: str, clock: Clock) -> Iterator[None]:
        """One call of a runtime driver. kind: as the kubelet names it, e.g. `start_container`."""
        began = clock.monotonic()
        self._operations.labels(kind).inc()
        try:
            yield
        except BaseException:
            self._operation_errors.labels(kind).inc()
            raise
        finally:
            self._operation.labels(kind).observe(clock.monotonic() - began)

    @contextlib.contextmanager
    def sandbox(self, handler: str, clock: Clock) -> Iterator[None]:
        """One sandbox is made. handler: of the pod's RuntimeClass; empty: it has none."""
        began = clock.monotonic()
        try:
            with self.operation('run_podsandbox', clock):
                yield
        except BaseException:
            self._sandbox_errors.labels(handler).inc()
            raise
        self._sandbox.labels(handler).observe(clock.monotonic() - began)

    def pod_seen(self, containers: int) -> None:
        self._per_pod.observe(containers)

    def worker_began(self, after_s: float) -> None:
        self._worker_start.observe(after_s)

    def pod_rejected(self, reason: str) -> None:
        self._rejections.labels(reason).inc()

    def orphan_found(self) -> None:
        self._orphans.inc()

    def pod_started(self, *, failed: bool = False) -> None:
        """A sandbox has been made, or could not be."""
        self._pods.inc()
        if failed:
            self._pod_errors.inc()

    def container_started(self, kind: Kind, error: str = '') -> None:
        """error: the reason of a failure, as the container's status names it."""
        self._containers.labels(CONTAINER_TYPES[kind]).inc()
        if error:
            self._container_errors.labels(CONTAINER_TYPES[kind], error).inc()

    def pod_runs(self, after_s: float) -> None:
        self._start.observe(after_s)

    def pod_observed(self, after_s: float, pulls_s: float) -> None:
        """The API shows for the first time that all of a pod runs. after_s: since its creation."""
        self._since_creation.observe(after_s)
        self._since_creation_but_pulls.observe(max(0.0, after_s - pulls_s))

    def status_sent(self, after_s: float) -> None:
        self._status.observe(after_s)

    def synced(self, kind: str, took_s: float) -> None:
        """One turn of a worker. kind: create, sync or kill."""
        self._worker.labels(kind).observe(took_s)

    def evicted(self, signal: str, stats_age_s: float) -> None:
        self._evictions.labels(signal).inc()
        self._stats_age.labels(signal).observe(stats_age_s)

    def preempted(self, resource: str) -> None:
        self._preemptions.labels(resource).inc()

    def shutdown_began(self, at: float) -> None:
        """at: wall seconds."""
        self._shutdown_start.set(at)
        self._shutdown_end.set(0)

    def shutdown_ended(self, at: float) -> None:
        self._shutdown_end.set(at)

    def image_pulled(self, took_s: float, size_bytes: int) -> None:
        label = next(label for least, label in reversed(IMAGE_SIZES) if size_bytes >= least)
        self._pulls.labels(label).observe(took_s)

    def image_collected(self, reason: str) -> None:
        """reason: `space` or `age`."""
        self._images.labels(reason).inc()
