"""One pass over a Job: count what ended exactly once, decide whether it is over, create or delete pods. Pure.

Counting: each pod holds a finalizer until it is counted. A finished pod's uid goes to `status.uncountedTerminatedPods`;
then its finalizer is removed; once the cache shows that, the same status write drops the uid and grows the counter. A
crash between any two of these steps counts nothing twice and forgets nothing.
Source: pkg/controller/job/job_controller.go (syncJob, trackJobStatusAndRemoveFinalizers), KEP-2307.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from kclient.model import Obj
from kcontrol.controllers.job.indexes import index_of, parse, show
from kcontrol.controllers.job.perindex import (
    ended_at,
    failed_indexes,
    pause_s,
    per_index,
    replacement,
    waiting,
)
from kcontrol.controllers.job.policy import action_of, success_rule
from kcore.meta.objects import condition_is, deleting, get_condition, is_pod_finished, is_pod_ready, uid_of
from kcore.meta.times import format_time, parse_time

FINALIZER = 'batch.kubernetes.io/job-tracking'
CREATE_MAX = 500
"""Pods created in one pass."""
BACKOFF_S, BACKOFF_CAP_S = 10.0, 600.0
"""Pause before a replacement: doubles with each failure since the last success."""
Verdict = tuple[str, str]
"""(reason, message)."""
Ending = tuple[str, str, Verdict, datetime]
"""(condition at first, condition at last, why, now)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One pass, in the order of writing: status, release, delete, create."""

    status: Obj
    release: tuple[Obj, ...] = ()
    """Pods whose finalizer may go: their uid is in the status now, or they need no counting."""
    delete: tuple[Obj, ...] = ()
    create: tuple[int | None, ...] = ()
    """One entry a pod: its completion index, None for a Job without indexes."""
    recheck_s: float | None = None
    note: tuple[str, str, str] | None = None
    """(type, reason, message) of an event."""
    annotations: dict[int, dict[str, str]] = field(default_factory=dict)
    """Completion index → what its new pod is annotated with."""


@dataclass(slots=True)
class Tally:
    """What has ended."""

    succeeded: int
    failed: int
    uncounted: dict[str, list[str]]
    completed: set[int]
    release: list[Obj]
    failed_indexes: set[int] = field(default_factory=set)
    """With backoffLimitPerIndex: indexes that are given up."""
    verdict: Verdict | None = None
    """A podFailurePolicy rule that fails the Job."""

    @property
    def pending(self) -> bool:
        return any(self.uncounted.values())


def tracked(pod: Obj) -> bool:
    return FINALIZER in (pod['metadata'].get('finalizers') or ())


def indexed(job: Obj) -> bool:
    return (job.get('spec') or {}).get('completionMode') == 'Indexed'


def finished(job: Obj) -> Obj | None:
    """The condition that ended the Job."""
    return next((get_condition(job, k) for k in ('Complete', 'Failed') if condition_is(job, k)), None)


def failed(job: Obj, pod: Obj) -> bool:
    """Failed, or going away without having succeeded (unless only failed pods are to be replaced)."""
    phase = (pod.get('status') or {}).get('phase')
    if phase == 'Failed':
        return True
    only_failed = (job.get('spec') or {}).get('podReplacementPolicy') == 'Failed'
    return deleting(pod) and phase != 'Succeeded' and not only_failed


def tally(job: Obj, pods: Sequence[Obj]) -> Tally:
    status = job.get('status') or {}
    before = status.get('uncountedTerminatedPods') or {}
    held = {uid_of(p) for p in pods if tracked(p)}
    completed = parse(status.get('completedIndexes')) if indexed(job) else set()
    result = Tally(int(status.get('succeeded') or 0), int(status.get('failed') or 0), {}, completed, [])
    for kind in ('succeeded', 'failed'):
        uids = [str(u) for u in before.get(kind) or ()]
        result.uncounted[kind] = [u for u in uids if u in held]
        setattr(result, kind, getattr(result, kind) + len(uids) - len(result.uncounted[kind]))
    known = {u for uids in result.uncounted.values() for u in uids}
    for pod in pods:
        if not tracked(pod):
            continue
        if uid_of(pod) in known:
            result.release.append(pod)
        else:
            _count(job, pod, result)
    if indexed(job):
        result.succeeded = len(result.completed)
    if per_index(job):
        result.failed_indexes = failed_indexes(job, [p for p in pods if tracked(p) and failed(job, p)])
        result.failed_indexes -= result.completed
    return result


def _count(job: Obj, pod: Obj, result: Tally) -> None:
    if (pod.get('status') or {}).get('phase') == 'Succeeded':
        index = index_of(pod)
        if indexed(job) and index is not None and index < _goal(job):
            result.completed.add(index)
        result.uncounted['succeeded'].append(uid_of(pod))
    elif failed(job, pod):
        action, message = action_of(job, pod) if is_pod_finished(pod) else ('Count', '')
        if action == 'FailJob':
            result.verdict = result.verdict or ('PodFailurePolicy', message)
        if action != 'Ignore':
            result.uncounted['failed'].append(uid_of(pod))
    else:
        return
    result.release.append(pod)


def _goal(job: Obj) -> int:
    return int(job['spec'].get('completions') or 0)


def plan(job: Obj, pods: Sequence[Obj], now: datetime) -> Plan:
    """pods: all that the Job controls."""
    over = finished(job)
    if over is not None:
        return Plan(job['status'], tuple(p for p in pods if tracked(p)), recheck_s=_ttl_left_s(job, over, now))
    counted = tally(job, pods)
    active = [p for p in pods if not is_pod_finished(p) and not deleting(p)]
    ending = [p for p in pods if not is_pod_finished(p) and deleting(p)]
    status = _figures(job, counted, active, ending)
    if deleting(job):
        return Plan(status, tuple(counted.release))
    failure = _failure(job, counted, active, now)
    if failure is not None:
        return _end(status, counted, active, ending, ('FailureTarget', 'Failed', failure, now))
    success = _success(job, counted, active, ending)
    if success is not None:
        return _end(status, counted, active, ending, ('SuccessCriteriaMet', 'Complete', success, now))
    if job['spec'].get('suspend'):
        return _suspend(job, status, counted, active, now)
    return _carry_on(job, status, counted, (active, ending, pods), now)


def _figures(job: Obj, counted: Tally, active: Sequence[Obj], ending: Sequence[Obj]) -> Obj:
    old = job.get('status') or {}
    figures: Obj = {
        'active': len(active), 'ready': sum(is_pod_ready(p) for p in active), 'terminating': len(ending),
        'succeeded': counted.succeeded, 'failed': counted.failed,
    }  # fmt: skip
    status = {k: v for k, v in old.items() if k not in figures}
    status |= {k: v for k, v in figures.items() if v or k in ('ready', 'terminating')}
    status['uncountedTerminatedPods'] = {k: v for k, v in counted.uncounted.items() if v}
    if indexed(job):
        status['completedIndexes'] = show(counted.completed)
    if per_index(job):
        status['failedIndexes'] = show(counted.failed_indexes)
    return status


def _failure(job: Obj, counted: Tally, active: Sequence[Obj], now: datetime) -> Verdict | None:
    held = get_condition(job, 'FailureTarget')
    if held is not None and held.get('status') == 'True':
        return str(held.get('reason')), str(held.get('message'))
    if counted.verdict is not None:
        return counted.verdict
    spec = job['spec']
    failures = counted.failed + len(counted.uncounted['failed'])
    limit = int(spec.get('backoffLimit', 6))
    if failures > limit or _restarts_exceed(spec, active, limit):
        return 'BackoffLimitExceeded', 'Job has reached the specified backoff limit'
    if counted.failed_indexes:
        most = spec.get('maxFailedIndexes')
        if most is not None and len(counted.failed_indexes) > int(most):
            return 'MaxFailedIndexesExceeded', 'Job has exceeded the specified maximal number of failed indexes'
        if len(counted.failed_indexes | counted.completed) >= _goal(job) and not success_rule(job, counted.completed):
            return 'FailedIndexes', 'Job has failed indexes'
    left = _deadline_left_s(job, now)
    if left is not None and left <= 0 and not spec.get('suspend'):
        return 'DeadlineExceeded', 'Job was active longer than specified deadline'
    return None


def _restarts_exceed(spec: Obj, active: Sequence[Obj], limit: int) -> bool:
    if (spec['template'].get('spec') or {}).get('restartPolicy') != 'OnFailure':
        return False
    restarts = sum(
        int(c.get('restartCount') or 0) for p in active for c in (p.get('status') or {}).get('containerStatuses') or ()
    )
    return restarts > 0 and restarts >= limit


def _success(job: Obj, counted: Tally, active: Sequence[Obj], ending: Sequence[Obj]) -> Verdict | None:
    held = get_condition(job, 'SuccessCriteriaMet')
    if held is not None and held.get('status') == 'True':
        return str(held.get('reason')), str(held.get('message'))
    matched = success_rule(job, counted.completed) if indexed(job) else ''
    if matched:
        return 'SuccessPolicy', matched
    done = len(counted.completed) if indexed(job) else counted.succeeded + len(counted.uncounted['succeeded'])
    queue = job['spec'].get('completions') is None
    over = (done > 0 and not active and not ending) if queue else done >= _goal(job)
    return ('CompletionsReached', 'Reached expected number of succeeded pods') if over else None


def _end(status: Obj, counted: Tally, active: Sequence[Obj], ending: Sequence[Obj], how: Ending) -> Plan:
    """First announce, stop what runs; the final condition comes when nothing is left to stop or count."""
    early, final, verdict, now = how
    status = _with_condition(status, early, 'True', verdict, now)
    note = None
    if not active and not ending and not counted.pending:
        status = _with_condition(status, final, 'True', verdict, now)
        status.pop('uncountedTerminatedPods', None)
        if final == 'Complete':
            status['completionTime'] = format_time(now)
            note = ('Normal', 'Completed', 'Job completed')
        else:
            note = ('Warning', verdict[0], verdict[1])
    return Plan(status, tuple(counted.release), tuple(active), note=note)


def _suspend(job: Obj, status: Obj, counted: Tally, active: Sequence[Obj], now: datetime) -> Plan:
    status = _with_condition(status, 'Suspended', 'True', ('JobSuspended', 'Job suspended'), now)
    status.pop('startTime', None)
    note = None if condition_is(job, 'Suspended') else ('Normal', 'Suspended', 'Job suspended')
    return Plan(status, tuple(counted.release), tuple(active), note=note)


def _carry_on(
    job: Obj, status: Obj, counted: Tally, pods: tuple[Sequence[Obj], Sequence[Obj], Sequence[Obj]], now: datetime
) -> Plan:
    active, ending, everything = pods
    note = None
    if condition_is(job, 'Suspended'):
        status = _with_condition(status, 'Suspended', 'False', ('JobResumed', 'Job resumed'), now)
        note = ('Normal', 'Resumed', 'Job resumed')
    status.setdefault('startTime', format_time(now))
    wanted = _wanted(job, counted, active)
    deadline = _deadline_left_s({**job, 'status': status}, now)
    if len(active) > wanted:
        surplus = sorted(active, key=lambda p: (is_pod_ready(p), _created(p)))[: len(active) - wanted]
        return Plan(status, tuple(counted.release), tuple(surplus), recheck_s=deadline, note=note)
    missing = wanted - len(active)
    if job['spec'].get('podReplacementPolicy') == 'Failed':
        missing -= len(ending)
    base = Plan(status, tuple(counted.release), recheck_s=deadline, note=note)
    if per_index(job):
        return replace(base, **_by_index(job, counted, (active, everything), missing, now))
    pause = backoff_left_s(everything, now) if missing > 0 else 0.0
    if missing <= 0 or pause > 0:
        return replace(base, recheck_s=_sooner(pause or None, deadline))
    create: tuple[int | None, ...] = (None,) * min(missing, CREATE_MAX)
    if indexed(job):
        create = tuple(free_indexes(job, counted.completed, active)[: min(missing, CREATE_MAX)])
    return replace(base, create=create)


def _by_index(
    job: Obj, counted: Tally, pods: tuple[Sequence[Obj], Sequence[Obj]], missing: int, now: datetime
) -> dict[str, Any]:
    """What changes of a pass: each index waits for itself, and counts are handed over before a finalizer goes."""
    active, everything = pods
    over = counted.completed | counted.failed_indexes
    ended = waiting(job, [p for p in everything if tracked(p) and failed(job, p)], over, active)
    held = {uid_of(p) for p in ended.values()}
    pauses = {i: pause_s(job, p, now) for i, p in ended.items()}
    ready = [i for i in free_indexes(job, over, active) if pauses.get(i, 0.0) <= 0][: max(0, min(missing, CREATE_MAX))]
    deadline = _deadline_left_s(job, now)
    return {
        'release': tuple(p for p in counted.release if uid_of(p) not in held),
        'create': tuple(ready),
        'recheck_s': _sooner(min((s for s in pauses.values() if s > 0), default=None), deadline),
        'annotations': {i: replacement(job, ended.get(i)) for i in ready},
    }


def _sooner(*waits: float | None) -> float | None:
    return min((w for w in waits if w is not None), default=None)


def _wanted(job: Obj, counted: Tally, active: Sequence[Obj]) -> int:
    """How many pods should run."""
    parallelism = int(job['spec'].get('parallelism', 1))
    done = counted.succeeded if indexed(job) else counted.succeeded + len(counted.uncounted['succeeded'])
    if job['spec'].get('completions') is None:
        # A work queue: after the first success no new pods, but those that run may finish.
        return min(len(active), parallelism) if done else parallelism
    return min(parallelism, max(0, _goal(job) - done - len(counted.failed_indexes)))


def free_indexes(job: Obj, completed: set[int], active: Iterable[Obj]) -> list[int]:
    """Indexes that neither succeeded nor have a pod, the lowest first."""
    taken = completed | {i for p in active if (i := index_of(p)) is not None}
    return [i for i in range(_goal(job)) if i not in taken]


def backoff_left_s(pods: Iterable[Obj], now: datetime) -> float:
    """Seconds until a replacement may be created, from the failures since the last success."""
    ended = sorted(((ended_at(p), p) for p in pods if is_pod_finished(p)), key=lambda e: (e[0], uid_of(e[1])))
    failures, last = 0, None
    for at, pod in reversed(ended):
        if pod['status']['phase'] == 'Succeeded':
            break
        failures, last = failures + 1, last or at
    if last is None:
        return 0.0
    pause: float = min(BACKOFF_CAP_S, BACKOFF_S * 2 ** min(failures - 1, 16))
    return max(0.0, pause - (now - last).total_seconds())


def _created(pod: Obj) -> str:
    return str(pod['metadata'].get('creationTimestamp') or '1970-01-01T00:00:00Z')


def _deadline_left_s(job: Obj, now: datetime) -> float | None:
    limit, start = job['spec'].get('activeDeadlineSeconds'), (job.get('status') or {}).get('startTime')
    if limit is None or not start:
        return None
    return float(limit) - (now - parse_time(start)).total_seconds()


def _ttl_left_s(job: Obj, over: Obj, now: datetime) -> float | None:
    """Seconds until a finished Job is to be deleted; 0 or less for now."""
    ttl = job['spec'].get('ttlSecondsAfterFinished')
    return None if ttl is None else float(ttl) - (now - parse_time(over['lastTransitionTime'])).total_seconds()


def _with_condition(status: Obj, kind: str, value: str, verdict: Verdict, now: datetime) -> Obj:
    conditions = [dict(c) for c in status.get('conditions') or ()]
    held = next((c for c in conditions if c.get('type') == kind), None)
    if held is not None and held.get('status') == value:
        return {**status, 'conditions': conditions}
    stamp = format_time(now)
    fresh = {
        'type': kind, 'status': value, 'lastProbeTime': stamp, 'lastTransitionTime': stamp,
        'reason': verdict[0], 'message': verdict[1],
    }  # fmt: skip
    return {**status, 'conditions': [c for c in conditions if c.get('type') != kind] + [fresh]}
