"""A pod's class of service. Source: pkg/apis/core/v1/helper/qos."""

from __future__ import annotations

from typing import Any

from kapi.registry.kind import Obj
from kcore.meta.quantity import QuantityError, parse

COMPUTE = ('cpu', 'memory')


def qos_class(pod: Obj) -> str:
    """Guaranteed: limits = requests for cpu and memory everywhere; BestEffort: none anywhere; else Burstable."""
    spec = pod.get('spec') or {}
    guaranteed, best_effort = True, True
    for container in (*(spec.get('containers') or ()), *(spec.get('initContainers') or ())):
        resources = container.get('resources') or {}
        limits, requests = resources.get('limits') or {}, resources.get('requests') or {}
        if any(_positive(amounts.get(name)) for amounts in (limits, requests) for name in COMPUTE):
            best_effort = False
        if not all(_positive(limits.get(name)) and _equal(limits.get(name), requests.get(name)) for name in COMPUTE):
            guaranteed = False
    return 'BestEffort' if best_effort else 'Guaranteed' if guaranteed else 'Burstable'


def _positive(amount: Any) -> bool:
    try:
        return amount is not None and parse(amount) > 0
    except QuantityError:
        return False


def _equal(a: Any, b: Any) -> bool:
    return b is None or parse(a) == parse(b)
