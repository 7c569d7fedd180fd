"""`/metrics/probes`: outcomes of probes, by container. Source: pkg/kubelet/prober/prober_manager.go."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

from kcore.metrics import CollectorRegistry

BY_CONTAINER = ('probe_type', 'container', 'pod', 'namespace')


class ProbeMetrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._total = Counter(
            'prober_probe', 'Cumulative number of a liveness, readiness or startup probe for a container by result.',
            ('probe_type', 'result', 'container', 'pod', 'namespace', 'pod_uid'), registry=self.registry,
        )  # fmt: skip
        self._duration = Histogram(
            'prober_probe_duration_seconds', 'Duration in seconds for a probe response.', BY_CONTAINER,
            registry=self.registry,
        )  # fmt: skip

    def observe(self, kind: str, container: tuple[str, str, str, str], took_s: float, *, passed: bool) -> None:
        """container:  its name, its pod's name, namespace and uid."""
        name, pod, namespace, uid = container
        result = 'successful' if passed else 'failed'
        self._total.labels(kind, result, name, pod, namespace, uid).inc()
        self._duration.labels(kind, name, pod, namespace).observe(took_s)

    def forget(self, container: tuple[str, str, str, str]) -> None:
        """Its probes have ended: the series must not outlive it."""
        name, pod, namespace, uid = container
        where = {'container': name, 'pod': pod, 'namespace': namespace}
        self._total.remove_by_labels({**where, 'pod_uid': uid})
        self._duration.remove_by_labels(where)
