"""The status of a PodDisruptionBudget. Pure.

A healthy pod is ready, not going away, and not one whose eviction was granted a moment ago but does not show yet.
Source: pkg/controller/disruption/disruption.go (getExpectedPodCount, updatePdbStatus).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from kclient.model import Obj
from kcontrol.numbers import resolve
from kcore.meta.objects import (
    controller_of,
    deleting,
    get_condition,
    is_pod_finished,
    is_pod_ready,
    name_of,
    set_condition,
)
from kcore.meta.selectors import go_selector
from kcore.meta.times import parse_time

GRANT_S = 120.0
"""An eviction that was granted but does not show after this did not happen."""


STALE_S = 120.0
"""A pod that was said to be disrupted, and after this is still not going away, was not."""


@dataclass(frozen=True, slots=True)
class Count:
    """Whole pods."""

    expected: int
    desired: int


def needs_scale(budget: Obj) -> bool:
    """Whether the number of pods must come from their owners: a percentage or `maxUnavailable` needs a whole."""
    spec = budget.get('spec') or {}
    return spec.get('maxUnavailable') is not None or isinstance(spec.get('minAvailable'), str)


def count(budget: Obj, pods: Sequence[Obj], scales: Mapping[str, int]) -> Count:
    """scales: uid of each owner of the pods → its replicas. Raises ValueError on an unreadable percentage."""
    spec = budget.get('spec') or {}
    if not needs_scale(budget):
        return Count(len(pods), int(spec.get('minAvailable', 1)))
    expected = sum(scales.values())
    if spec.get('maxUnavailable') is not None:
        return Count(expected, max(0, expected - resolve(spec['maxUnavailable'], expected, up=True)))
    return Count(expected, resolve(spec['minAvailable'], expected, up=True))


def granted(budget: Obj, pods: Sequence[Obj], now: datetime) -> tuple[dict[str, str], float | None]:
    """(evictions granted that do not show yet, seconds until the first is given up)."""
    held: dict[str, str] = (budget.get('status') or {}).get('disruptedPods') or {}
    living = {name_of(p) for p in pods if not deleting(p)}
    left = {n: GRANT_S - (now - parse_time(at)).total_seconds() for n, at in held.items() if n in living}
    kept = {name: held[name] for name, seconds in left.items() if seconds > 0}
    return kept, min((left[n] for n in kept), default=None)


def unmanaged(budget: Obj, pods: Sequence[Obj]) -> str:
    """What is wrong when pods that nobody controls have to be counted as part of a whole; empty when nothing is."""
    if not needs_scale(budget) or all(controller_of(p) is not None for p in pods):
        return ''
    selector = go_selector((budget.get('spec') or {}).get('selector'))
    return (
        f'Pods selected by this PodDisruptionBudget (selector: {selector}) were found to be unmanaged. '
        'As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. '
        'To account for these pods please set ".spec.minAvailable" field of the PDB to an integer value.'
    )


def stale_in_s(pod: Obj, now: datetime) -> float | None:
    """Seconds until the pod's DisruptionTarget condition is taken back; None when it is not to be."""
    condition = get_condition(pod, 'DisruptionTarget')
    if condition is None or condition.get('status') != 'True' or deleting(pod) or is_pod_finished(pod):
        return None
    if condition.get('reason') == 'TerminationByKubelet':
        return None  # its node may take any time
    return STALE_S - (now - parse_time(condition['lastTransitionTime'])).total_seconds()


def plan_status(budget: Obj, pods: Sequence[Obj], counted: Count, now: datetime) -> Obj:
    """The whole status. pods: those that the budget covers."""
    pending, _ = granted(budget, pods, now)
    healthy = sum(
        is_pod_ready(p) and not deleting(p) and not is_pod_finished(p) and name_of(p) not in pending for p in pods
    )
    allowed = max(0, healthy - counted.desired) if counted.expected > 0 else 0
    status: Obj = {
        'disruptionsAllowed': allowed, 'currentHealthy': healthy, 'desiredHealthy': counted.desired,
        'expectedPods': counted.expected, 'observedGeneration': budget['metadata'].get('generation', 0),
        'conditions': [dict(c) for c in (budget.get('status') or {}).get('conditions') or ()],
    }  # fmt: skip
    if pending:
        status['disruptedPods'] = pending
    return _with_condition(budget, status, allowed, now)


def _with_condition(budget: Obj, status: Obj, allowed: int, now: datetime) -> Obj:
    holder: Obj = {'status': status}
    value, reason = ('True', 'SufficientPods') if allowed > 0 else ('False', 'InsufficientPods')
    set_condition(holder, 'DisruptionAllowed', value, now, reason=reason)
    for condition in status['conditions']:
        if condition['type'] == 'DisruptionAllowed':
            condition.setdefault('message', '')
            condition['observedGeneration'] = budget['metadata'].get('generation', 0)
    return status


def failed_status(budget: Obj, why: str, now: datetime) -> Obj:
    """When the pods cannot be counted nothing may be evicted."""
    holder: Obj = {'status': {**(budget.get('status') or {}), 'disruptionsAllowed': 0}}
    holder['status']['conditions'] = [dict(c) for c in holder['status'].get('conditions') or ()]
    set_condition(holder, 'DisruptionAllowed', 'False', now, reason='SyncFailed', message=why)
    holder['status']['observedGeneration'] = budget['metadata'].get('generation', 0)
    for field in ('currentHealthy', 'desiredHealthy', 'expectedPods'):
        holder['status'].setdefault(field, 0)
    return dict(holder['status'])
