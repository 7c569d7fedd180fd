"""CronJob: jobs on a schedule."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

from kapi.kinds.base import BuiltinStrategy, put_defaults, spec_of
from kapi.kinds.batch.job import job_rules
from kapi.kinds.core.pod_defaults import default_template
from kapi.kinds.printing import AGE, NONE, UNSET, age_at, containers_cell, count_of, selector_at, text
from kapi.kinds.rules import invalid, not_negative, one_of, required
from kapi.registry.kind import Col, Kind, Obj, Status
from kapi.registry.strategy import Invalid
from kcore.meta.gvk import Resource
from kcore.meta.objects import get_path

NAME_MAX = 52
_POD = 'spec.jobTemplate.spec.template.spec'
_FIELD = re.compile(r'[A-Za-z0-9*/,?-]+')
_MACROS = ('@yearly', '@annually', '@monthly', '@weekly', '@daily', '@midnight', '@hourly')


class CronJobStrategy(BuiltinStrategy):
    def default(self, obj: Obj) -> None:
        spec = spec_of(obj)
        put_defaults(
            spec, concurrencyPolicy='Allow', suspend=False, successfulJobsHistoryLimit=3, failedJobsHistoryLimit=1
        )
        default_template(get_path(spec, 'jobTemplate.spec.template'))

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        spec = new.get('spec') or {}
        name = new['metadata'].get('name') or ''
        if old is None and len(name) > NAME_MAX:
            yield invalid('metadata.name', name, f'must be no more than {NAME_MAX} characters')
        schedule = spec.get('schedule') or ''
        if not schedule:
            yield required('spec.schedule')
        elif not plausible_schedule(schedule):
            found = len(schedule.split())
            yield invalid('spec.schedule', schedule, f'expected exactly 5 fields, found {found}: [{schedule}]')
        zone = spec.get('timeZone')
        if zone is not None and (old is None or zone != get_path(old, 'spec.timeZone')):
            yield from time_zone('spec.timeZone', zone)
        yield from one_of('spec.concurrencyPolicy', spec.get('concurrencyPolicy'), ('Allow', 'Forbid', 'Replace'))
        for field in ('startingDeadlineSeconds', 'successfulJobsHistoryLimit', 'failedJobsHistoryLimit'):
            yield from not_negative(f'spec.{field}', spec.get(field))
        yield from job_rules('spec.jobTemplate.spec', get_path(spec, 'jobTemplate.spec') or {})


def time_zone(field: str, name: str) -> Iterator[Invalid]:
    if not name:
        yield invalid(field, name, 'timeZone must be nil or non-empty string')
    elif name.casefold() == 'local':
        text = 'timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones'
        yield invalid(field, name, text)
    else:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            yield invalid(field, name, f'unknown time zone {name}')


def plausible_schedule(schedule: str) -> bool:
    """Five fields, or a macro; the controller's cron library has the last word."""
    if schedule.startswith('@'):
        return schedule in _MACROS or schedule.startswith('@every ')
    parts = schedule.split()
    return len(parts) == 5 and all(_FIELD.fullmatch(part) for part in parts)


def _suspend(obj: Obj, _now: datetime) -> str:
    value = get_path(obj, 'spec.suspend')
    return UNSET if value is None else str(bool(value))


KIND = Kind(
    resource=Resource('batch', 'v1', 'cronjobs', 'CronJob'),
    strategy=CronJobStrategy(),
    short=('cj',),
    categories=('all',),
    subresources=(Status(),),
    columns=(
        Col('Schedule', text('spec.schedule'), description='When, in cron form.'),
        Col('Timezone', text('spec.timeZone', NONE), description='In which time zone.'),
        Col('Suspend', _suspend, 'boolean', description='Whether it is held back.'),
        Col('Active', count_of('status.active'), 'integer', description='Jobs that run now.'),
        Col('Last Schedule', age_at('status.lastScheduleTime', NONE), description='Time since the last one.'),
        AGE,
        Col('Containers', containers_cell('name', _POD), priority=1, description='Names of the containers.'),
        Col('Images', containers_cell('image', _POD), priority=1, description='Images of the containers.'),
        Col('Selector', selector_at('spec.jobTemplate.spec.selector'), priority=1, description='Selector of the pods.'),
    ),
)
