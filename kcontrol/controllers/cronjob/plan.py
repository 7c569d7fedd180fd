"""One pass over a CronJob: which Job to start, which to stop or delete, and when to look again. Pure.

Only the latest time that was missed is made up for. A Job's name follows from its time, so that no crash can start it
twice. Source: pkg/controller/cronjob/cronjob_controllerv2.go, utils.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from kclient.model import Obj
from kcontrol.controllers.cronjob.schedule import BadSchedule, BadZone, Schedule
from kcontrol.kinds import CRONJOBS, JOBS
from kcore.meta.objects import condition_is, deleting, name_of, namespace_of, owner_ref, uid_of
from kcore.meta.times import format_time, parse_time

MISSED_MAX = 100
"""More missed times than this are worth a warning."""
SCHEDULED_AT = 'batch.kubernetes.io/cronjob-scheduled-timestamp'
SLACK_S = 0.1
"""The next pass comes this long after the next time, so that it does not come a moment too early."""
Note = tuple[str, str, str]
"""(type, reason, message) of an event."""


@dataclass(frozen=True, slots=True)
class Plan:
    status: Obj
    create: Obj | None = None
    stop: tuple[Obj, ...] = ()
    """Running Jobs that the new one replaces."""
    delete: tuple[Obj, ...] = ()
    """Finished Jobs beyond the history limits."""
    recheck_s: float | None = None
    notes: tuple[Note, ...] = ()


def outcome(job: Obj) -> str:
    """Complete, Failed or '' while it runs."""
    return next((k for k in ('Complete', 'Failed') if condition_is(job, k)), '')


def plan(cron: Obj, jobs: Sequence[Obj], now: datetime) -> Plan:
    """jobs: all that the CronJob controls."""
    status, notes = _status(cron, jobs)
    old = _history(cron, jobs)
    if deleting(cron):
        return Plan(status)
    spec = cron['spec']
    if spec.get('suspend'):
        return Plan(status, delete=old, notes=notes)
    try:
        schedule = Schedule(str(spec.get('schedule') or ''), spec.get('timeZone'))
    except BadSchedule as e:
        reason = 'UnknownTimeZone' if isinstance(e, BadZone) else 'UnparseableSchedule'
        return Plan(status, delete=old, notes=(*notes, ('Warning', reason, str(e))))
    due, missed = _due(cron, schedule, now)
    upcoming = schedule.next(now)
    wait = (upcoming - now).total_seconds() + SLACK_S if upcoming is not None else None
    if missed > MISSED_MAX:
        text = 'too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew'
        notes = (*notes, ('Warning', 'TooManyMissedTimes', text))
    if due is None or any(_made_at(j) == due for j in jobs):
        return Plan(status, delete=old, recheck_s=wait, notes=notes)
    return _start(cron, [j for j in jobs if not outcome(j)], due, Plan(status, None, (), old, wait, notes))


def _start(cron: Obj, running: Sequence[Obj], due: datetime, base: Plan) -> Plan:
    policy = cron['spec'].get('concurrencyPolicy', 'Allow')
    if policy == 'Forbid' and running:
        text = 'Not starting job because prior execution is running and concurrency policy is Forbid'
        notes = (*base.notes, ('Normal', 'JobAlreadyActive', text))
        return Plan(base.status, None, (), base.delete, base.recheck_s, notes)
    stop = tuple(running) if policy == 'Replace' else ()
    status = {**base.status, 'lastScheduleTime': format_time(due)}
    if stop:
        status.pop('active', None)
    return Plan(status, job_for(cron, due), stop, base.delete, base.recheck_s, base.notes)


def _due(cron: Obj, schedule: Schedule, now: datetime) -> tuple[datetime | None, int]:
    """(the latest time that has come and was not served, how many were missed)."""
    last = (cron.get('status') or {}).get('lastScheduleTime')
    start = parse_time(last or cron['metadata']['creationTimestamp'])
    deadline = cron['spec'].get('startingDeadlineSeconds')
    if deadline is not None:
        start = max(start, now - timedelta(seconds=int(deadline)))
    found = schedule.last(start, now)
    if found is None:
        return None, 0
    missed = schedule.missed(start, now, MISSED_MAX + 1)
    return found, missed


def _made_at(job: Obj) -> datetime | None:
    stamp = (job['metadata'].get('annotations') or {}).get(SCHEDULED_AT)
    return parse_time(stamp) if stamp else None


def job_for(cron: Obj, due: datetime) -> Obj:
    """The Job of one time."""
    template = cron['spec']['jobTemplate']
    meta = template.get('metadata') or {}
    named: Obj = {
        'name': f'{name_of(cron)}-{int(due.timestamp()) // 60}',
        'namespace': namespace_of(cron),
        'labels': dict(meta.get('labels') or {}),
        'annotations': {**(meta.get('annotations') or {}), SCHEDULED_AT: format_time(due)},
        'ownerReferences': [owner_ref(cron, CRONJOBS)],
    }
    return {'apiVersion': JOBS.api_version, 'kind': JOBS.kind, 'metadata': named, 'spec': template.get('spec') or {}}


def reference(job: Obj) -> Obj:
    """How `status.active` names a Job."""
    return {
        'apiVersion': JOBS.api_version, 'kind': JOBS.kind, 'name': name_of(job), 'namespace': namespace_of(job),
        'uid': uid_of(job), 'resourceVersion': job['metadata'].get('resourceVersion', ''),
    }  # fmt: skip


def with_active(status: Obj, job: Obj) -> Obj:
    return {**status, 'active': [*status.get('active', ()), reference(job)]}


def _status(cron: Obj, jobs: Sequence[Obj]) -> tuple[Obj, tuple[Note, ...]]:
    """Active Jobs and the last success as the Jobs show them."""
    old, by_uid = cron.get('status') or {}, {uid_of(j): j for j in jobs}
    notes: list[Note] = []
    for ref in old.get('active') or ():
        job = by_uid.get(ref.get('uid'))
        if job is None:
            notes.append(('Normal', 'MissingJob', f'Active job went missing: {ref.get("name")}'))
        elif outcome(job):
            text = f'Saw completed job: {name_of(job)}, condition: {outcome(job)}'
            notes.append(('Normal', 'SawCompletedJob', text))
    held = {r.get('uid'): r for r in old.get('active') or ()}
    running = sorted((j for j in jobs if not outcome(j)), key=name_of)
    active = [held.get(uid_of(j)) or reference(j) for j in running]
    success = _latest((j.get('status') or {}).get('completionTime') for j in jobs if outcome(j) == 'Complete')
    success = max(success, str(old.get('lastSuccessfulTime') or ''))
    status = {k: v for k, v in old.items() if k not in ('active', 'lastSuccessfulTime')}
    status |= {'active': active} if active else {}
    return status | ({'lastSuccessfulTime': success} if success else {}), tuple(notes)


def _latest(stamps: Iterable[str | None]) -> str:
    return max((s for s in stamps if s), default='')


def _history(cron: Obj, jobs: Sequence[Obj]) -> tuple[Obj, ...]:
    """Finished Jobs beyond the limits, oldest first."""
    spec, doomed = cron['spec'], []
    for kind, limit in (
        ('Complete', spec.get('successfulJobsHistoryLimit', 3)), ('Failed', spec.get('failedJobsHistoryLimit', 1))
    ):  # fmt: skip
        ended = [j for j in jobs if outcome(j) == kind and not deleting(j)]
        ended.sort(key=lambda j: ((j.get('status') or {}).get('startTime') or '', name_of(j)))
        doomed += ended[: max(0, len(ended) - int(limit))]
    return tuple(doomed)
