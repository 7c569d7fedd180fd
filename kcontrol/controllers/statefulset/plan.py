"""One pass over a StatefulSet: what to create, what to delete, and the status. Pure.

Ordered: the lowest ordinal that is not there, or not available, stops everything above it; scaling down goes from the
highest ordinal, and not while anything else is unhealthy. Parallel: all at once. Updates always go one pod at a time
from the highest ordinal down to the partition.
Source: pkg/controller/statefulset/stateful_set_control.go (updateStatefulSet).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from kclient.model import Obj
from kcontrol.controllers.replicaset.plan import available_in_s, next_available_s
from kcontrol.controllers.statefulset.identity import ordinal_of, revision_of, start_of, wanted
from kcore.meta.objects import deleting, is_pod_finished, is_pod_ready


@dataclass(frozen=True, slots=True)
class Create:
    ordinal: int
    current: bool
    """From the revision that the set comes from, not from its newest."""


@dataclass(frozen=True, slots=True)
class Plan:
    create: tuple[Create, ...] = ()
    delete: tuple[Obj, ...] = ()


@dataclass(frozen=True, slots=True)
class View:
    """The set, the names of its two revisions, its pods by ordinal, and the time."""

    owner: Obj
    current: str
    update: str
    pods: dict[int, Obj]
    now: datetime

    @property
    def ordered(self) -> bool:
        return str(self.owner['spec'].get('podManagementPolicy')) != 'Parallel'

    @property
    def condemned(self) -> list[int]:
        """Ordinals to scale away, the highest first."""
        keep = wanted(self.owner)
        return sorted((o for o in self.pods if o not in keep), reverse=True)

    def healthy(self, pod: Obj) -> bool:
        return is_pod_ready(pod) and not deleting(pod) and not is_pod_finished(pod)

    def available(self, pod: Obj) -> bool:
        min_ready_s = int(self.owner['spec'].get('minReadySeconds') or 0)
        waiting_s: float | None = available_in_s(pod, min_ready_s, self.now)
        return self.healthy(pod) and waiting_s == 0


def view_of(owner: Obj, current: str, update: str, pods: Sequence[Obj], now: datetime) -> View:
    """Pods whose name is none of the set's are left alone."""
    by_ordinal = {o: pod for pod in pods if (o := ordinal_of(owner, pod)) is not None}
    return View(owner, current, update, by_ordinal, now)


def partition(owner: Obj) -> int:
    rolling = (owner['spec'].get('updateStrategy') or {}).get('rollingUpdate') or {}
    return int(rolling.get('partition') or 0)


def plan(view: View) -> Plan:
    if deleting(view.owner):
        return Plan()
    create: list[Create] = []
    delete: list[Obj] = []
    for ordinal in wanted(view.owner):
        pod = view.pods.get(ordinal)
        if pod is None:
            create.append(Create(ordinal, _from_current(view, ordinal)))
        elif is_pod_finished(pod) and not deleting(pod):
            delete.append(pod)
        elif not view.ordered or view.available(pod):
            continue
        if view.ordered:
            return Plan(tuple(create), tuple(delete))
    down = _scale_down(view)
    if down is not None:
        delete += down
        if view.ordered and view.condemned:
            return Plan(tuple(create), tuple(delete))
    if not create and not delete:
        delete += _update(view)
    return Plan(tuple(create), tuple(delete))


def _from_current(view: View, ordinal: int) -> bool:
    strategy = view.owner['spec'].get('updateStrategy') or {}
    if strategy.get('type', 'RollingUpdate') != 'RollingUpdate':
        return False
    if strategy.get('rollingUpdate') is None:
        replicas = int((view.owner.get('status') or {}).get('currentReplicas') or 0)
        return ordinal < start_of(view.owner) + replicas
    return ordinal < partition(view.owner)


def _scale_down(view: View) -> list[Obj] | None:
    """Pods to delete; None when there is nothing to scale away."""
    condemned = view.condemned
    if not condemned:
        return None
    if not view.ordered:
        return [view.pods[o] for o in condemned if not deleting(view.pods[o])]
    highest = view.pods[condemned[0]]
    unhealthy = [o for o in sorted(view.pods) if not view.healthy(view.pods[o])]
    # The one that holds everything up may itself be the one to go.
    if deleting(highest) or (not view.available(highest) and unhealthy and unhealthy[0] != condemned[0]):
        return []
    return [highest]


def _update(view: View) -> list[Obj]:
    """At most one old pod, once all above it are new and available."""
    strategy = view.owner['spec'].get('updateStrategy') or {}
    if strategy.get('type', 'RollingUpdate') != 'RollingUpdate':
        return []
    for ordinal in reversed(wanted(view.owner)):
        pod = view.pods.get(ordinal)
        if ordinal < partition(view.owner) or pod is None:
            return []
        if revision_of(pod) != view.update and not deleting(pod):
            return [pod]
        if not view.available(pod):
            return []
    return []


def recheck_s(view: View) -> float | None:
    """When the next pod becomes available by `minReadySeconds`."""
    return next_available_s(view.owner, view.pods.values(), view.now)


def plan_status(view: View) -> Obj:
    """The whole status; a completed rollout makes the newest revision the current one."""
    pods = [*view.pods.values()]
    living = [p for p in pods if not deleting(p)]
    counts = {
        'replicas': len(pods),
        'readyReplicas': sum(is_pod_ready(p) and not is_pod_finished(p) for p in pods),
        'availableReplicas': sum(view.available(p) for p in pods),
        'currentReplicas': sum(revision_of(p) == view.current for p in living),
        'updatedReplicas': sum(revision_of(p) == view.update for p in living),
    }
    current = view.current
    rolling = (view.owner['spec'].get('updateStrategy') or {}).get('type', 'RollingUpdate') == 'RollingUpdate'
    if rolling and counts['updatedReplicas'] == counts['replicas'] == counts['readyReplicas']:
        current, counts['currentReplicas'] = view.update, counts['updatedReplicas']
    old = {k: v for k, v in (view.owner.get('status') or {}).items() if k not in counts}
    old.setdefault('collisionCount', 0)
    return old | {k: v for k, v in counts.items() if v or k in ('replicas', 'availableReplicas')} | {
        'currentRevision': current, 'updateRevision': view.update,
        'observedGeneration': view.owner['metadata'].get('generation', 0),
    }  # fmt: skip


def live_revisions(view: View) -> set[str]:
    """Names of revisions that must not be forgotten."""
    return {view.current, view.update} | {revision_of(p) for p in view.pods.values()}


__all__ = ['Create', 'Plan', 'View', 'live_revisions', 'plan', 'plan_status', 'recheck_s', 'view_of']
