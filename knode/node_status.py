"""The Node object that describes this machine: pure functions from facts to fields."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kcore.meta.times import format_time

VERSION = 'v1.33.1-kubeling.0.1'
RUNTIME_VERSION = 'process://0.1.0'
PRESSURES: Mapping[str, tuple[tuple[str, str], tuple[str, str]]] = {
    'MemoryPressure': (
        ('KubeletHasInsufficientMemory', 'kubelet has insufficient memory available'),
        ('KubeletHasSufficientMemory', 'kubelet has sufficient memory available'),
    ),
    'DiskPressure': (
        ('KubeletHasDiskPressure', 'kubelet has disk pressure'),
        ('KubeletHasNoDiskPressure', 'kubelet has no disk pressure'),
    ),
    'PIDPressure': (
        ('KubeletHasInsufficientPID', 'kubelet has insufficient PID available'),
        ('KubeletHasSufficientPID', 'kubelet has sufficient PID available'),
    ),
}
"""Condition → reason and message while it holds, and while it does not."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What is known of the machine, once at the start."""

    hostname: str
    cpu: str
    memory: str
    storage: str
    """Quantities."""
    pods: int
    machine_id: str
    boot_id: str
    kernel: str
    os_image: str
    operating_system: str
    architecture: str


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
        'ephemeral-storage': machine.storage,
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


def conditions(
    pressure: Collection[str], ready: str, before: list[dict[str, Any]], now: datetime
) -> list[dict[str, Any]]:
    """pressure: the conditions that hold. ready: why the node is not, empty when it is.

    Transition times are kept while a status stays the same.
    """
    stamp = format_time(now)
    wanted = [(kind, kind in pressure, *PRESSURES[kind][0 if kind in pressure else 1]) for kind in PRESSURES]
    healthy = ('KubeletNotReady', ready) if ready else ('KubeletReady', 'kubelet is posting ready status')
    wanted.append(('Ready', not ready, *healthy))
    old = {c['type']: c for c in before}
    result = []
    for kind, holds, reason, message in wanted:
        value = 'True' if holds else 'False'
        same = kind in old and old[kind].get('status') == value
        result.append(
            {
                'type': kind,
                'status': value,
                'reason': reason,
                'message': message,
                'lastHeartbeatTime': stamp,
                'lastTransitionTime': old[kind]['lastTransitionTime'] if same else stamp,
            }
        )
    return result


def transitions(before: Iterable[Mapping[str, Any]], now: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Reasons of the events that tell of changed conditions. That a new node is not ready yet is no change."""
    old = {c['type']: c['status'] for c in before}
    for c in now:
        kind, holds = c['type'], c['status'] == 'True'
        if old.get(kind) == c['status'] or (kind == 'Ready' and kind not in old and not holds):
            continue
        if kind == 'Ready':
            yield 'NodeReady' if holds else 'NodeNotReady'
        elif kind in PRESSURES:
            yield PRESSURES[kind][0 if holds else 1][0].replace('Kubelet', 'Node', 1)
