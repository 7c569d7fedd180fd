"""What controllers count: under upstream's names, and what happened."""

from __future__ import annotations

import asyncio

from kcontrol.kinds import JOBS, STORAGECLASSES
from kcontrol.metrics import Metrics
from kcore.meta.gvk import DEPLOYMENTS, PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, SERVICES
from kcore.meta.objects import get_path
from kcore.metrics import render
from tests.kcontrol.test_settling import CONTAINERS, workload
from tests.kcontrol.virtual import Nodes, Plane, run_virtually

NAMES = {
    'cronjob_controller_job_creation_skew_duration_seconds', 'endpoint_slice_controller_changes_total',
    'endpoint_slice_controller_desired_endpoint_slices', 'endpoint_slice_controller_endpoints_added_per_sync',
    'endpoint_slice_controller_endpoints_desired', 'endpoint_slice_controller_endpoints_removed_per_sync',
    'endpoint_slice_controller_num_endpoint_slices', 'endpoint_slice_controller_syncs_total',
    'endpoint_slice_mirroring_controller_changes_total', 'ephemeral_volume_controller_create_failures_total',
    'ephemeral_volume_controller_create_total', 'garbagecollector_controller_resources_sync_error_total',
    'horizontal_pod_autoscaler_controller_reconciliations_total', 'job_controller_job_pods_creation_total',
    'job_controller_job_pods_finished_total', 'job_controller_job_sync_duration_seconds',
    'job_controller_job_syncs_total', 'job_controller_jobs_finished_total', 'leader_election_master_status',
    'node_collector_evictions_total', 'node_collector_unhealthy_nodes_in_zone',
    'node_collector_update_all_nodes_health_duration_seconds', 'node_collector_update_node_health_duration_seconds',
    'node_collector_zone_health', 'node_collector_zone_size', 'node_ipam_controller_cidrset_cidrs_allocations_total',
    'node_ipam_controller_cidrset_usage_cidrs', 'node_ipam_controller_cirdset_max_cidrs',
    'pod_gc_collector_force_delete_pod_errors_total', 'pod_gc_collector_force_delete_pods_total',
    'pv_collector_bound_pv_count', 'pv_collector_bound_pvc_count', 'pv_collector_unbound_pv_count',
    'pv_collector_unbound_pvc_count', 'rest_client_request_duration_seconds', 'rest_client_requests_total',
    'retroactive_storageclass_errors_total', 'retroactive_storageclass_total',
    'root_ca_cert_publisher_sync_duration_seconds', 'root_ca_cert_publisher_sync_total',
    'running_managed_controllers', 'taint_eviction_controller_pod_deletion_duration_seconds',
    'taint_eviction_controller_pod_deletions_total', 'ttl_after_finished_controller_job_deletion_duration_seconds',
    'workqueue_adds_total', 'workqueue_depth', 'workqueue_longest_running_processor_seconds',
    'workqueue_queue_duration_seconds', 'workqueue_retries_total', 'workqueue_unfinished_work_seconds',
    'workqueue_work_duration_seconds',
}  # fmt: skip


def test_dashboards_find_their_figures():
    text = render(Metrics().registry).decode()
    told = {line.split()[2] for line in text.splitlines() if line.startswith('# TYPE ')}
    assert NAMES - told == set()


TOLD = (
    'job_controller_job_pods_creation_total{reason="new",status="succeeded"} 1.0',
    'job_controller_jobs_finished_total{completion_mode="NonIndexed",reason="CompletionsReached"',
    'endpoint_slice_controller_endpoints_desired 2.0',
    'endpoint_slice_controller_num_endpoint_slices 1.0',
    'endpoint_slice_controller_endpoints_added_per_sync_sum 2.0',
    'node_ipam_controller_cidrset_cidrs_allocations_total{clusterCIDR="127.64.0.0/16"} 1.0',
    'node_ipam_controller_cirdset_max_cidrs{clusterCIDR="127.64.0.0/16"} 256.0',
    'root_ca_cert_publisher_sync_total{code="200"}',
    'pv_collector_bound_pv_count{storage_class="fast"} 1.0',
    'pv_collector_bound_pvc_count{namespace="default",storage_class="fast",volume_attributes_class=""} 1.0',
    'retroactive_storageclass_total 1.0',
    'running_managed_controllers{manager="kube-controller-manager",name="job"} 1.0',
)


def test_figures_tell_what_happened(pki, monkeypatch):
    async def scenario(plane: Plane) -> None:
        nodes = await Nodes(plane).start('a')
        nodes.finish = lambda pod: 'Succeeded' if get_path(pod, 'spec.restartPolicy') == 'Never' else None
        metrics = (await plane.controllers()).metrics
        claim = {'accessModes': ['ReadWriteOnce'], 'resources': {'requests': {'storage': '1Gi'}}}
        volume = {
            'capacity': {'storage': '1Gi'}, 'accessModes': ['ReadWriteOnce'], 'storageClassName': 'fast',
            'hostPath': {'path': '/x'},
        }  # fmt: skip
        default = {'annotations': {'storageclass.kubernetes.io/is-default-class': 'true'}}
        job = {'template': {'spec': {'restartPolicy': 'Never', 'containers': CONTAINERS}}}
        for resource, name, body in (
            (JOBS, 'j', {'spec': job}),
            (DEPLOYMENTS, 'web', {'spec': workload('web', replicas=2)}),
            (SERVICES, 'web', {'spec': {'selector': {'app': 'web'}, 'ports': [{'port': 80}]}}),
            (PERSISTENTVOLUMECLAIMS, 'c', {'spec': claim}),
            (STORAGECLASSES, 'fast', {'metadata': default, 'provisioner': 'x/y'}),
            (PERSISTENTVOLUMES, 'v', {'spec': volume}),
        ):
            meta = {**body.get('metadata', {}), 'name': name} | (
                {'namespace': 'default'} if resource.namespaced else {}
            )
            await plane.admin.create(resource, {**body, 'metadata': meta})
        await asyncio.sleep(60)
        lines = render(metrics.registry).decode().splitlines()
        missing = [wanted for wanted in TOLD if not any(line.startswith(wanted) for line in lines)]
        assert missing == [], [line for line in lines if line.split('{')[0] in {m.split('{')[0] for m in missing}]

    run_virtually(scenario, pki, monkeypatch)
