"""What the pod workers count, under the kubelet's names. Source: pkg/kubelet/metrics/metrics.go."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from prometheus_client import Counter, Gauge, Histogram

from kcore.env import Clock
from kcore.metrics import CollectorRegistry
from knode.pods.model import Kind

START_S = (0.5, 1, 2, 3, 4, 5, 6, 8, 10, 20, 30, 45, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600)
"""Bounds of the time that a pod takes to run."""
CONTAINER_TYPES: dict[Kind, str] = {
    'init': 'init_container', 'sidecar': 'init_container', 'main': 'container', 'ephemeral': 'ephemeral_container',
}  # fmt: skip


class KubeletMetrics:
    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry(auto_describe=False)
        self._pods = Counter('kubelet_started_pods', 'Cumulative number of pods started', registry=registry)
        self._pod_errors = Counter(
            'kubelet_started_pods_errors', 'Cumulative number of errors when starting pods', registry=registry
        )
        self._containers = Counter(
            'kubelet_started_containers', 'Cumulative number of containers started', ('container_type',),
            registry=registry,
        )  # fmt: skip
        self._container_errors = Counter(
            'kubelet_started_containers_errors', 'Cumulative number of errors when starting containers',
            ('container_type', 'code'), registry=registry,
        )  # fmt: skip
        self._start = Histogram(
            'kubelet_pod_start_duration_seconds',
            'Duration in seconds from kubelet seeing a pod for the first time to the pod starting to run',
            buckets=START_S, registry=registry,
        )  # fmt: skip
        self._worker = Histogram(
            'kubelet_pod_worker_duration_seconds', 'Duration in seconds to sync a single pod. '
            'Broken down by operation type: create, sync or kill', ('operation_type',), registry=registry,
        )  # fmt: skip
        self._operations = Counter(
            'kubelet_runtime_operations', 'Cumulative number of runtime operations by operation type.',
            ('operation_type',), registry=registry,
        )  # fmt: skip
        self._operation_errors = Counter(
            'kubelet_runtime_operations_errors', 'Cumulative number of runtime operation errors by operation type.',
            ('operation_type',), registry=registry,
        )  # fmt: skip
        self._operation = Histogram(
            'kubelet_runtime_operations_duration_seconds',
            'Duration in seconds of runtime operations. Broken down by operation type.', ('operation_type',),
            registry=registry,
        )  # fmt: skip
        # A counter, but without the suffix that the library gives one.
        self._evictions = Gauge(
            'kubelet_evictions', 'Cumulative number of pod evictions by eviction signal', ('eviction_signal',),
            registry=registry,
        )  # fmt: skip
        self._images = Counter(
            'kubelet_image_garbage_collected',
            'Total number of images garbage collected by the kubelet, whether through disk usage or image age.',
            ('reason',), registry=registry,
        )  # fmt: skip

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

    def synced(self, kind: str, took_s: float) -> None:
        """One turn of a worker. kind: create, sync or kill."""
        self._worker.labels(kind).observe(took_s)

    def evicted(self, signal: str) -> None:
        self._evictions.labels(signal).inc()

    def image_collected(self, reason: str) -> None:
        """reason: `space` or `age`."""
        self._images.labels(reason).inc()
