"""What a pod asks for and what a node has, in integers.

cpu is counted in millicores, everything else in whole units (bytes, pieces). Rules of the sum: containers run
together; ordinary init containers run one after another before them; restartable init containers (sidecars) start
in order and stay. Source: KEP-753 (sidecars), KEP-688 (overhead), KEP-2837 (pod-level resources).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kcore.meta import quantity

Obj = dict[str, Any]
Amounts = dict[str, int]

CPU, MEMORY, EPHEMERAL, PODS = 'cpu', 'memory', 'ephemeral-storage', 'pods'
DEFAULT_CPU_MILLI = 100
"""Assumed for scoring when a container asks for no cpu, so that many such pods do not pile up on one node."""
DEFAULT_MEMORY = 200 * 1024 * 1024
"""The same for memory, in bytes."""


def parse_amounts(quantities: Mapping[str, Any] | None) -> Amounts:
    """Quantities by resource name as integers."""
    return {k: quantity.milli(q) if k == CPU else quantity.value(q) for k, q in (quantities or {}).items()}


def pod_requests(spec: Obj, *, assume_defaults: bool = False) -> Amounts:
    """The most that the pod uses at any one moment; with `assume_defaults`, the figures that scoring uses."""
    total: Amounts = {}
    for container in spec.get('containers') or ():
        _add(total, _container(container, assume_defaults))
    sidecars: Amounts = {}
    peak: Amounts = {}
    for container in spec.get('initContainers') or ():
        asked = _container(container, assume_defaults)
        if container.get('restartPolicy') == 'Always':
            _add(total, asked)
            _add(sidecars, asked)
            asked = dict(sidecars)
        else:
            _add(asked, sidecars)
        _raise_to(peak, asked)
    _raise_to(total, peak)
    total |= parse_amounts((spec.get('resources') or {}).get('requests'))
    _add(total, parse_amounts(spec.get('overhead')))
    return total


def _container(container: Obj, assume_defaults: bool) -> Amounts:
    asked = parse_amounts((container.get('resources') or {}).get('requests'))
    if assume_defaults:
        asked.setdefault(CPU, DEFAULT_CPU_MILLI)
        asked.setdefault(MEMORY, DEFAULT_MEMORY)
    return asked


def _add(into: Amounts, more: Amounts) -> None:
    for name, amount in more.items():
        into[name] = into.get(name, 0) + amount


def _raise_to(into: Amounts, floor: Amounts) -> None:
    for name, amount in floor.items():
        if amount > into.get(name, 0):
            into[name] = amount
