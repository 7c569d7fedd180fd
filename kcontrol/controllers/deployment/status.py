"""Status and conditions of a Deployment: available, progressing, stuck, paused. Pure.

Source: pkg/controller/deployment/progress.go, sync.go (calculateStatus), util/deployment_util.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from kclient.model import Obj
from kcontrol.controllers.deployment.rollout import bounds, observed, total, wanted
from kcore.meta.objects import get_condition, name_of
from kcore.meta.times import format_time, parse_time

NO_DEADLINE = 2**31 - 1
AVAILABLE, PROGRESSING, FAILURE = 'Available', 'Progressing', 'ReplicaFailure'
DONE, TIMED_OUT = 'NewReplicaSetAvailable', 'ProgressDeadlineExceeded'
Text = tuple[str, str, str]
"""(status, reason, message) of a condition."""


def deadline_s(deployment: Obj) -> int | None:
    """Seconds, or None when progress is not watched."""
    value = (deployment.get('spec') or {}).get('progressDeadlineSeconds')
    return None if value is None or int(value) >= NO_DEADLINE else int(value)


def counts(deployment: Obj, new: Obj | None, sets: Sequence[Obj]) -> Obj:
    available = sum(observed(rs, 'availableReplicas') for rs in sets)
    return {
        'replicas': sum(observed(rs, 'replicas') for rs in sets),
        'updatedReplicas': observed(new, 'replicas') if new is not None else 0,
        'readyReplicas': sum(observed(rs, 'readyReplicas') for rs in sets),
        'availableReplicas': available,
        'unavailableReplicas': max(0, total(sets) - available),
    }


def complete(deployment: Obj, figures: Obj) -> bool:
    """Every replica is new and available, and nothing else is left."""
    goal = wanted(deployment)
    return all(figures[k] == goal for k in ('replicas', 'updatedReplicas', 'availableReplicas'))


def progressed(deployment: Obj, figures: Obj) -> bool:
    """Something got better since the status in `deployment` was written."""
    old = deployment.get('status') or {}
    before = {k: int(old.get(k) or 0) for k in figures}
    return bool(
        figures['updatedReplicas'] > before['updatedReplicas']
        or figures['replicas'] - figures['updatedReplicas'] < before['replicas'] - before['updatedReplicas']
        or figures['readyReplicas'] > before['readyReplicas']
        or figures['availableReplicas'] > before['availableReplicas']
    )


def plan_status(
    deployment: Obj, new: Obj | None, sets: Sequence[Obj], now: datetime, *, note: Text | None = None
) -> Obj:
    """The whole status. note: a Progressing condition that this pass brings (set created, paused, resumed)."""
    figures = counts(deployment, new, sets)
    old = deployment.get('status') or {}
    conditions = _Conditions(old.get('conditions') or (), now)
    _, unavailable = bounds(deployment)
    if figures['availableReplicas'] >= wanted(deployment) - unavailable:
        conditions.set(AVAILABLE, ('True', 'MinimumReplicasAvailable', 'Deployment has minimum availability.'))
    else:
        text = 'Deployment does not have minimum availability.'
        conditions.set(AVAILABLE, ('False', 'MinimumReplicasUnavailable', text))
    if deadline_s(deployment) is None:
        conditions.drop(PROGRESSING)
    elif note is not None:
        conditions.set(PROGRESSING, note)
    elif not (deployment.get('spec') or {}).get('paused'):
        _progress(deployment, new, figures, conditions, now)
    failures = [c for rs in sets if (c := get_condition(rs, FAILURE)) is not None]
    if failures:
        conditions.set(FAILURE, (failures[0]['status'], failures[0].get('reason', ''), failures[0].get('message', '')))
    else:
        conditions.drop(FAILURE)
    status = {k: v for k, v in old.items() if k not in figures}
    status |= {k: v for k, v in figures.items() if v}
    status |= {'observedGeneration': deployment['metadata'].get('generation', 0), 'conditions': conditions.items}
    return status


def _progress(deployment: Obj, new: Obj | None, figures: Obj, conditions: _Conditions, now: datetime) -> None:
    held = conditions.get(PROGRESSING)
    what = f'ReplicaSet "{name_of(new)}"' if new is not None else f'Deployment "{name_of(deployment)}"'
    settled = figures['replicas'] == figures['updatedReplicas'] and held is not None and held.get('reason') == DONE
    if settled:
        return
    if complete(deployment, figures):
        conditions.set(PROGRESSING, ('True', DONE, f'{what} has successfully progressed.'))
    elif progressed(deployment, figures):
        conditions.set(PROGRESSING, ('True', 'ReplicaSetUpdated', f'{what} is progressing.'), touch=True)
    elif timed_out(deployment, held, now):
        conditions.set(PROGRESSING, ('False', TIMED_OUT, f'{what} has timed out progressing.'))


def timed_out(deployment: Obj, held: Obj | None, now: datetime) -> bool:
    limit = deadline_s(deployment)
    if held is None or limit is None or held.get('reason') == DONE:
        return False
    if held.get('reason') == TIMED_OUT:
        return True
    return (now - parse_time(held['lastUpdateTime'])).total_seconds() >= limit


def recheck_s(deployment: Obj, status: Obj, now: datetime) -> float | None:
    """Seconds until a rollout that does not move is overdue; None when nothing is being waited for."""
    limit = deadline_s(deployment)
    held = next((c for c in status.get('conditions') or () if c.get('type') == PROGRESSING), None)
    if limit is None or held is None or held.get('reason') == TIMED_OUT or (deployment.get('spec') or {}).get('paused'):
        return None
    if complete(deployment, {k: int(status.get(k) or 0) for k in counts(deployment, None, ())}):
        return None
    if held.get('reason') == DONE:
        return None
    return max(0.0, limit - (now - parse_time(held['lastUpdateTime'])).total_seconds()) + 1.0


class _Conditions:
    """A list of conditions that keeps times where nothing changed."""

    def __init__(self, items: Sequence[Obj], now: datetime) -> None:
        self.items = [dict(c) for c in items]
        self._now = format_time(now)

    def get(self, kind: str) -> Obj | None:
        return next((c for c in self.items if c.get('type') == kind), None)

    def drop(self, kind: str) -> None:
        self.items = [c for c in self.items if c.get('type') != kind]

    def set(self, kind: str, text: Text, *, touch: bool = False) -> None:
        """`lastTransitionTime` moves with the status; `lastUpdateTime` with status or reason, or by `touch`."""
        status, reason, message = text
        held = self.get(kind)
        if held is not None and held.get('status') == status and held.get('reason') == reason and not touch:
            return
        fresh = {
            'type': kind, 'status': status, 'lastUpdateTime': self._now, 'lastTransitionTime': self._now,
            'reason': reason, 'message': message,
        }  # fmt: skip
        if held is not None and held.get('status') == status:
            fresh['lastTransitionTime'] = held.get('lastTransitionTime', self._now)
        if held is None:
            self.items.append(fresh)
        else:
            held.clear()
            held.update(fresh)
