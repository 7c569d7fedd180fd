"""The CronJob controller."""

from __future__ import annotations

from kclient.errors import AlreadyExists, ApiError, Conflict, Forbidden, NotFound
from kclient.model import Obj
from kcontrol.controller import Ctx, Result, controller
from kcontrol.controllers.cronjob.plan import SCHEDULED_AT, plan, with_active
from kcontrol.figures import CRONJOB_SKEW_S
from kcontrol.kinds import CRONJOBS, JOBS
from kcore.meta.objects import annotations_of, controller_of, name_of, namespace_of, uid_of
from kcore.meta.times import format_time, parse_time

CATCH_UP_S = 5.0
"""Safety net: the event that shows our own write brings us back much earlier."""


@controller('cronjob', primary=CRONJOBS, owns=[JOBS], workers=5)
async def reconcile(c: Ctx, key: str) -> Result | None:
    cron = c.get(CRONJOBS, key)
    if cron is None:
        return None
    if not c.caught_up(key, JOBS):
        return Result(CATCH_UP_S)
    step = plan(cron, c.owned(JOBS, cron), c.now())
    for kind, reason, message in step.notes:
        c.event(cron, 'Normal' if kind == 'Normal' else 'Warning', reason, message)
    for job in (*step.delete, *step.stop):
        await _delete(c, cron, job)
    status = step.status
    if step.create is not None:
        made = await _create(c, cron, step.create, key)
        if made is None:
            return None
        due = parse_time(annotations_of(made).get(SCHEDULED_AT) or format_time(c.now()))
        c.figures.observe(CRONJOB_SKEW_S, max(0.0, (c.now() - due).total_seconds()))
        status = with_active(status, made)
    await c.patch_status(CRONJOBS, cron, status)
    return Result(step.recheck_s) if step.recheck_s is not None else None


async def _create(c: Ctx, cron: Obj, job: Obj, key: str) -> Obj | None:
    """The Job, also when an earlier pass made it. None when nothing can be created any more."""
    try:
        made = await c.create(JOBS, job, owner=key)
    except AlreadyExists:
        there = await c.client.get(JOBS, name_of(job), namespace_of(job))
        owner = controller_of(there)
        if owner is None or owner.get('uid') != uid_of(cron):
            c.event(cron, 'Warning', 'UnexpectedJob', f'The name {name_of(job)} belongs to a job of somebody else')
        return there
    except Forbidden as e:
        if e.has_cause('NamespaceTerminating'):
            return None
        c.event(cron, 'Warning', 'FailedCreate', f'Error creating job: {e}')
        raise
    except ApiError as e:
        c.event(cron, 'Warning', 'FailedCreate', f'Error creating job: {e}')
        raise
    c.event(cron, 'Normal', 'SuccessfulCreate', f'Created job {name_of(made)}')
    return made


async def _delete(c: Ctx, cron: Obj, job: Obj) -> None:
    meta = job['metadata']
    try:
        await c.client.delete(JOBS, meta['name'], meta['namespace'], uid=meta['uid'], propagation='Background')
    except (NotFound, Conflict):
        return
    except ApiError as e:
        c.event(cron, 'Warning', 'FailedDelete', f'Deleted job: {e}')
        raise
    c.event(cron, 'Normal', 'SuccessfulDelete', f'Deleted job {name_of(job)}')
