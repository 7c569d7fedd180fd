"""The Node object that describes this machine: pure functions from facts to fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kcore.meta.times import format_time

VERSION = 'v1.33.1-kubeling.0.1'
RUNTIME_VERSION = 'process://0.1.0'


@dataclass(frozen=True, slots=True)
class Machine:
    """What is known of the machine, once at the start."""

    hostname: str
    cpu: str
    memory: str
    """Quantities."""
    storage_bytes: int
    pods: int
    machine_id: str
    boot_id: str
    kernel: str
    os_image: str
    operating_system: str
    architecture: str


@dataclass(frozen=True, slots=True)
class Pressure:
    """Why the node should get no more pods; empty: no reason."""

    memory: str = ''
    disk: str = ''
    pids: str = ''


def labels(name: str, machine: Machine, extra: Mapping[str, str]) -> dict[str, str]:
    return {
        'kubernetes.io/hostname': name,
        'kubernetes.io/os': machine.operating_system,
        'kubernetes.io/arch': machine.architecture,
        'beta.kubernetes.io/os': machine.operating_system,
        'beta.kubernetes.io/arch': machine.architecture,
        **extra,
    }


def resources(machine: Machine) -> dict[str, str]:
    """Capacity and allocatable: nothing is reserved for the system."""
    return {
        'cpu': machine.cpu,
        'memory': machine.memory,
        'ephemeral-storage': f'{machine.storage_bytes // 1024}Ki',
        'pods': str(machine.pods),
    }


def node_status(machine: Machine, address: str, port: int, images: list[dict[str, Any]]) -> dict[str, Any]:
    """Everything but the conditions."""
    return {
        'capacity': resources(machine),
        'allocatable': resources(machine),
        'addresses': [{'type': 'InternalIP', 'address': address}, {'type': 'Hostname', 'address': machine.hostname}],
        'daemonEndpoints': {'kubeletEndpoint': {'Port': port}},
        'nodeInfo': {
            'architecture': machine.architecture,
            'bootID': machine.boot_id,
            'containerRuntimeVersion': RUNTIME_VERSION,
            'kernelVersion': machine.kernel,
            'kubeProxyVersion': '',
            'kubeletVersion': VERSION,
            'machineID': machine.machine_id,
            'operatingSystem': machine.operating_system,
            'osImage': machine.os_image,
            'systemUUID': machine.machine_id,
        },
        'images': images,
    }


def conditions(pressure: Pressure, ready: str, before: list[dict[str, Any]], now: datetime) -> list[dict[str, Any]]:
    """ready: why the node is not, empty when it is. Transition times are kept while a status stays the same."""
    stamp = format_time(now)
    wanted = (
        ('MemoryPressure', bool(pressure.memory), 'KubeletHasInsufficientMemory', 'KubeletHasSufficientMemory',
         pressure.memory or 'kubelet has sufficient memory available'),
        ('DiskPressure', bool(pressure.disk), 'KubeletHasDiskPressure', 'KubeletHasNoDiskPressure',
         pressure.disk or 'kubelet has no disk pressure'),
        ('PIDPressure', bool(pressure.pids), 'KubeletHasInsufficientPID', 'KubeletHasSufficientPID',
         pressure.pids or 'kubelet has sufficient PID available'),
        ('Ready', not ready, 'KubeletReady', 'KubeletNotReady', ready or 'kubelet is posting ready status'),
    )  # fmt: skip
    old = {c['type']: c for c in before}
    result = []
    for kind, holds, yes, no, message in wanted:
        value = 'True' if holds else 'False'
        same = kind in old and old[kind].get('status') == value
        result.append(
            {
                'type': kind,
                'status': value,
                'reason': yes if holds else no,
                'message': message,
                'lastHeartbeatTime': stamp,
                'lastTransitionTime': old[kind]['lastTransitionTime'] if same else stamp,
            }
        )
    return result
