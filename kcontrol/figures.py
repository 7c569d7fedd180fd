"""What single controllers and the scheduler count, under the names that dashboards know from upstream.

Each figure is declared once, here; a controller says `c.figures.count(JOBS_FINISHED, …)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from kcore.metrics import CollectorRegistry


@dataclass(frozen=True, slots=True)
class Figure:
    """A metric; `buckets` make it a histogram, `gauge` a gauge, else it is a counter (`_total` is added)."""

    name: str
    text: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    gauge: bool = False


def _doubling(first: float, count: int) -> tuple[float, ...]:
    return tuple(first * 2**n for n in range(count))


COMPLETION = ('completion_mode', 'result')
JOB_SYNCS = Figure('job_controller_job_syncs', 'Passes over a Job.', (*COMPLETION, 'action'))
JOB_SYNC_S = Figure(
    'job_controller_job_sync_duration_seconds', 'Length of a pass over a Job.', (*COMPLETION, 'action'),
    _doubling(0.004, 15),
)  # fmt: skip
JOBS_FINISHED = Figure('job_controller_jobs_finished', 'Jobs that ended.', (*COMPLETION, 'reason'))
JOB_PODS_FINISHED = Figure('job_controller_job_pods_finished', 'Pods of Jobs that ended and were counted.', COMPLETION)
JOB_PODS_CREATED = Figure(
    'job_controller_job_pods_creation', 'Pods that Jobs asked for, and why now.', ('reason', 'status')
)  # fmt: skip
TTL_DELETION_S = Figure(
    'ttl_after_finished_controller_job_deletion_duration_seconds', 'From the end of its time to live to deletion.',
    buckets=_doubling(0.1, 14),
)  # fmt: skip
CRONJOB_SKEW_S = Figure(
    'cronjob_controller_job_creation_skew_duration_seconds', 'From when a Job was due to its creation.',
    buckets=_doubling(1.0, 10),
)  # fmt: skip
SLICE_CHANGES = Figure('endpoint_slice_controller_changes', 'Writes of EndpointSlices.', ('operation',))
SLICES = Figure('endpoint_slice_controller_num_endpoint_slices', 'EndpointSlices there are.', gauge=True)
SLICES_WANTED = Figure(
    'endpoint_slice_controller_desired_endpoint_slices', 'EndpointSlices there would be at the least.', gauge=True
)  # fmt: skip
ENDPOINTS_WANTED = Figure('endpoint_slice_controller_endpoints_desired', 'Endpoints there should be.', gauge=True)
ENDPOINTS_ADDED = Figure(
    'endpoint_slice_controller_endpoints_added_per_sync', 'Endpoints that a pass added.', buckets=_doubling(2, 15)
)  # fmt: skip
ENDPOINTS_REMOVED = Figure(
    'endpoint_slice_controller_endpoints_removed_per_sync', 'Endpoints that a pass removed.', buckets=_doubling(2, 15)
)  # fmt: skip
MIRROR_CHANGES = Figure(
    'endpoint_slice_mirroring_controller_changes', 'Writes of mirroring EndpointSlices.', ('operation',)
)  # fmt: skip
SLICE_SYNCS = Figure('endpoint_slice_controller_syncs', 'Passes over a Service.', ('result',))
EVICTED_PODS = Figure('taint_eviction_controller_pod_deletions', 'Pods deleted because of a taint.')
EVICTION_LATENESS_S = Figure(
    'taint_eviction_controller_pod_deletion_duration_seconds', 'From when a taint took effect to the deletion.',
    buckets=(0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0, 120.0, 180.0, 240.0),
)  # fmt: skip
FORCED_DELETIONS = Figure(
    'pod_gc_collector_force_delete_pods', 'Pods deleted because nobody else would.', ('namespace', 'reason')
)  # fmt: skip
FORCED_ERRORS = Figure(
    'pod_gc_collector_force_delete_pod_errors', 'Such deletions that failed.', ('namespace', 'reason')
)  # fmt: skip
GC_SYNC_ERRORS = Figure(
    'garbagecollector_controller_resources_sync_error', 'Failures to learn which kinds there are.'
)  # fmt: skip
CIDRS_ALLOCATED = Figure(
    'node_ipam_controller_cidrset_cidrs_allocations', 'Networks given to nodes.', ('clusterCIDR',)
)  # fmt: skip
CIDRS_USED = Figure(
    'node_ipam_controller_cidrset_usage_cidrs', 'Share of the networks that is given.', ('clusterCIDR',), gauge=True
)  # fmt: skip
# Upstream's spelling.
CIDRS_MAX = Figure('node_ipam_controller_cirdset_max_cidrs', 'Networks there are.', ('clusterCIDR',), gauge=True)
CLAIMS_MADE = Figure('ephemeral_volume_controller_create', 'Claims asked for.')
CLAIMS_NOT_MADE = Figure('ephemeral_volume_controller_create_failures', 'Claims that could not be made.')
LATE_CLASSES = Figure('retroactive_storageclass', 'Claims that were given the default class after their creation.')
LATE_CLASS_ERRORS = Figure('retroactive_storageclass_errors', 'Claims that could not be given it.')
ROOT_CA_SYNCS = Figure('root_ca_cert_publisher_sync', 'Looks at a namespace.', ('code',))
ROOT_CA_SYNC_S = Figure(
    'root_ca_cert_publisher_sync_duration_seconds', 'Length of a look at a namespace.', ('code',), _doubling(0.001, 15)
)  # fmt: skip
RUNNING = Figure('running_managed_controllers', '1 while a controller runs.', ('name', 'manager'), gauge=True)
NODES_HEALTH_S = Figure(
    'node_collector_update_all_nodes_health_duration_seconds', 'Length of a look at all nodes.',
    buckets=tuple(0.01 * 4**n for n in range(8)),
)  # fmt: skip
NODE_HEALTH_S = Figure(
    'node_collector_update_node_health_duration_seconds', 'Length of a look at a node.',
    buckets=tuple(0.001 * 4**n for n in range(8)),
)  # fmt: skip
ZONE_SIZE = Figure('node_collector_zone_size', 'Nodes of a zone.', ('zone',), gauge=True)
ZONE_HEALTH = Figure('node_collector_zone_health', 'Healthy nodes of a zone in percent.', ('zone',), gauge=True)
ZONE_SICK = Figure('node_collector_unhealthy_nodes_in_zone', 'Nodes of a zone not ready.', ('zone',), gauge=True)
NODE_EVICTIONS = Figure('node_collector_evictions', 'Nodes whose pods were told to go.', ('zone',))
HPA_PASSES = Figure(
    'horizontal_pod_autoscaler_controller_reconciliations', 'Passes over an autoscaler.', ('action', 'error')
)
HPA_PASS_S = Figure(
    'horizontal_pod_autoscaler_controller_reconciliation_duration_seconds', 'Length of a pass over an autoscaler.',
    ('action', 'error'), _doubling(0.001, 15),
)  # fmt: skip
SCHEDULE_ATTEMPTS = Figure('scheduler_schedule_attempts', 'Decisions about pods.', ('result', 'profile'))
SCHEDULE_S = Figure(
    'scheduler_scheduling_attempt_duration_seconds', 'Length of a decision.', ('result', 'profile'),
    _doubling(0.001, 15),
)  # fmt: skip
PREEMPTION_ATTEMPTS = Figure('scheduler_preemption_attempts', 'Decisions to make room.')
PREEMPTION_VICTIMS = Figure('scheduler_preemption_victims', 'Pods chosen to make room.', buckets=_doubling(1.0, 7))

FIGURES = tuple(value for value in list(globals().values()) if isinstance(value, Figure))


class Figures:
    """All of the above, in one registry."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._made: Mapping[Figure, MetricWrapperBase] = {
            figure: _make(figure, registry if registry is not None else CollectorRegistry()) for figure in FIGURES
        }

    def count(self, figure: Figure, *labels: str, by: float = 1) -> None:
        found = self._of(figure, labels)
        if isinstance(found, Counter):
            found.inc(by)

    def observe(self, figure: Figure, value: float, *labels: str) -> None:
        """A value of a histogram; the value of a gauge."""
        found = self._of(figure, labels)
        if isinstance(found, Histogram):
            found.observe(value)
        elif isinstance(found, Gauge):
            found.set(value)

    def _of(self, figure: Figure, labels: tuple[str, ...]) -> MetricWrapperBase:
        made = self._made[figure]
        return made.labels(*labels) if figure.labels else made


def _make(figure: Figure, registry: CollectorRegistry) -> MetricWrapperBase:
    if figure.buckets:
        return Histogram(figure.name, figure.text, figure.labels, buckets=figure.buckets, registry=registry)
    return (Gauge if figure.gauge else Counter)(figure.name, figure.text, figure.labels, registry=registry)
