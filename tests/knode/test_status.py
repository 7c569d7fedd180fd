"""Phases and statuses as the API shows them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from knode.pods.model import Checks, Verdict, Wait
from knode.pods.phase import phase
from knode.pods.status import Place, qos_class, status

PLACE = Place('127.64.0.2', '127.0.0.1', '2026-01-01T00:00:00Z', {})


@pytest.mark.parametrize(
    ('policy', 'states', 'expected'),
    [
        ('Always', (None, None), 'Pending'),
        ('Always', ('run', None), 'Pending'),
        ('Always', ('run', 'run'), 'Running'),
        ('Always', (0, 0), 'Running'),
        ('Always', (1, 'run'), 'Running'),
        ('OnFailure', (0, 0), 'Succeeded'),
        ('OnFailure', (0, 1), 'Running'),
        ('Never', (0, 0), 'Succeeded'),
        ('Never', (0, 1), 'Failed'),
        ('Never', (0, 'run'), 'Running'),
    ],
)
def test_the_phase_follows_from_policy_and_states(make_pod, make_view, make_record, *, policy, states, expected):
    pod = make_pod(restartPolicy=policy, containers=[{'name': n, 'image': 'x'} for n in 'ab'])
    records = [
        make_record(n) if s == 'run' else make_record(n, ended=s)
        for n, s in zip('ab', states, strict=True)
        if s is not None
    ]
    assert phase(make_view(pod, *records)) == expected


@pytest.mark.parametrize(('code', 'expected'), [(0, 'Succeeded'), (3, 'Failed')])
def test_a_pod_has_not_ended_as_long_as_a_sidecar_runs(make_pod, make_view, make_record, *, code, expected):
    sidecar = {'name': 's', 'image': 'x', 'restartPolicy': 'Always'}
    pod = make_pod(restartPolicy='Never', initContainers=[sidecar, {'name': 'i', 'image': 'x'}])
    ended = [make_record('i', ended=0), make_record(ended=code)]
    assert phase(make_view(pod, make_record('s'), *ended)) == 'Running'
    assert phase(make_view(pod, make_record('s', ended=143), *ended)) == expected
    assert phase(make_view(pod, make_record('s'), make_record('i', ended=1))) == 'Pending'
    assert phase(make_view(pod, make_record('s', ended=143), make_record('i', ended=1))) == 'Failed'


def test_a_verdict_makes_the_pod_failed_with_its_reason(make_pod, make_view, make_record):
    view = make_view(make_pod(), make_record(ended=0), verdict=Verdict('DeadlineExceeded', 'too long'))
    got = status(view, PLACE)
    assert (got['phase'], got['reason'], got['message']) == ('Failed', 'DeadlineExceeded', 'too long')


def condition(got, kind):
    return next(c for c in got['conditions'] if c['type'] == kind)


def test_a_running_pod_is_ready_and_has_its_addresses(make_pod, make_view, make_record):
    got = status(make_view(make_pod(), make_record()), PLACE)
    assert condition(got, 'Ready')['status'] == 'True'
    assert got['podIPs'] == [{'ip': '127.64.0.2'}]
    assert got['containerStatuses'][0]['state'] == {'running': {'startedAt': '2027-01-15T07:59:59Z'}}


def test_an_unready_container_is_named(make_pod, make_view, make_record):
    record = make_record()
    got = status(make_view(make_pod(), record, checks={record.id: Checks(ready=False)}), PLACE)
    assert condition(got, 'Ready')['message'] == 'containers with unready status: [c]'
    assert condition(got, 'Ready')['reason'] == 'ContainersNotReady'


def test_a_crashing_container_shows_back_off_and_its_last_state(make_pod, make_view, make_record):
    got = status(make_view(make_pod(), make_record(attempt=3, ended=2, backoff_s=40.0)), PLACE)
    c = got['containerStatuses'][0]
    assert c['state'] == {
        'waiting': {
            'reason': 'CrashLoopBackOff',
            'message': 'back-off 40s restarting failed container=c pod=p_default(u1)',
        }
    }
    assert c['lastState']['terminated']['exitCode'] == 2
    assert c['restartCount'] == 3


@pytest.mark.parametrize(
    ('given', 'reason', 'message'),
    [
        ({'ran': 0.0, 'reason': 'StartError', 'message': 'no such file'}, 'RunContainerError', 'no such file'),
        ({'meta': {'post_start_error': 'exited with 9'}}, 'PostStartHookError', 'exited with 9'),
    ],
)
def test_a_container_that_could_not_be_started_says_why_until_it_is_started_again(
    make_pod, make_view, make_record, *, given, reason, message
):
    fields = {k: given.pop(k) for k in ('reason', 'message') if k in given}
    first = replace(make_record(ended=128, **given), **fields)
    c = status(make_view(make_pod(), first), PLACE)['containerStatuses'][0]
    assert c['state'] == {'waiting': {'reason': reason, 'message': message}}
    assert c['lastState']['terminated']['exitCode'] == 128
    second = replace(make_record(attempt=1, ended=128, backoff_s=10.0, **given), **fields)
    c = status(make_view(make_pod(), first, second), PLACE)['containerStatuses'][0]
    assert c['state']['waiting']['reason'] == 'CrashLoopBackOff'
    never = status(make_view(make_pod(restartPolicy='Never'), first), PLACE)
    assert never['containerStatuses'][0]['state']['terminated']['exitCode'] == 128


def test_a_container_whose_post_start_hook_has_not_passed_is_not_shown_before_it_has_ended(
    make_pod, make_view, make_record
):
    running, ended = make_record(), make_record(ended=143)
    shown = [
        status(make_view(make_pod(), r, hooked=frozenset({r.id})), PLACE)['containerStatuses'][0]['state']
        for r in (running, ended)
    ]
    assert [list(s) for s in shown] == [['waiting'], ['terminated']]


def test_a_missing_image_shows_why_it_waits(make_pod, make_view):
    got = status(make_view(make_pod(), waits={'c': Wait('ImagePullBackOff', 'text')}), PLACE)
    assert got['containerStatuses'][0]['state'] == {'waiting': {'reason': 'ImagePullBackOff', 'message': 'text'}}
    assert got['phase'] == 'Pending'


def test_transition_times_stay_while_a_condition_stays(make_pod, make_view, make_record):
    first = status(make_view(make_pod(), make_record()), PLACE)
    later = Place(PLACE.pod_ip, PLACE.host_ip, PLACE.start_time, {}, first)
    assert status(make_view(make_pod(), make_record(), now=1_900_000_000.0), later)['conditions'] == first['conditions']


def test_a_condition_that_holds_again_loses_the_reason_for_which_it_did_not(make_pod, make_view, make_record):
    waiting = status(make_view(make_pod()), PLACE)
    assert condition(waiting, 'Ready')['reason'] == 'ContainersNotReady'
    pod = make_pod() | {'status': waiting}
    ready = status(make_view(pod, make_record()), PLACE)
    told = {c['type']: c for c in waiting['conditions']}
    merged = {c['type']: {k: v for k, v in (told[c['type']] | c).items() if v is not None} for c in ready['conditions']}
    assert merged['Ready']['status'] == 'True'
    assert not {'reason', 'message'} & merged['Ready'].keys()


def test_conditions_of_other_writers_are_kept(make_pod, make_view, make_record):
    pod = make_pod() | {'status': {'conditions': [{'type': 'example.com/gate', 'status': 'True'}]}}
    got = status(make_view(pod, make_record()), PLACE)
    assert condition(got, 'example.com/gate')['status'] == 'True'


def test_an_unmet_readiness_gate_holds_the_pod_back(make_pod, make_view, make_record):
    pod = make_pod(readinessGates=[{'conditionType': 'example.com/gate'}])
    ready = condition(status(make_view(pod, make_record()), PLACE), 'Ready')
    assert (ready['status'], ready['reason']) == ('False', 'ReadinessGatesNotReady')
    assert ready['message'] == 'corresponding condition of pod readiness gate "example.com/gate" does not exist.'
    pod |= {'status': {'conditions': [{'type': 'example.com/gate', 'status': 'Unknown'}]}}
    ready = condition(status(make_view(pod, make_record()), PLACE), 'Ready')
    assert ready['message'] == 'the status of pod readiness gate "example.com/gate" is not "True", but Unknown'


def test_an_unready_sidecar_holds_the_pod_back(make_pod, make_view, make_record):
    side, init = make_record('side'), make_record('init', ended=0)
    inits = [{'name': 'side', 'image': 'x', 'restartPolicy': 'Always'}, {'name': 'init', 'image': 'x'}]
    view = make_view(make_pod(initContainers=inits), side, init, make_record(), checks={side.id: Checks(ready=False)})
    got = status(view, PLACE)
    assert condition(got, 'ContainersReady')['message'] == 'containers with unready status: [side]'
    assert condition(got, 'Ready')['status'] == 'False'
    assert condition(got, 'Initialized')['status'] == 'True'


@pytest.mark.parametrize(
    ('resources', 'expected'),
    [
        ({}, 'BestEffort'),
        ({'requests': {'cpu': '1'}}, 'Burstable'),
        ({'limits': {'cpu': '1', 'memory': '1Gi'}}, 'Guaranteed'),
        ({'limits': {'cpu': '1', 'memory': '1Gi'}, 'requests': {'cpu': '500m'}}, 'Burstable'),
    ],
)
def test_quality_of_service_follows_requests_and_limits(resources, expected):
    assert qos_class({'containers': [{'name': 'c', 'resources': resources}]}) == expected


def test_a_condemned_pod_says_so_once_and_fails_when_nothing_runs(make_pod, make_view, make_record):
    verdict = Verdict('Terminated', 'over', disruption='TerminationByKubelet')
    held = status(make_view(make_pod(), make_record(), verdict=verdict), PLACE)
    assert (held['phase'], held['reason'], condition(held, 'Ready')['status']) == ('Running', None, 'False')
    gone = status(make_view(make_pod(), make_record(ended=0), verdict=verdict), PLACE)
    assert (gone['phase'], gone['reason']) == ('Failed', 'Terminated')


def test_the_status_told_last_outweighs_a_copy_in_the_api_that_lags(make_pod, make_view, make_record):
    verdict = Verdict('Terminated', 'over', disruption='TerminationByKubelet')
    record = make_record(ended=0)
    first = status(make_view(make_pod(), record, verdict=verdict), PLACE)
    told = status(make_view(make_pod(), record, verdict=verdict, now=1_800_000_100.0), PLACE)
    assert told != first
    place = Place(PLACE.pod_ip, PLACE.host_ip, PLACE.start_time, {}, told)
    lagging = make_pod() | {'status': first}
    assert (
        status(make_view(lagging, record, verdict=verdict, now=1_800_000_200.0), place)['conditions']
        == told['conditions']
    )


def test_a_container_says_what_it_mounts_what_it_was_given_and_who_it_is(make_pod, make_view, make_record):
    mounts = [
        {'name': 'a', 'mountPath': '/a'},
        {'name': 'b', 'mountPath': '/b', 'readOnly': True},
        {'name': 'c', 'mountPath': '/c', 'readOnly': True, 'recursiveReadOnly': 'IfPossible'},
    ]
    resources = {'requests': {'cpu': '1'}, 'limits': {'memory': '1Gi'}}
    pod = make_pod(containers=[{'name': 'c', 'image': 'x', 'volumeMounts': mounts, 'resources': resources}])
    waiting = status(make_view(pod), PLACE)['containerStatuses'][0]
    assert waiting['volumeMounts'] == [
        mounts[0],
        {**mounts[1], 'recursiveReadOnly': 'Disabled'},
        {**mounts[2], 'recursiveReadOnly': 'Disabled'},
    ]
    assert not {'resources', 'allocatedResources', 'user'} & waiting.keys()
    user = {'uid': 1, 'gid': 2, 'supplementalGroups': [2, 3]}
    got = status(make_view(pod, make_record(meta={'mounts': 3, 'user': user})), PLACE)['containerStatuses'][0]
    assert got['volumeMounts'][2]['recursiveReadOnly'] == 'Enabled'
    assert (got['resources'], got['allocatedResources']) == (resources, {'cpu': '1'})
    assert got['user'] == {'linux': user}


def test_of_a_pod_that_was_refused_nothing_is_said_about_containers(make_pod, make_view):
    verdict = Verdict('OutOfcpu', 'Pod was rejected: full', refused=True)
    got = status(make_view(make_pod(initContainers=[{'name': 'i', 'image': 'x'}]), sandbox='', verdict=verdict), PLACE)
    assert (got['phase'], got['reason']) == ('Failed', 'OutOfcpu')
    assert not {'containerStatuses', 'initContainerStatuses'} & got.keys()


def test_a_container_that_never_started_has_failed_with_its_pod_if_its_turn_had_come(make_pod, make_view, make_record):
    def state(*records, **spec):
        view = make_view(make_pod(**spec), *records, sandbox='', verdict=Verdict('Evicted', 'low'))
        return status(view, PLACE)['containerStatuses'][0]['state']

    assert state()['terminated']['reason'] == 'ContainerStatusUnknown'
    inits = [{'name': 'i', 'image': 'x'}]
    assert state(initContainers=inits) == {'waiting': {'reason': 'PodInitializing'}}
    assert state(make_record('i', ended=0), initContainers=inits)['terminated']['exitCode'] == 137
