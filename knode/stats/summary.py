"""`/stats/summary`: the kubelet's own statistics document. Source: k8s.io/kubelet/pkg/apis/stats/v1alpha1/types.go.

One field is ours: `cpu.windowSeconds` says what `usageNanoCores` is the average of; metrics.k8s.io tells it on.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import psutil

from kcore.meta.times import format_time
from knode.runtime.shim import host
from knode.stats.disks import Found, PodSpace, Space
from knode.stats.model import NS, ContainerUse, PodUse, Snapshot, Use
from knode.stats.network import Interface, interfaces

Obj = dict[str, Any]


def summary(snapshot: Snapshot, node_name: str, capacity_bytes: int) -> Obj:
    """What is known of processor and memory."""
    agent: Obj = {'name': 'kubelet', 'startTime': _boot(), **_use(snapshot.agent)}
    node = snapshot.node
    memory = {**_memory(node), 'availableBytes': max(0, capacity_bytes - node.memory_bytes)}
    return {
        'node': {
            'nodeName': node_name, 'startTime': _boot(), 'cpu': _cpu(node), 'memory': memory,
            'systemContainers': [agent],
        },
        'pods': [_pod(p) for p in snapshot.pods],
    }  # fmt: skip


def with_disks(document: Obj, found: Found) -> Obj:
    """The document with file systems, network and process ids."""
    disk = _space(found.node, found.at)
    network = interfaces()
    node = {
        **document['node'], 'fs': disk, 'runtime': {'imageFs': disk, 'containerFs': disk},
        'rlimit': _processes(found.at),
    }  # fmt: skip
    if network:
        node['network'] = {
            'time': format_time(found.at), **_interface(network[0]), 'interfaces': [_interface(i) for i in network],
        }  # fmt: skip
    return {**document, 'node': node, 'pods': [_on_disk(pod, found) for pod in document['pods']]}


def _on_disk(pod: Obj, found: Found) -> Obj:
    parts = found.pods.get(pod['podRef']['uid'], PodSpace())
    containers = []
    for c in pod['containers']:
        kinds = {'rootfs': parts.rootfs.get(c['name']), 'logs': parts.logs.get(c['name'])}
        containers.append({**c, **{k: _space(part, found.at) for k, part in kinds.items() if part is not None}})
    volumes = [{**_space(part, found.at), 'name': name} for name, part in parts.volumes.items()]
    for name, (claim, part) in parts.claims.items():
        ref = {'name': claim, 'namespace': pod['podRef']['namespace']}
        volumes.append({**_space(part, found.at), 'name': name, 'pvcRef': ref})
    volumes.sort(key=lambda v: v['name'])
    own = [*parts.rootfs.values(), *parts.logs.values(), *(parts.volumes[name] for name in parts.on_disk)]
    total = found.node.part(sum(part.used for part in own), sum(part.inodes_used for part in own))
    more: Obj = {'volume': volumes} if volumes else {}
    return {**pod, 'containers': containers, **more, 'ephemeral-storage': _space(total, found.at)}


def _boot() -> str:
    return format_time(datetime.fromtimestamp(psutil.boot_time(), UTC))


def _cpu(use: Use) -> Obj:
    found: Obj = {'time': format_time(use.at), 'usageCoreNanoSeconds': use.cpu_ns}
    if use.nano_cores is not None:
        found |= {'usageNanoCores': use.nano_cores, 'windowSeconds': round(use.window_s, 3)}
    return found


def _memory(use: Use) -> Obj:
    size = use.memory_bytes
    return {'time': format_time(use.at), 'usageBytes': size, 'workingSetBytes': size, 'rssBytes': size}


def _use(use: Use) -> Mapping[str, Obj]:
    return {'cpu': _cpu(use), 'memory': _memory(use)}


def _pod(pod: PodUse) -> Obj:
    return {
        'podRef': {'name': pod.name, 'namespace': pod.namespace, 'uid': pod.uid},
        'startTime': pod.start_time,
        'containers': [_container(c) for c in pod.containers],
        **_use(pod.use),
        'process_stats': {'process_count': pod.use.processes},
    }


def _container(c: ContainerUse) -> Obj:
    return {'name': c.name, 'startTime': format_time(datetime.fromtimestamp(c.started_ns / NS, UTC)), **_use(c.use)}


def _space(part: Space, at: datetime) -> Obj:
    return {
        'time': format_time(at), 'availableBytes': part.available, 'capacityBytes': part.capacity,
        'usedBytes': part.used, 'inodesFree': part.inodes_free, 'inodes': part.inodes, 'inodesUsed': part.inodes_used,
    }  # fmt: skip


def _interface(i: Interface) -> Obj:
    return {
        'name': i.name, 'rxBytes': i.rx_bytes, 'rxErrors': i.rx_errors, 'txBytes': i.tx_bytes, 'txErrors': i.tx_errors,
    }  # fmt: skip


def _processes(at: datetime) -> Obj:
    most = int(host.read_file('/proc/sys/kernel/pid_max'))
    now = int(host.read_file('/proc/loadavg').split()[3].partition(b'/')[2])
    return {'time': format_time(at), 'maxpid': most, 'curproc': now}
