"""Snapshots as Prometheus metrics: `/metrics/resource`, `/metrics/cadvisor` and the agent's own `/metrics`.

Names and labels are upstream's. Source: pkg/kubelet/metrics/collectors/resource_metrics.go, cadvisor
metrics/prometheus.go, pkg/kubelet/metrics/metrics.go.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector as Exposed

from knode.stats.disks import Found, PodSpace, Space
from knode.stats.model import NS, Snapshot, Use
from knode.stats.network import interfaces

Latest = Callable[[], Snapshot | None]
Family = CounterMetricFamily | GaugeMetricFamily
CONTAINER, POD = ('container', 'pod', 'namespace'), ('pod', 'namespace')
CADVISOR = ('container', 'id', 'image', 'name', 'namespace', 'pod')


def _counter(name: str, text: str, labels: Sequence[str] = ()) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, labels=labels)


def _gauge(name: str, text: str, labels: Sequence[str] = ()) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=labels)


class ResourceMetrics(Exposed):
    """What metrics-server scrapes; each value carries the moment it was taken."""

    def __init__(self, latest: Latest) -> None:
        self._latest = latest

    def collect(self) -> Iterable[Family]:
        snapshot = self._latest()
        error = _gauge('resource_scrape_error', '1 if there was an error while getting container metrics, 0 otherwise')
        error.add_metric([], 0.0 if snapshot else 1.0)
        yield error
        if snapshot is not None:
            yield from _both('node', 'the node', (), [((), snapshot.node)])
            containers = [((c.name, p.name, p.namespace), c) for p in snapshot.pods for c in p.containers]
            yield from _both('container', 'the container', CONTAINER, [(k, c.use) for k, c in containers])
            yield from _both('pod', 'the pod', POD, [((p.name, p.namespace), p.use) for p in snapshot.pods])
            started = _gauge(
                'container_start_time_seconds', 'Start time of the container since unix epoch in seconds', CONTAINER
            )
            for key, c in containers:
                started.add_metric(key, c.started_ns / NS)
            yield started


def _both(what: str, who: str, labels: Sequence[str], uses: Iterable[tuple[Sequence[str], Use]]) -> Iterator[Family]:
    cpu = _counter(f'{what}_cpu_usage_seconds', f'Cumulative cpu time consumed by {who} in core-seconds', labels)
    memory = _gauge(f'{what}_memory_working_set_bytes', f'Current working set of {who} in bytes', labels)
    for key, use in uses:
        cpu.add_metric(key, use.cpu_ns / NS, timestamp=use.at.timestamp())
        memory.add_metric(key, use.memory_bytes, timestamp=use.at.timestamp())
    yield cpu
    yield memory


class CadvisorMetrics(Exposed):
    """cAdvisor's view: the machine, each pod and each container as a path of the cgroup tree that it would have."""

    def __init__(
        self, latest: Latest, cores: float, memory_bytes: int, *, disks: Callable[[], Found | None] = lambda: None
    ) -> None:
        self._latest, self._cores, self._memory_bytes, self._disks = latest, cores, memory_bytes, disks

    def collect(self) -> Iterable[Family]:
        cores = _gauge('machine_cpu_cores', 'Number of logical CPU cores.')
        cores.add_metric([], self._cores)
        memory = _gauge('machine_memory_bytes', 'Amount of memory installed on the machine.')
        memory.add_metric([], self._memory_bytes)
        snapshot = self._latest()
        error = _gauge('container_scrape_error', '1 if there was an error while getting container metrics, 0 otherwise')
        error.add_metric([], 0.0 if snapshot else 1.0)
        yield from (cores, memory, error)
        if snapshot is not None:
            yield from _cadvisor(list(_tree(snapshot)))
            yield from _network(snapshot.node.at.timestamp())
            if (found := self._disks()) is not None:
                yield from _disk(snapshot, found)


def _tree(snapshot: Snapshot) -> Iterator[tuple[tuple[str, ...], Use, int]]:
    """(labels, use, start in ns since 1970) of the root, the pods and their containers."""
    yield ('', '/', '', '', '', ''), snapshot.node, 0
    for pod in snapshot.pods:
        path = f'/kubepods/pod{pod.uid}'
        yield (
            ('', path, '', '', pod.namespace, pod.name),
            pod.use,
            min((c.started_ns for c in pod.containers), default=0),
        )
        for c in pod.containers:
            yield (c.name, f'{path}/{c.id}', c.image, c.id, pod.namespace, pod.name), c.use, c.started_ns


def _cadvisor(rows: Sequence[tuple[tuple[str, ...], Use, int]]) -> Iterator[Family]:
    cpu = _counter('container_cpu_usage_seconds', 'Cumulative cpu time consumed in seconds.', (*CADVISOR, 'cpu'))
    usage = _gauge('container_memory_usage_bytes', 'Current memory usage in bytes.', CADVISOR)
    working = _gauge('container_memory_working_set_bytes', 'Current working set in bytes.', CADVISOR)
    rss = _gauge('container_memory_rss', 'Size of RSS in bytes.', CADVISOR)
    processes = _gauge('container_processes', 'Number of processes running inside the container.', CADVISOR)
    seen = _gauge('container_last_seen', 'Last time a container was seen by the exporter', CADVISOR)
    started = _gauge('container_start_time_seconds', 'Start time of the container in seconds since 1970.', CADVISOR)
    for labels, use, started_ns in rows:
        moment = use.at.timestamp()
        cpu.add_metric((*labels, 'total'), use.cpu_ns / NS, timestamp=moment)
        for family in (usage, working, rss):
            family.add_metric(labels, use.memory_bytes, timestamp=moment)
        processes.add_metric(labels, use.processes, timestamp=moment)
        seen.add_metric(labels, int(moment), timestamp=moment)
        if started_ns:
            started.add_metric(labels, started_ns / NS, timestamp=moment)
    yield from (cpu, usage, working, rss, processes, seen, started)


_WAYS = (
    ('bytes', 'bytes'), ('packets', 'packets'), ('errors', 'errors encountered while'),
    ('packets_dropped', 'packets dropped while'),
)  # fmt: skip


def _network(moment: float) -> Iterator[Family]:
    """Of the node alone: its pods have no network of their own."""
    found = interfaces()
    for way, short in (('receive', 'rx'), ('transmit', 'tx')):
        for what, words in _WAYS:
            text = f'Cumulative count of {words} {"received" if way == "receive" else "transmitted"}'
            family = _counter(f'container_network_{way}_{what}', text, (*CADVISOR, 'interface'))
            for i in found:
                value = getattr(i, f'{short}_{what.removeprefix("packets_")}')
                family.add_metric(('', '/', '', '', '', '', i.name), value, timestamp=moment)
            yield family


def _disk(snapshot: Snapshot, found: Found) -> Iterator[Family]:
    labels = (*CADVISOR, 'device')
    rows: list[tuple[tuple[str, ...], Space]] = [(('', '/', '', '', '', '', found.device), found.node)]
    for pod in snapshot.pods:
        parts = found.pods.get(pod.uid, PodSpace())
        rows += [
            ((c.name, f'/kubepods/pod{pod.uid}/{c.id}', c.image, c.id, pod.namespace, pod.name, found.device), part)
            for c in pod.containers
            if (part := parts.rootfs.get(c.name)) is not None
        ]
    usage = _gauge('container_fs_usage_bytes', 'Number of bytes consumed by the container on this filesystem.', labels)
    limit = _gauge('container_fs_limit_bytes', 'Number of bytes that can be consumed on this filesystem.', labels)
    total = _gauge('container_fs_inodes_total', 'Number of Inodes', labels)
    free = _gauge('container_fs_inodes_free', 'Number of available Inodes', labels)
    for key, part in rows:
        values = ((usage, part.used), (limit, part.capacity), (total, part.inodes), (free, part.inodes_free))
        for family, value in values:
            family.add_metric(key, value, timestamp=found.at.timestamp())
    yield from (usage, limit, total, free)


class SpaceMetrics(Exposed):
    """What claims and logs take. A claim has what its file system has, as a kubelet reports of local volumes."""

    def __init__(self, latest: Latest, disks: Callable[[], Found | None]) -> None:
        self._latest, self._disks = latest, disks

    def collect(self) -> Iterable[Family]:
        snapshot, found = self._latest(), self._disks()
        if snapshot is not None and found is not None:
            pods = [(pod, found.pods.get(pod.uid, PodSpace())) for pod in snapshot.pods]
            claims = {(pod.namespace, claim): part for pod, parts in pods for claim, part in parts.claims.values()}
            yield from _claims(claims)
            logs = _gauge(
                'kubelet_container_log_filesystem_used_bytes', "Bytes used by the container's logs on the filesystem.",
                ('uid', 'namespace', 'pod', 'container'),
            )  # fmt: skip
            for pod, parts in pods:
                for name, part in parts.logs.items():
                    logs.add_metric((pod.uid, pod.namespace, pod.name, name), part.used)
            yield logs


_OF_CLAIMS: tuple[tuple[str, str, Callable[[Space], int]], ...] = (
    ('capacity_bytes', 'Capacity in bytes of the volume', lambda s: s.capacity),
    ('available_bytes', 'Number of available bytes in the volume', lambda s: s.available),
    ('used_bytes', 'Number of used bytes in the volume', lambda s: s.used),
    ('inodes', 'Maximum number of inodes in the volume', lambda s: s.inodes),
    ('inodes_free', 'Number of free inodes in the volume', lambda s: s.inodes_free),
    ('inodes_used', 'Number of used inodes in the volume', lambda s: s.inodes_used),
)


def _claims(claims: Mapping[tuple[str, str], Space]) -> Iterator[Family]:
    for name, text, value in _OF_CLAIMS:
        family = _gauge(f'kubelet_volume_stats_{name}', text, ('namespace', 'persistentvolumeclaim'))
        for key, part in claims.items():
            family.add_metric(key, value(part))
        yield family


LIFECYCLES, ORIGINS, STATIC = ('sync', 'terminating', 'terminated'), ('desired', 'orphan'), ('', 'true')


@dataclass(frozen=True, slots=True)
class Counts:
    sandboxes: int
    running: int
    exited: int
    """Containers."""
    ephemeral: int
    """Containers that are asked for."""
    working: Mapping[tuple[str, str, str], int]
    """Pods by lifecycle, origin and whether they are static."""

    def pods(self, static: str, *lifecycles: str) -> int:
        return sum(self.working.get((cycle, 'desired', static), 0) for cycle in lifecycles)


class AgentMetrics(Exposed):
    """What of the kubelet's own figures is counted when somebody asks."""

    def __init__(self, node_name: str, counts: Callable[[], Counts]) -> None:
        self._node_name, self._counts = node_name, counts

    def collect(self) -> Iterable[Family]:
        name = _gauge('kubelet_node_name', "The node's name. The count is always 1.", ('node',))
        name.add_metric([self._node_name], 1)
        now = self._counts()
        sandboxes = _gauge('kubelet_running_pods', 'Number of pods that have a running pod sandbox')
        sandboxes.add_metric([], now.sandboxes)
        containers = _gauge('kubelet_running_containers', 'Number of containers by state', ('container_state',))
        containers.add_metric(['running'], now.running)
        containers.add_metric(['exited'], now.exited)
        desired = _gauge(
            'kubelet_desired_pods', 'The number of pods the kubelet is being instructed to run.', ('static',)
        )
        active = _gauge('kubelet_active_pods', 'The number of pods that have not ended.', ('static',))
        for static in STATIC:
            desired.add_metric([static], now.pods(static, *LIFECYCLES))
            active.add_metric([static], now.pods(static, 'sync', 'terminating'))
        mirrors = _gauge('kubelet_mirror_pods', 'The number of mirror pods the kubelet will try to create')
        mirrors.add_metric([], now.pods('true', *LIFECYCLES))
        working = _gauge(
            'kubelet_working_pods', 'Number of pods the kubelet is actually running, by lifecycle phase, whether the '
            'pod is desired or was removed from the API meanwhile, and whether it is static.',
            ('lifecycle', 'config', 'static'),
        )  # fmt: skip
        for key in itertools.product(LIFECYCLES, ORIGINS, STATIC):
            working.add_metric(key, now.working.get(key, 0))
        ephemeral = _gauge(
            'kubelet_managed_ephemeral_containers',
            'Current number of ephemeral containers in pods managed by this kubelet.',
        )
        ephemeral.add_metric([], now.ephemeral)
        yield from (name, sandboxes, containers, desired, active, mirrors, working, ephemeral)
