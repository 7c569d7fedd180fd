"""Settings of one node agent."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from kcore.config import Address, Config, IpAddress
from kcore.meta import quantity
from knode.eviction.thresholds import thresholds


def shutdown_phases(text: str) -> dict[int, float]:
    """Seconds by the priority from which on pods have them, in the order of their ends. Raises ValueError."""
    phases: dict[int, float] = {}
    for part in filter(None, text.split(',')):
        priority, equals, seconds = part.partition('=')
        try:
            phases[int(priority)] = float(seconds)
        except ValueError:
            equals = ''
        if not equals or phases[int(priority)] < 0:
            raise ValueError(f'shutdown_grace_period_by_pod_priority: {part!r} is not PRIORITY=SECONDS')
    return dict(sorted(phases.items()))


class NodeConfig(Config):
    """Kubeling node agent: registers a node and runs its pods as processes."""

    model_config = SettingsConfigDict(env_prefix='KNODE_')

    name: str = Field(min_length=1, max_length=253, description='name of the Node object')
    kubeconfig: Path = Field(description='how to reach the API server')
    data_dir: Path = Field(description='where pods live; kept over restarts')
    listen: Address = Field('127.0.0.1:10250', description='HOST:PORT of the kubelet API; the host is the node address')
    tls_cert: Path | None = Field(None, description='serving certificate (PEM)')
    tls_key: Path | None = Field(None, description='its key')
    client_ca: Path | None = Field(None, description='authority of the certificates that callers must show')
    memory_dir: str = Field(
        '/dev/shm',  # noqa: S108 — looked at before it is used (knode.volumes.memory)
        description='directory on a tmpfs for volumes of Secrets and tokens; empty: they lie on disk',
    )
    pod_manifest_path: Path | None = Field(None, description='directory of static pod manifests')
    cpu: str = Field('', description='capacity in cores (default: the machine has)')
    memory: str = Field('', description='capacity of memory (default: the machine has)')
    ephemeral_storage: str = Field('', description='capacity of local storage (default: the disk has)')
    pods: int = Field(110, ge=1, le=10_000, description='most pods at once')
    labels: dict[str, str] = Field(default_factory=dict, description='further node labels, a=b,c=d')
    cgroup_root: str = Field('', description='control group for containers, e.g. /kubeling; empty: none are used')
    pod_pids_limit: int = Field(0, ge=0, description='most processes of a pod, with control groups; 0: any number')
    heartbeat_s: float = Field(10.0, gt=0, description='seconds between renewals of the node lease')
    lease_duration_s: int = Field(40, ge=1, description='seconds after which a silent node is taken for dead')
    status_period_s: float = Field(300.0, gt=0, description='seconds between status reports without news')
    stats_period_s: float = Field(10.0, gt=0, description='seconds between samples of what node and pods use')
    proxy_mode: Literal['userspace', 'none'] = Field(
        'userspace', description='whether this node serves the addresses of Services'
    )
    cluster_dns: IpAddress = Field(
        '', description='address of the Service kube-system/kube-dns, where pods ask for names'
    )
    dns_listen: Address | None = Field(
        None, description='HOST:PORT where this node answers questions that come by that Service; not given: nowhere'
    )
    eviction_hard: str = Field(
        'memory.available<100Mi,nodefs.available<128Mi,nodefs.inodesFree<1%,pid.available<5%',
        description='thresholds at which pods are evicted at once, as the kubelet writes them',
    )
    eviction_soft: str = Field('', description='thresholds at which pods are evicted after a grace period')
    eviction_soft_grace_period: str = Field('', description='that period, e.g. memory.available=1m30s')
    eviction_minimum_reclaim: str = Field(
        '', description='how much more has to become free, e.g. memory.available=50Mi'
    )
    eviction_max_pod_grace_period: int = Field(0, ge=0, description='seconds for pods evicted by a soft threshold')
    eviction_pressure_transition_period_s: float = Field(300.0, ge=0, description='how long a pressure condition lasts')
    image_gc_high_threshold: int = Field(
        85, ge=0, le=100, description='use of the disk in percent from which on unused images are removed; 100: never'
    )
    image_gc_low_threshold: int = Field(80, ge=0, le=100, description='use of the disk at which enough are removed')
    minimum_image_ttl_s: float = Field(120.0, ge=0, description='seconds that an image stays after its last use')
    maximum_image_ttl_s: float = Field(
        0.0, ge=0, description='seconds after its last use in which an image goes although there is room; 0: it stays'
    )
    sync_frequency_s: float = Field(
        60.0, gt=0, description='seconds in which running pods see changes of their ConfigMaps, Secrets and tokens'
    )
    shutdown_grace_period_s: float = Field(
        0.0, ge=0, description='seconds that pods get when the agent is stopped; 0: they go on without it'
    )
    shutdown_grace_period_critical_pods_s: float = Field(
        0.0, ge=0, description='how many of them are kept for critical pods, which end after the others'
    )
    shutdown_grace_period_by_pod_priority: str = Field(
        '', description='instead of these two: seconds for pods from a priority on, the least first, e.g. 0=60,1000=20'
    )
    event_qps: float = Field(50.0, ge=0, description='events sent a second, of containers started and the like; 0: all')
    event_burst: int = Field(100, ge=1, description='how many more at once after a quiet time')
    healthz_listen: Address | None = Field(None, description='HOST:PORT of a plain /healthz (the kubelet: 10248)')
    read_only_listen: Address | None = Field(
        None, description='HOST:PORT of a plain, open, read-only API (the kubelet once: 10255); off unless given'
    )
    authorization_mode: Literal['Certificate', 'Webhook'] = Field(
        'Certificate', description='who may use the kubelet API: its known clients only, or whom the API server lets'
    )

    @model_validator(mode='after')
    def _relations(self) -> Self:
        thresholds(
            self.eviction_hard, self.eviction_soft, self.eviction_soft_grace_period, self.eviction_minimum_reclaim
        )
        for name in ('cpu', 'memory', 'ephemeral_storage'):
            try:
                if getattr(self, name):
                    quantity.parse(getattr(self, name))
            except ValueError as e:
                raise ValueError(f'{name}: {e}') from e
        if self.shutdown_grace_period_critical_pods_s > self.shutdown_grace_period_s:
            raise ValueError('shutdown_grace_period_critical_pods_s must not be greater than shutdown_grace_period_s')
        if shutdown_phases(self.shutdown_grace_period_by_pod_priority) and self.shutdown_grace_period_s:
            raise ValueError('shutdown_grace_period_by_pod_priority stands instead of shutdown_grace_period_s')
        if self.image_gc_low_threshold >= self.image_gc_high_threshold:
            raise ValueError('image_gc_low_threshold must be less than image_gc_high_threshold')
        if self.maximum_image_ttl_s and self.maximum_image_ttl_s <= self.minimum_image_ttl_s:
            raise ValueError('maximum_image_ttl_s must be greater than minimum_image_ttl_s')
        if self.lease_duration_s <= self.heartbeat_s:
            raise ValueError('lease_duration_s must be greater than heartbeat_s')
        if self.proxy_mode == 'none' and (self.cluster_dns or self.dns_listen):
            raise ValueError('cluster_dns and dns_listen need proxy_mode userspace')
        if self.dns_listen and self.dns_listen.endswith(':0'):
            raise ValueError('dns_listen must name a port: others are told of it')
        given = [self.tls_cert, self.tls_key, self.client_ca]
        if any(given) and not all(given):
            raise ValueError('tls_cert, tls_key and client_ca go together')
        return self
