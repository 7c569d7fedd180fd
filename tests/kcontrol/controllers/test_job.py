# ruff: noqa: E501
"""Jobs: each completion is counted once, whatever crashes in between; policies, deadlines, end to end."""

from __future__ import annotations

import random
from datetime import timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kcontrol.controllers.job import plan as jobs
from kcontrol.controllers.job.indexes import INDEX, parse, show
from kcontrol.controllers.job.policy import action_of, success_rule
from kcontrol.controllers.job.reconcile import JOBS, new_pod
from kcore.meta.gvk import PODS
from kcore.meta.objects import condition_is, is_pod_finished


def job(**spec) -> dict:
    base = {'parallelism': 1, 'completions': 1, 'backoffLimit': 6, 'completionMode': 'NonIndexed',
            'selector': {'matchLabels': {'job': 'j'}},
            'template': {'metadata': {'labels': {'job': 'j'}}, 'spec': {'restartPolicy': 'Never', 'containers': [{'name': 'c', 'image': 'x'}]}}}  # fmt: skip
    return {'metadata': {'name': 'j', 'namespace': 'default', 'uid': 'j'}, 'spec': {**base, **spec}}


class World:
    """A Job and its pods; every write of a pass may be the last one before a crash."""

    def __init__(self, made: dict, now) -> None:
        self.job, self.now, self.pods, self.serial = made, now, {}, 0
        self.truth = {'Succeeded': 0, 'Failed': 0}
        self.indexes: set[int] = set()

    def step(self, chance) -> None:
        decided = jobs.plan(self.job, list(self.pods.values()), self.now)
        if chance.random() < 0.1:
            return
        self.job = {**self.job, 'status': decided.status}
        for pod in [*decided.release, *decided.delete]:
            if chance.random() < 0.1:
                return
            held = self.pods.get(pod['metadata']['uid'])
            if held is not None:
                self.pods[pod['metadata']['uid']] = {**held, 'metadata': {**held['metadata'], 'finalizers': []}}
        for pod in decided.delete:
            self.pods.pop(pod['metadata']['uid'], None)
        for index in decided.create:
            if chance.random() < 0.1:
                return
            self.serial += 1
            pod = new_pod(self.job, index, decided.annotations)
            uid = f'p{self.serial}'
            pod['metadata'] |= {'uid': uid, 'name': uid, 'creationTimestamp': '2026-01-02T00:00:00Z'}
            self.pods[uid] = {**pod, 'status': {'phase': 'Running'}}

    def pods_end(self, chance) -> None:
        self.now += timedelta(seconds=chance.choice([1, 30, 700]))
        for uid, pod in [*self.pods.items()]:
            if is_pod_finished(pod):
                if not pod['metadata']['finalizers'] and chance.random() < 0.3:
                    del self.pods[uid]  # somebody cleans up
            elif chance.random() < 0.5:
                phase = chance.choice(['Succeeded', 'Succeeded', 'Failed'])
                self.truth[phase] += 1
                self.pods[uid] = {**pod, 'status': {'phase': phase}}

    @property
    def running(self) -> int:
        return sum(not is_pod_finished(p) for p in self.pods.values())


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    completions=st.integers(1, 8), parallelism=st.integers(1, 5), indexed=st.booleans(),
    seed=st.integers(0, 10**6),
)  # fmt: skip
def test_completions_are_counted_once_through_crashes(completions, parallelism, indexed, seed, now):
    chance = random.Random(seed)
    mode = 'Indexed' if indexed else 'NonIndexed'
    world = World(job(completions=completions, parallelism=parallelism, backoffLimit=1000, completionMode=mode), now)
    for _ in range(3000):
        world.step(chance)
        assert world.running <= parallelism
        live = [p['metadata']['annotations'][INDEX] for p in world.pods.values() if indexed and not is_pod_finished(p)]
        assert len(live) == len(set(live)), 'two pods of one index'
        if jobs.finished(world.job):
            break
        world.pods_end(chance)
    status = world.job['status']
    assert condition_is(world.job, 'Complete')
    assert status['succeeded'] == completions
    assert status.get('failed', 0) == world.truth['Failed']
    if indexed:
        assert parse(status['completedIndexes']) == set(range(completions))
    else:
        assert world.truth['Succeeded'] == completions
    assert 'uncountedTerminatedPods' not in status


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    completions=st.integers(1, 6), parallelism=st.integers(1, 4), limit=st.integers(0, 2), seed=st.integers(0, 10**6),
)  # fmt: skip
def test_each_index_has_its_own_backoff_limit_through_crashes(completions, parallelism, limit, seed, now):
    chance = random.Random(seed)
    spec = {'completions': completions, 'parallelism': parallelism, 'completionMode': 'Indexed'}
    world = World(job(**{**spec, 'backoffLimitPerIndex': limit, 'backoffLimit': 2**31 - 1}), now)
    doomed = {i for i in range(completions) if chance.random() < 0.4}
    tries: dict[int, int] = {}
    for _ in range(3000):
        world.step(chance)
        assert world.running <= parallelism
        if jobs.finished(world.job):
            break
        world.now += timedelta(seconds=chance.choice([1, 30, 700]))
        for uid, held in [*world.pods.items()]:
            if not is_pod_finished(held) and chance.random() < 0.5:
                index = int(held['metadata']['annotations'][INDEX])
                tries[index] = tries.get(index, 0) + 1
                world.pods[uid] = {**held, 'status': {'phase': 'Failed' if index in doomed else 'Succeeded'}}
    status = world.job['status']
    assert condition_is(world.job, 'Failed' if doomed else 'Complete')
    assert parse(status['failedIndexes']) == doomed
    assert parse(status['completedIndexes']) == set(range(completions)) - doomed
    assert all(count == (limit + 1 if index in doomed else 1) for index, count in tries.items())
    assert status.get('failed', 0) == (limit + 1) * len(doomed)


def test_a_rule_may_give_one_index_up_and_too_many_end_the_job(now):
    rule = {'action': 'FailIndex', 'onExitCodes': {'operator': 'In', 'values': [42]}}
    spec = {'completionMode': 'Indexed', 'completions': 4, 'parallelism': 4, 'backoffLimitPerIndex': 3,
            'podFailurePolicy': {'rules': [rule]}}  # fmt: skip
    pods = [pod('a', 'Failed', index=1, codes=[42]), pod('b', 'Running', index=0)]
    step = jobs.plan(job(**spec), pods, now)
    assert step.status['failedIndexes'] == '1'
    assert step.create == (2, 3)
    over = jobs.plan(job(**spec, maxFailedIndexes=0), pods, now)
    assert types(over.status) == {'FailureTarget': 'MaxFailedIndexesExceeded'}


def pod(uid: str, phase: str, *, finalizer: bool = True, index: int | None = None, codes=(), at: str = '') -> dict:
    meta = {'name': uid, 'namespace': 'default', 'uid': uid, 'creationTimestamp': at or '2026-01-02T11:00:00Z'}
    meta |= {'finalizers': [jobs.FINALIZER] if finalizer else []}
    meta |= {'annotations': {INDEX: str(index)} if index is not None else {}}
    ended = [
        {'name': 'c', 'state': {'terminated': {'exitCode': c, 'finishedAt': at or '2026-01-02T11:00:00Z'}}}
        for c in codes
    ]
    return {'metadata': meta, 'spec': {}, 'status': {'phase': phase, 'containerStatuses': ended}}


def types(status: dict) -> dict[str, str]:
    return {c['type']: c['reason'] for c in status.get('conditions', ()) if c['status'] == 'True'}


def test_a_failed_pod_is_replaced_after_a_growing_pause(now, ago):
    one = jobs.plan(job(), [pod('a', 'Failed', at=ago(4), codes=[1])], now)
    assert (one.create, one.recheck_s) == ((), 6.0)
    later = jobs.plan(job(), [pod('a', 'Failed', at=ago(11), codes=[1])], now)
    assert later.create == (None,)
    two = [pod('a', 'Failed', at=ago(30), codes=[1]), pod('b', 'Failed', at=ago(11), codes=[1])]
    assert jobs.plan(job(), two, now).recheck_s == 9.0


def test_too_many_failures_end_the_job_when_everything_is_counted(now, golden):
    pods = [pod(str(i), 'Failed', codes=[1]) for i in range(3)] + [pod('r', 'Running')]
    first = jobs.plan(job(backoffLimit=2, parallelism=2, completions=2), pods, now)
    assert types(first.status) == {'FailureTarget': 'BackoffLimitExceeded'}
    assert [p['metadata']['uid'] for p in first.delete] == ['r']
    counted = [pod(str(i), 'Failed', finalizer=False, codes=[1]) for i in range(3)]
    last = jobs.plan({**job(backoffLimit=2), 'status': first.status}, counted, now)
    assert types(last.status) == {'FailureTarget': 'BackoffLimitExceeded', 'Failed': 'BackoffLimitExceeded'}
    assert last.status['failed'] == 3
    golden('job-backoff-limit', [first.status, last.status])


def test_a_job_past_its_deadline_fails(now, ago):
    made = {**job(activeDeadlineSeconds=60), 'status': {'startTime': ago(59)}}
    assert jobs.plan(made, [pod('r', 'Running')], now).recheck_s == 1.0
    made['status']['startTime'] = ago(60)
    assert types(jobs.plan(made, [pod('r', 'Running')], now).status) == {'FailureTarget': 'DeadlineExceeded'}


def test_a_suspended_job_stops_its_pods_without_counting_them(now):
    step = jobs.plan({**job(suspend=True), 'status': {'startTime': 'x'}}, [pod('r', 'Running')], now)
    assert len(step.delete) == 1
    assert 'startTime' not in step.status
    assert 'failed' not in step.status
    resumed = jobs.plan({**job(), 'status': step.status}, [], now)
    assert resumed.create == (None,)
    assert resumed.note == ('Normal', 'Resumed', 'Job resumed')


def test_a_work_queue_is_done_when_one_succeeded_and_all_ended(now):
    queue = job(parallelism=3)
    del queue['spec']['completions']
    assert len(jobs.plan(queue, [], now).create) == 3
    some = jobs.plan(queue, [pod('a', 'Succeeded'), pod('b', 'Running')], now)
    assert (some.create, some.delete, types(some.status)) == ((), (), {})
    done = jobs.plan(queue, [pod('a', 'Succeeded', finalizer=False), pod('b', 'Failed', finalizer=False)], now)
    assert types(done.status) == {}, 'a success that was never counted is no success'
    counted = {**queue, 'status': {'succeeded': 1}}
    assert 'Complete' in types(jobs.plan(counted, [], now).status)


def test_exit_codes_and_conditions_drive_the_failure_policy():
    policy = {'rules': [
        {'action': 'FailJob', 'onExitCodes': {'operator': 'In', 'values': [42]}},
        {'action': 'Ignore', 'onPodConditions': [{'type': 'DisruptionTarget', 'status': 'True'}]},
        {'action': 'Count', 'onExitCodes': {'operator': 'NotIn', 'values': [1]}},
    ]}  # fmt: skip
    made = job(podFailurePolicy=policy)
    action, text = action_of(made, pod('a', 'Failed', codes=[42]))
    assert action == 'FailJob'
    assert 'exit code 42 matching FailJob rule at index 0' in text
    evicted = pod('b', 'Failed', codes=[1])
    evicted['status']['conditions'] = [{'type': 'DisruptionTarget', 'status': 'True'}]
    assert action_of(made, evicted)[0] == 'Ignore'
    assert action_of(made, pod('c', 'Failed', codes=[7]))[0] == 'Count'
    assert action_of(made, pod('d', 'Failed', codes=[1])) == ('Count', '')


def test_an_ignored_failure_does_not_count_and_a_fatal_one_ends_the_job(now):
    policy = {'rules': [{'action': 'Ignore', 'onExitCodes': {'operator': 'In', 'values': [3]}},
                        {'action': 'FailJob', 'onExitCodes': {'operator': 'In', 'values': [42]}}]}  # fmt: skip
    ignored = jobs.plan(job(podFailurePolicy=policy, backoffLimit=0), [pod('a', 'Failed', codes=[3])], now)
    assert types(ignored.status) == {}
    assert len(ignored.release) == 1
    fatal = jobs.plan(job(podFailurePolicy=policy), [pod('a', 'Failed', codes=[42])], now)
    assert types(fatal.status) == {'FailureTarget': 'PodFailurePolicy'}


def test_a_success_policy_ends_an_indexed_job_early():
    made = job(successPolicy={'rules': [{'succeededIndexes': '0,2'}, {'succeededIndexes': '1-3', 'succeededCount': 2}]})
    assert success_rule(made, {0}) == ''
    assert success_rule(made, {0, 2}) == 'Matched rules at index 0'
    assert success_rule(made, {1, 3}) == 'Matched rules at index 1'


@given(st.sets(st.integers(0, 60)))
def test_indexes_survive_being_written(indexes):
    assert parse(show(indexes)) == indexes


def test_a_finished_job_lives_for_its_time(now, ago):
    done = {'conditions': [{'type': 'Complete', 'status': 'True', 'lastTransitionTime': ago(40)}]}
    assert jobs.plan({**job(ttlSecondsAfterFinished=100), 'status': done}, [], now).recheck_s == 60
    assert jobs.plan({**job(), 'status': done}, [pod('a', 'Succeeded')], now).release


async def test_an_indexed_job_runs_to_completion_and_is_deleted_after_its_time(admin, agent, controllers, until):
    agent.finish = lambda p: 'Succeeded' if 'job' in p['metadata']['labels'] else None
    await controllers('job', 'gc')
    made = job(completions=5, parallelism=2, completionMode='Indexed')
    del made['metadata']['uid']
    await admin.create(JOBS, made)

    async def complete() -> bool:
        return condition_is(await admin.get(JOBS, 'j', 'default'), 'Complete')

    await until(complete)
    held = await admin.get(JOBS, 'j', 'default')
    assert (held['status']['succeeded'], held['status']['completedIndexes']) == (5, '0-4')
    pods = (await admin.list(PODS, 'default')).items
    assert len(pods) == 5
    assert not any(p['metadata'].get('finalizers') for p in pods)
    env = pods[0]['spec']['containers'][0]['env'][0]
    assert env['name'] == 'JOB_COMPLETION_INDEX'
    await admin.patch(JOBS, 'j', {'spec': {'ttlSecondsAfterFinished': 0}}, 'default')

    async def gone() -> bool:
        return not (await admin.list(JOBS, 'default')).items and not (await admin.list(PODS, 'default')).items

    await until(gone)
