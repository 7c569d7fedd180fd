"""Figures under upstream's names, in a registry of this server's own."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from kcore.metrics import CollectorRegistry

BUCKETS_S = (0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60)


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ('verb', 'group', 'version', 'resource', 'subresource', 'scope', 'component')
        self.duration = Histogram(
            'apiserver_request_duration_seconds', 'Response latency of requests that are not watches.', labels,
            buckets=BUCKETS_S, registry=self.registry,
        )  # fmt: skip
        self.requests = Counter(
            'apiserver_request_total', 'Requests by code.', (*labels, 'code'), registry=self.registry
        )
        self.inflight = Gauge(
            'apiserver_current_inflight_requests', 'Requests being served.', ('request_kind',), registry=self.registry
        )
        self.longrunning = Gauge(
            'apiserver_longrunning_requests', 'Watches and streams open.', ('verb', 'resource'), registry=self.registry
        )
        self.watch_events = Counter(
            'apiserver_watch_events_total', 'Watch events sent.', ('resource',), registry=self.registry
        )
        self._children: dict[tuple[str, ...], tuple[object, object]] = {}

    def observe(self, labels: tuple[str, ...], code: int, seconds: float) -> None:
        """Count one request; `labels` in the order verb, group, version, resource, subresource, scope."""
        key = (*labels, str(code))
        found = self._children.get(key)
        if found is None:
            # Looking a child up by labels costs more than counting; unknown resources never get here.
            found = self._children[key] = (
                self.duration.labels(*labels, 'apiserver'),
                self.requests.labels(*labels, 'apiserver', str(code)),
            )
        duration, requests = found
        duration.observe(seconds)  # type: ignore[attr-defined]
        requests.inc()  # type: ignore[attr-defined]
