"""`/stats/summary`: the kubelet's own statistics document. Source: k8s.io/kubelet/pkg/apis/stats/v1alpha1/types.go.

One field is ours: `cpu.windowSeconds` says what `usageNanoCores` is the average of; metrics.k8s.io tells it on.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from kcore.meta.times import format_time
from knode.runtime.shim import host
from knode.stats.model import NS, ContainerUse, PodUse, Snapshot, Use

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


def with_disks(document: Obj, data_dir: Path, at: datetime) -> Obj:
    """The document with file systems and process ids. Blocking."""
    disk = _disk(data_dir, at)
    node = {**document['node'], 'fs': disk, 'runtime': {'imageFs': disk}, 'rlimit': _processes(at)}
    return {**document, 'node': node}


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


def _disk(data_dir: Path, at: datetime) -> Obj:
    found = os.statvfs(data_dir)
    return {
        'time': format_time(at), 'availableBytes': found.f_bavail * found.f_frsize,
        'capacityBytes': found.f_blocks * found.f_frsize,
        'usedBytes': (found.f_blocks - found.f_bfree) * found.f_frsize,
        'inodesFree': found.f_ffree, 'inodes': found.f_files, 'inodesUsed': found.f_files - found.f_ffree,
    }  # fmt: skip


def _processes(at: datetime) -> Obj:
    most = int(host.read_file('/proc/sys/kernel/pid_max'))
    now = int(host.read_file('/proc/loadavg').split()[3].partition(b'/')[2])
    return {'time': format_time(at), 'maxpid': most, 'curproc': now}
