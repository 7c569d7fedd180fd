"""The arithmetic of a rollout: how large each ReplicaSet should be next. Pure.

Invariants, also under lag: the sizes never add up to more than replicas + maxSurge, and scaling down never takes the
available pods below replicas − maxUnavailable.
Source: pkg/controller/deployment/rolling.go, sync.go (scale).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from kclient.model import Obj
from kcontrol.controllers.deployment.history import MAX, by_age
from kcontrol.numbers import rollout_bounds
from kcore.meta.objects import annotations_of, name_of

Sizes = dict[str, int]
"""ReplicaSet name → replicas it should have."""


def size(rs: Obj) -> int:
    return int((rs.get('spec') or {}).get('replicas', 1))


def observed(rs: Obj, field: str) -> int:
    return int((rs.get('status') or {}).get(field) or 0)


def wanted(deployment: Obj) -> int:
    return int((deployment.get('spec') or {}).get('replicas', 1))


def strategy(deployment: Obj) -> str:
    return str(((deployment.get('spec') or {}).get('strategy') or {}).get('type') or 'RollingUpdate')


def bounds(deployment: Obj) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) as counts; a Recreate never surges."""
    if strategy(deployment) != 'RollingUpdate':
        return 0, 0
    rolling = ((deployment.get('spec') or {}).get('strategy') or {}).get('rollingUpdate') or {}
    replicas = wanted(deployment)
    surge, unavailable = rollout_bounds(rolling.get('maxSurge', '25%'), rolling.get('maxUnavailable', '25%'), replicas)
    return surge, min(unavailable, replicas) if replicas else unavailable


def total(sets: Iterable[Obj]) -> int:
    return sum(size(rs) for rs in sets)


def new_set_size(deployment: Obj, new: Obj | None, old: Sequence[Obj]) -> int:
    """As far up as the surge allows; at once to the goal with Recreate."""
    goal = wanted(deployment)
    if strategy(deployment) != 'RollingUpdate':
        return goal
    present = size(new) if new is not None else 0
    surge, _ = bounds(deployment)
    room = goal + surge - present - total(old)
    if room <= 0:
        return present
    return present + min(room, goal - present)


def rolling_step(deployment: Obj, new: Obj, old: Sequence[Obj]) -> Sizes:
    """One step of a rolling update: first the new set, and when it stands, the old ones. Empty when nothing moves."""
    goal = wanted(deployment)
    if size(new) > goal:
        return {name_of(new): goal}
    grown = new_set_size(deployment, new, old)
    if grown != size(new):
        return {name_of(new): grown}
    return _shrink_old(deployment, new, by_age(rs for rs in old if size(rs)))


def _shrink_old(deployment: Obj, new: Obj, old: Sequence[Obj]) -> Sizes:
    """Unhealthy pods of old sets go first: they help nobody; then healthy ones, as far as availability allows."""
    if not old:
        return {}
    _, unavailable = bounds(deployment)
    floor = wanted(deployment) - unavailable
    # Pods of the new set that are not available yet must be counted as if they never came.
    budget = total([new, *old]) - floor - (size(new) - observed(new, 'availableReplicas'))
    if budget <= 0:
        return {}
    sizes: Sizes = {}
    for rs in old:
        unhealthy = max(0, size(rs) - observed(rs, 'availableReplicas'))
        drop = min(budget, unhealthy)
        if drop:
            sizes[name_of(rs)] = size(rs) - drop
            budget -= drop
    available = sum(min(size(rs), observed(rs, 'availableReplicas')) for rs in [new, *old])
    spare = available - floor
    for rs in old:
        left = sizes.get(name_of(rs), size(rs))
        drop = min(spare, left, budget)
        if drop > 0:
            sizes[name_of(rs)] = left - drop
            spare -= drop
            budget -= drop
    return sizes


def recreate_step(deployment: Obj, new: Obj | None, old: Sequence[Obj], pods_left: bool) -> Sizes | None:
    """Old sets to zero, wait for their pods to end (None: not yet time for the new set), then the new set in full."""
    down = {name_of(rs): 0 for rs in old if size(rs)}
    if down:
        return down
    if pods_left:
        return {}
    if new is None:
        return None
    return {name_of(new): wanted(deployment)} if size(new) != wanted(deployment) else {}


def saturated(deployment: Obj, rs: Obj | None) -> bool:
    """The set is as large as it was asked to be, and all of it is available."""
    if rs is None:
        return False
    goal = wanted(deployment)
    desired = annotations_of(rs).get('deployment.kubernetes.io/desired-replicas')
    return size(rs) == goal and str(goal) == desired and observed(rs, 'availableReplicas') == goal


def proportional(deployment: Obj, new: Obj | None, old: Sequence[Obj]) -> Sizes:
    """The Deployment's own size changed (or it is paused): spread the difference over the sets by their size."""
    goal = wanted(deployment)
    active = [rs for rs in ([new] if new is not None else []) + [*old] if size(rs)]
    if len(active) <= 1:
        only = active[0] if active else new if new is not None else (by_age(old)[-1] if old else None)
        return {name_of(only): goal} if only is not None else {}
    if new is not None and saturated(deployment, new):
        return {name_of(rs): 0 for rs in old if size(rs)}
    if strategy(deployment) != 'RollingUpdate':
        return {}
    surge, _ = bounds(deployment)
    add = (goal + surge if goal > 0 else 0) - total(active)
    ordered = _largest_first(active, newest=add > 0)
    return _spread(deployment, ordered, add, surge)


def _largest_first(sets: Sequence[Obj], *, newest: bool) -> list[Obj]:
    aged = by_age(sets)
    if newest:
        aged.reverse()
    return sorted(aged, key=size, reverse=True)


def _spread(deployment: Obj, ordered: Sequence[Obj], add: int, surge: int) -> Sizes:
    sizes: Sizes = {}
    added = 0
    for rs in ordered:
        share = _share(deployment, rs, surge)
        # Nonsense in the annotations must not move a set against the whole.
        share = max(0, min(share, add - added)) if add > 0 else min(0, max(share, add - added))
        if add == 0 or size(rs) == 0:
            share = 0
        sizes[name_of(rs)] = size(rs) + share
        added += share
    left = add - added
    for rs in ordered:  # what rounding left over goes to the first; more than it holds cannot be taken from it
        name = name_of(rs)
        change = max(left, -sizes[name])
        sizes[name] += change
        left -= change
    return sizes


def _share(deployment: Obj, rs: Obj, surge: int) -> int:
    """By how much the set should change, were it alone, to keep its part of the whole."""
    goal = wanted(deployment)
    if goal == 0:
        return -size(rs)
    try:
        before = int(annotations_of(rs).get(MAX, '0'))
    except ValueError:
        before = 0
    before = before or int((deployment.get('status') or {}).get('replicas') or 0) or goal + surge
    exact = size(rs) * (goal + surge) / before
    return math.floor(exact + 0.5) - size(rs)
