"""CronJobs in virtual time: a year across both changes of the clock, the three policies, missed times, history."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kcontrol.controllers.cronjob.plan import MISSED_MAX, outcome, plan, with_active
from kcontrol.controllers.cronjob.schedule import BadSchedule, Schedule
from kcore.meta.objects import name_of
from kcore.meta.times import format_time, parse_time

BERLIN = 'Europe/Berlin'


def cron(schedule: str = '*/5 * * * *', created: str = '2026-01-01T00:00:00Z', **spec) -> dict:
    meta = {'name': 'tick', 'namespace': 'default', 'uid': 'tick', 'creationTimestamp': created}
    template = {'metadata': {'labels': {'a': 'b'}}, 'spec': {'template': {}}}
    return {'metadata': meta, 'spec': {'schedule': schedule, 'jobTemplate': template, **spec}}


def finished(job: dict, at: datetime, kind: str = 'Complete') -> dict:
    status = {'startTime': format_time(at), 'conditions': [{'type': kind, 'status': 'True'}]}
    if kind == 'Complete':
        status['completionTime'] = format_time(at)
    return {**job, 'status': status}


class World:
    """Drives the plan from one wake-up that it asks for to the next."""

    def __init__(self, made: dict, *, lasts: timedelta) -> None:
        self.cron, self.jobs, self.lasts = made, {}, lasts
        self.now = parse_time(made['metadata']['creationTimestamp'])
        self.started: list[datetime] = []
        self.most_running = 0

    def run(self, end: datetime) -> None:
        while self.now < end:
            wait = self.step()
            ends = [parse_time(j['at']) + self.lasts for j in self.jobs.values() if not outcome(j)]
            wake = self.now + timedelta(seconds=wait if wait is not None else 86400)
            self.now = min([wake, *(e for e in ends if e > self.now)])
            for name, job in [*self.jobs.items()]:
                if not outcome(job) and parse_time(job['at']) + self.lasts <= self.now:
                    self.jobs[name] = finished(job, self.now)

    def step(self) -> float | None:
        decided = plan(self.cron, [*self.jobs.values()], self.now)
        status = decided.status
        for job in [*decided.delete, *decided.stop]:
            del self.jobs[name_of(job)]
        if decided.create is not None:
            assert name_of(decided.create) not in self.jobs
            job = {**decided.create, 'at': format_time(self.now)}
            job['metadata'] |= {'uid': name_of(job)}
            self.jobs[name_of(job)] = job
            self.started.append(self.now.replace(microsecond=0))
            status = with_active(status, job)
        self.cron = {**self.cron, 'status': status}
        self.most_running = max(self.most_running, sum(not outcome(j) for j in self.jobs.values()))
        return decided.recheck_s


def test_a_year_of_daily_jobs_in_berlin_skips_and_doubles_with_the_clock():
    world = World(cron('30 2 * * *', timeZone=BERLIN), lasts=timedelta(minutes=1))
    world.run(datetime(2027, 1, 1, tzinfo=UTC))
    local = [t.astimezone(ZoneInfo(BERLIN)) for t in world.started]
    assert {(t.hour, t.minute) for t in local} == {(2, 30)}
    days = [t.date().isoformat() for t in local]
    assert '2026-03-29' not in days, 'half past two does not exist that night'
    assert days.count('2026-10-25') == 2, 'and exists twice that night'
    assert len(days) == 365
    assert len(world.jobs) == 3, 'the history limit holds'


@pytest.mark.parametrize(
    ('policy', 'started', 'running'),
    [('Allow', 12, 3), ('Forbid', 4, 1), ('Replace', 12, 1)],
)
def test_what_an_hour_brings_when_each_job_lasts_longer_than_the_pause(policy, started, running):
    world = World(cron(concurrencyPolicy=policy), lasts=timedelta(minutes=14))
    world.run(datetime(2026, 1, 1, 1, 0, 1, tzinfo=UTC))
    assert len(world.started) == started
    assert world.most_running == running


def test_only_the_last_of_many_missed_times_is_made_up_for_and_a_warning_given():
    now = datetime(2026, 1, 2, 0, 1, tzinfo=UTC)
    step = plan(cron(), [], now)
    assert name_of(step.create) == f'tick-{int(datetime(2026, 1, 2, tzinfo=UTC).timestamp()) // 60}'
    assert [n[1] for n in step.notes] == ['TooManyMissedTimes']
    assert step.recheck_s == pytest.approx(240.1)
    few = plan(cron(startingDeadlineSeconds=600), [], now)
    assert few.create is not None
    assert few.notes == ()
    late = plan(cron('0 0 * * *', startingDeadlineSeconds=30), [], now)
    assert late.create is None, 'the deadline for starting has passed'


def test_suspension_bad_schedules_and_unknown_zones_start_nothing():
    now = datetime(2026, 1, 2, tzinfo=UTC)
    assert plan(cron(suspend=True), [], now).create is None
    for made, reason, text in (
        (cron('61 * * * *'), 'UnparseableSchedule', 'unparseable schedule: "61 * * * *" : '),
        (cron('* * *'), 'UnparseableSchedule',
         'unparseable schedule: "* * *" : expected exactly 5 fields, found 3: [* * *]'),
        (cron(timeZone='Mars/Base'), 'UnknownTimeZone', 'invalid timeZone: "Mars/Base": unknown time zone Mars/Base'),
    ):  # fmt: skip
        step = plan(made, [], now)
        assert (step.create, step.notes[0][1]) == (None, reason)
        assert step.notes[0][2].startswith(text)
    never = plan(cron('0 0 31 2 *', created='2026-01-01T00:00:00Z'), [], now)
    assert never.create is None


def test_history_limits_keep_the_newest_of_each_kind(golden):
    at = datetime(2026, 1, 1, tzinfo=UTC)
    jobs = []
    for number in range(8):
        moment = at + timedelta(hours=number)
        meta = {'name': f'j{number}', 'namespace': 'default', 'uid': str(number)}
        jobs.append(finished({'metadata': meta}, moment, 'Failed' if number % 2 else 'Complete'))
    step = plan(cron('0 0 1 1 *', successfulJobsHistoryLimit=1, failedJobsHistoryLimit=2), jobs, at)
    assert [name_of(j) for j in step.delete] == ['j0', 'j2', 'j4', 'j1', 'j3']
    golden('cronjob-status', step.status)


@pytest.mark.parametrize('text', ['* * * *', 'a * * * *', '@often', '@every soon', '* * * * * *', '0 25 * * *'])
def test_a_schedule_that_cannot_be_read_is_refused(text):
    with pytest.raises(BadSchedule):
        Schedule(text)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(
        ['*/7 * * * *', '30 1 * * *', '30 2 * * *', '0 */3 * * 1-5', '15 4 1,15 * *', '@hourly', '@every 7m']
    ),
    st.sampled_from(['UTC', BERLIN, 'America/New_York', 'Australia/Lord_Howe', 'Asia/Kolkata']),
    st.datetimes(datetime(2026, 3, 1), datetime(2026, 11, 10)),
    st.integers(1, 7 * 86400),
)
def test_the_last_time_before_a_moment_is_the_last_of_those_after_another(text, zone, start, span):
    schedule = Schedule(text, zone)
    begin = start.replace(tzinfo=UTC, microsecond=0)
    end = begin + timedelta(seconds=span)
    times = []
    for at in schedule.after(begin):
        if at > end:
            break
        times.append(at)
    assert times == sorted(set(times))
    assert schedule.last(begin, end) == (times[-1] if times else None)
    assert schedule.missed(begin, end, MISSED_MAX) == min(MISSED_MAX, len(times))
