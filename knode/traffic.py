"""Requests to the node's server, counted under the kubelet's names. Source: pkg/kubelet/server/metrics/metrics.go."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import Counter, Gauge, Histogram

from kcore.env import Clock
from kcore.metrics import CollectorRegistry
from knode.pods.metrics import CALL_S

LABELS = ('long_running', 'method', 'path', 'server_type')
LONG_RUNNING = frozenset({'exec', 'attach', 'portForward'})


class Traffic:
    def __init__(self, clock: Clock, registry: CollectorRegistry) -> None:
        self._clock = clock
        self._total = Counter(
            'kubelet_http_requests', 'Number of the http requests received since the server started', LABELS,
            registry=registry,
        )  # fmt: skip
        self._seconds = Histogram(
            'kubelet_http_requests_duration_seconds', 'Duration in seconds to serve http requests', LABELS,
            buckets=CALL_S, registry=registry,
        )  # fmt: skip
        self._inflight = Gauge(
            'kubelet_http_inflight_requests', 'Number of the inflight http requests', LABELS, registry=registry
        )

    def counted(self, server_type: str) -> Middleware:
        """The outermost middleware of one of the servers. server_type: readwrite or readonly."""

        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            path = path_of(request)
            labels = str(path in LONG_RUNNING).lower(), request.method, path, server_type
            self._total.labels(*labels).inc()
            began = self._clock.monotonic()
            with self._inflight.labels(*labels).track_inprogress():
                try:
                    return await handler(request)
                finally:
                    self._seconds.labels(*labels).observe(self._clock.monotonic() - began)

        return count


def path_of(request: web.Request) -> str:
    """The fixed beginning of the route, since the rest may be anything: `metrics/cadvisor`, `exec`, else `other`."""
    resource = request.match_info.route.resource
    return resource.canonical.partition('{')[0].strip('/') if resource is not None else 'other'
