"""What a pod asks for, in the integers that nodes are filled with (`kcore.meta.podresources.in_integers`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kcore.meta.podresources import in_integers, pod_total

Obj = Mapping[str, Any]
Amounts = dict[str, int]

CPU, MEMORY, EPHEMERAL, PODS = 'cpu', 'memory', 'ephemeral-storage', 'pods'
DEFAULT_CPU_MILLI = 100
"""Assumed for scoring when a container asks for no cpu, so that many such pods do not pile up on one node."""
DEFAULT_MEMORY = 200 * 1024 * 1024
"""The same for memory, in bytes."""


def pod_requests(spec: Obj, *, assume_defaults: bool = False) -> Amounts:
    """The most that the pod uses at any one moment; with `assume_defaults`, the figures that scoring uses."""
    return pod_total(spec, 'requests', in_integers, _assumed if assume_defaults else None)


def _assumed(container: Obj) -> Amounts:
    asked = in_integers((container.get('resources') or {}).get('requests'))
    asked.setdefault(CPU, DEFAULT_CPU_MILLI)
    asked.setdefault(MEMORY, DEFAULT_MEMORY)
    return asked
