"""How many pods to create, which to delete, and what the status says. Pure.

Victims are ranked by usefulness: unscheduled before scheduled, pending before running, not ready before ready, cheap
deletion cost first, then those that share their node with most siblings, the youngest, the most restarted.
Ages are compared by order of magnitude only, so that a scale-down does not always hit the newest node.
Source: pkg/controller/controller_utils.go (ActivePodsWithRanks), pkg/controller/replicaset/replica_set_utils.go.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cmp_to_key

from kclient.model import Obj
from kcore.meta.objects import annotations_of, deleting, get_condition, is_pod_finished, is_pod_ready, labels_of
from kcore.meta.times import format_time, parse_time

BURST_MAX = 500
"""Creations or deletions in one pass; the rest follows once the cache shows these."""
COST_ANNOTATION = 'controller.kubernetes.io/pod-deletion-cost'
_PHASES = {'Pending': 0, 'Unknown': 1, 'Running': 2}


@dataclass(frozen=True, slots=True)
class Plan:
    """One pass."""

    create: int
    delete: tuple[Obj, ...]
    recheck_s: float | None
    """When the next pod becomes available by `minReadySeconds`."""


def is_active(pod: Obj) -> bool:
    """Counts as a replica: neither finished nor going away."""
    return not is_pod_finished(pod) and not deleting(pod)


def plan_replicas(owner: Obj, pods: Iterable[Obj], siblings: Iterable[Obj], now: datetime) -> Plan:
    """pods: claimed by `owner`. siblings: pods of all owners that share its controller (for spreading deletions)."""
    pods = list(pods)
    active = [p for p in pods if is_active(p)]
    wanted = int((owner.get('spec') or {}).get('replicas', 1))
    missing = wanted - len(active)
    recheck = next_available_s(owner, active, now)
    if deleting(owner) or missing == 0:
        return Plan(0, (), recheck)
    if missing > 0:
        return Plan(min(missing, BURST_MAX), (), recheck)
    return Plan(0, tuple(rank_victims(active, siblings, now)[: min(-missing, BURST_MAX)]), recheck)


def rank_victims(pods: Sequence[Obj], siblings: Iterable[Obj], now: datetime) -> list[Obj]:
    """The pods in the order in which they should go."""
    on_node = Counter(_node(p) for p in siblings if is_active(p) and _node(p))

    def compare(a: Obj, b: Obj) -> int:
        return _compare(a, b, on_node, now)

    return sorted(pods, key=cmp_to_key(compare))


def _compare(a: Obj, b: Obj, on_node: Counter[str], now: datetime) -> int:
    """Negative when `a` should go first."""
    for first, second in zip(_rank(a, on_node), _rank(b, on_node), strict=True):
        if first != second:
            return -1 if first < second else 1
    if is_pod_ready(a) and is_pod_ready(b):
        order = _younger(_ready_since(a), _ready_since(b), a, b, now)
        if order:
            return order
    if _restarts(a) != _restarts(b):
        return -1 if _restarts(a) > _restarts(b) else 1
    return _younger(_created(a), _created(b), a, b, now) or _by_uid(a, b)


def _rank(pod: Obj, on_node: Counter[str]) -> tuple[float, ...]:
    phase = (pod.get('status') or {}).get('phase') or 'Pending'
    return (
        1 if _node(pod) else 0,
        _PHASES.get(phase, 1),
        1 if is_pod_ready(pod) else 0,
        deletion_cost(pod),
        -on_node[_node(pod)],
    )


def _younger(a_at: datetime | None, b_at: datetime | None, a: Obj, b: Obj, now: datetime) -> int:
    """Unknown times first, then the younger by order of magnitude, then by uid; 0 when the times are equal."""
    if a_at == b_at:
        return 0
    if a_at is None or b_at is None:
        return -1 if a_at is None else 1
    difference = _magnitude(a_at, now) - _magnitude(b_at, now)
    if difference:
        return -1 if difference < 0 else 1
    return _by_uid(a, b)


def _by_uid(a: Obj, b: Obj) -> int:
    """A total order, so that the choice does not depend on how the cache lists its pods."""
    return -1 if str(a['metadata'].get('uid')) < str(b['metadata'].get('uid')) else 1


def _magnitude(at: datetime, now: datetime) -> int:
    """⌊log₂⌋ of the age in nanoseconds; -1 for the present and the future."""
    nanoseconds = (now - at).total_seconds() * 1e9
    return int(math.log2(nanoseconds)) if nanoseconds >= 1 else -1


def _node(pod: Obj) -> str:
    return str((pod.get('spec') or {}).get('nodeName') or '')


def deletion_cost(pod: Obj) -> int:
    """The annotated cost; 0 when absent or not a 32-bit number."""
    try:
        cost = int(annotations_of(pod).get(COST_ANNOTATION, '0'))
    except ValueError:
        return 0
    return cost if -(2**31) <= cost < 2**31 else 0


def _restarts(pod: Obj) -> int:
    return max((int(s.get('restartCount') or 0) for s in _containers(pod)), default=0)


def _containers(pod: Obj) -> list[Obj]:
    return (pod.get('status') or {}).get('containerStatuses') or []


def _created(pod: Obj) -> datetime | None:
    stamp = pod['metadata'].get('creationTimestamp')
    return parse_time(stamp) if stamp else None


def _ready_since(pod: Obj) -> datetime | None:
    condition = get_condition(pod, 'Ready') or {}
    stamp = condition.get('lastTransitionTime')
    return parse_time(stamp) if stamp else None


def available_in_s(pod: Obj, min_ready_s: int, now: datetime) -> float | None:
    """Seconds until the pod is available: 0 when it is, None while it is not ready."""
    if not is_pod_ready(pod):
        return None
    since = _ready_since(pod)
    if min_ready_s == 0:
        return 0.0
    if since is None:
        return None
    return max(0.0, min_ready_s - (now - since).total_seconds())


def next_available_s(owner: Obj, pods: Iterable[Obj], now: datetime) -> float | None:
    """Seconds until the next of `pods` becomes available; None when none is on its way."""
    min_ready_s = int((owner.get('spec') or {}).get('minReadySeconds') or 0)
    waits = [w for p in pods if (w := available_in_s(p, min_ready_s, now)) is not None and w > 0]
    return min(waits, default=None)


def plan_status(owner: Obj, pods: Iterable[Obj], failure: tuple[str, str] | None, now: datetime) -> Obj:
    """The whole status. `failure`: (reason, message) of the pass that went wrong, if one did."""
    spec, active = owner.get('spec') or {}, [p for p in pods if is_active(p)]
    template_labels = ((spec.get('template') or {}).get('metadata') or {}).get('labels') or {}
    min_ready_s = int(spec.get('minReadySeconds') or 0)
    counts = {
        'replicas': len(active),
        'fullyLabeledReplicas': sum(template_labels.items() <= labels_of(p).items() for p in active),
        'readyReplicas': sum(is_pod_ready(p) for p in active),
        'availableReplicas': sum(available_in_s(p, min_ready_s, now) == 0 for p in active),
    }
    old = owner.get('status') or {}
    conditions = [c for c in old.get('conditions') or () if c.get('type') != 'ReplicaFailure']
    held = get_condition(owner, 'ReplicaFailure')
    if failure is not None:
        same = held is not None and held.get('status') == 'True' and held.get('reason') == failure[0]
        conditions.append(held if same and held is not None else _failed(failure, now))
    # A zero count is left out, as upstream's encoding does; `replicas` is always there.
    status = {k: v for k, v in old.items() if k not in counts and k != 'conditions'}
    status |= {k: v for k, v in counts.items() if v or k == 'replicas'}
    status['observedGeneration'] = owner['metadata'].get('generation', 0)
    if conditions:
        status['conditions'] = conditions
    return status


def _failed(failure: tuple[str, str], now: datetime) -> Obj:
    reason, message = failure
    return {
        'type': 'ReplicaFailure', 'status': 'True', 'lastTransitionTime': format_time(now),
        'reason': reason, 'message': message,
    }  # fmt: skip


def pod_from_template(owner: Obj, reference: Obj, template: Obj) -> Obj:
    """The pod to create: `generateName` from the owner, labels and annotations of the template."""
    meta = template.get('metadata') or {}
    pod_meta = {
        'generateName': f'{owner["metadata"]["name"]}-',
        'namespace': owner['metadata']['namespace'],
        'ownerReferences': [reference],
    }
    for field in ('labels', 'annotations', 'finalizers'):
        if meta.get(field):
            pod_meta[field] = meta[field]
    return {'apiVersion': 'v1', 'kind': 'Pod', 'metadata': pod_meta, 'spec': template.get('spec') or {}}
