"""What the plan decides, as tables."""

from __future__ import annotations

import pytest

from knode.pods.model import Checks, CloseSandbox, OpenSandbox, Resize, Start, Stop, Verdict, Wait
from knode.pods.plan import decide, finished, next_backoff, resume_at

NOW = 1_800_000_000.0


def names(decision):
    return [a.container['name'] for a in decision.actions if isinstance(a, Start)]


def test_a_new_pod_first_gets_a_sandbox(make_pod, make_view):
    assert decide(make_view(make_pod(), sandbox='')).actions == (OpenSandbox(),)


def test_containers_start_together_once_there_is_a_sandbox(make_pod, make_view):
    pod = make_pod(containers=[{'name': 'a', 'image': 'x'}, {'name': 'b', 'image': 'x'}])
    assert names(decide(make_view(pod))) == ['a', 'b']


@pytest.mark.parametrize(
    ('policy', 'code', 'again'),
    [
        ('Always', 0, True),
        ('Always', 1, True),
        ('OnFailure', 0, False),
        ('OnFailure', 1, True),
        ('Never', 0, False),
        ('Never', 1, False),
    ],
)
def test_the_restart_policy_decides_about_ended_containers(make_pod, make_view, make_record, *, policy, code, again):
    view = make_view(make_pod(restartPolicy=policy), make_record(ended=code))
    assert bool(names(decide(view))) is again
    assert finished(view) is not again


def test_the_pause_before_a_restart_doubles_up_to_five_minutes(make_record):
    pauses, record = [], None
    for attempt in range(9):
        pause = next_backoff(record)
        pauses.append(pause)
        record = make_record(attempt=attempt, ended=1, backoff_s=pause)
    assert pauses == [0, 10, 20, 40, 80, 160, 300, 300, 300]


def test_a_run_of_ten_minutes_is_forgiven_what_came_before(make_record):
    record = make_record(ended=1, backoff_s=300.0, ran=600.0)
    assert resume_at(record) == 0.0
    assert next_backoff(record) == 10.0


def test_a_crashed_container_waits_out_its_pause(make_pod, make_view, make_record):
    view = make_view(make_pod(), make_record(ended=1, backoff_s=20.0, age=5.0))
    decision = decide(view)
    assert decision.actions == ()
    assert decision.wake_at == pytest.approx(NOW + 15.0)


def test_init_containers_run_one_after_another_before_the_others(make_pod, make_view, make_record):
    pod = make_pod(initContainers=[{'name': 'i1', 'image': 'x'}, {'name': 'i2', 'image': 'x'}])
    assert names(decide(make_view(pod))) == ['i1']
    assert names(decide(make_view(pod, make_record('i1')))) == []
    assert names(decide(make_view(pod, make_record('i1', ended=0)))) == ['i2']
    assert names(decide(make_view(pod, make_record('i1', ended=0), make_record('i2', ended=0)))) == ['c']


def test_a_failed_init_container_ends_a_pod_that_never_restarts(make_pod, make_view, make_record):
    pod = make_pod(initContainers=[{'name': 'i', 'image': 'x'}], restartPolicy='Never')
    view = make_view(pod, make_record('i', ended=1))
    assert finished(view)
    assert decide(view).actions == (CloseSandbox(),)


def test_a_sidecar_holds_the_others_back_only_until_it_has_started(make_pod, make_view, make_record):
    pod = make_pod(initContainers=[{'name': 's', 'image': 'busybox', 'restartPolicy': 'Always'}])
    assert names(decide(make_view(pod))) == ['s']
    running = make_record('s')
    waiting = {running.id: Checks(started=False, ready=False)}
    assert names(decide(make_view(pod, running, checks=waiting))) == []
    assert names(decide(make_view(pod, running))) == ['c']


def test_sidecars_are_stopped_after_the_main_containers(make_pod, make_view, make_record):
    pod = make_pod(initContainers=[{'name': 's', 'image': 'busybox', 'restartPolicy': 'Always'}])
    both = decide(make_view(pod, make_record('s'), make_record('c'), grace_s=3.0))
    assert [(a.record.name, a.held) for a in both.actions] == [('c', False), ('s', True)]
    alone = decide(make_view(pod, make_record('s'), make_record('c', ended=0), grace_s=3.0))
    assert [a.record.name for a in alone.actions] == ['s']


def test_a_lost_sandbox_is_opened_again_and_init_containers_run_again(make_pod, make_view, make_record):
    pod = make_pod(initContainers=[{'name': 'i', 'image': 'x'}])
    records = (make_record('i', ended=0), make_record('c', ended=137))
    assert decide(make_view(pod, *records, sandbox='')).actions == (OpenSandbox(),)
    assert names(decide(make_view(pod, *records, sandbox='new'))) == ['i']


def test_a_deleted_pod_is_stopped_closed_and_done(make_pod, make_view, make_record):
    pod = make_pod()
    (stop,) = decide(make_view(pod, make_record(), grace_s=7.0)).actions
    assert isinstance(stop, Stop)
    assert stop.grace_s == 7.0
    assert decide(make_view(pod, make_record(ended=0), grace_s=7.0)).actions == (CloseSandbox(),)
    assert decide(make_view(pod, make_record(ended=0), grace_s=7.0, sandbox='')).done


def test_a_verdict_ends_the_containers_but_not_the_pod(make_pod, make_view, make_record):
    view = make_view(make_pod(), make_record(ended=0), verdict=Verdict('Evicted', 'x'), sandbox='')
    decision = decide(view)
    assert decision.actions == ()
    assert not decision.done


def test_a_container_that_failed_its_probe_is_stopped(make_pod, make_view, make_record):
    record = make_record()
    (stop,) = decide(make_view(make_pod(), record, checks={record.id: Checks(failed='why')})).actions
    assert stop.message == 'why'


def test_a_container_whose_post_start_hook_has_failed_is_stopped_by_whichever_agent(make_pod, make_view, make_record):
    record = make_record(meta={'post_start_error': 'exited with 9'})
    (stop,) = decide(make_view(make_pod(), record)).actions
    assert (stop.record, stop.message, stop.prestop) == (record, 'FailedPostStartHook', False)


def test_a_container_with_a_failed_image_waits_for_its_time(make_pod, make_view):
    decision = decide(make_view(make_pod(), waits={'c': Wait('ErrImagePull', '', NOW + 3)}))
    assert decision.actions == ()
    assert decision.wake_at == NOW + 3


def test_a_changed_image_restarts_the_container(make_pod, make_view, make_record):
    pod = make_pod(containers=[{'name': 'c', 'image': 'busybox:2'}])
    (stop,) = decide(make_view(pod, make_record())).actions
    assert 'definition changed' in stop.message


def test_containers_wait_for_the_post_start_hook_of_the_one_before(make_pod, make_view, make_record):
    hook = {'postStart': {'exec': {'command': ['true']}}}
    pod = make_pod(containers=[{'name': 'a', 'image': 'busybox', 'lifecycle': hook}, {'name': 'b', 'image': 'busybox'}])
    assert names(decide(make_view(pod))) == ['a']
    first = make_record('a')
    assert names(decide(make_view(pod, first, hooked=frozenset({first.id})))) == []
    assert names(decide(make_view(pod, first))) == ['b']
    assert names(decide(make_view(pod, waits={'a': Wait('ErrImagePull', '', NOW + 3)}))) == ['b'], 'a hook never begun'


def test_ephemeral_containers_start_whatever_the_others_wait_for(make_pod, make_view, make_record):
    look = {'name': 'look', 'image': 'busybox'}
    pod = make_pod(initContainers=[{'name': 'i', 'image': 'x'}], ephemeralContainers=[look])
    assert names(decide(make_view(pod))) == ['look', 'i']
    assert names(decide(make_view(pod, make_record('i')))) == ['look']
    assert names(decide(make_view(pod, make_record('i'), make_record('look', ended=1)))) == []


@pytest.mark.parametrize(
    ('policy', 'wanted', 'expected'),
    [
        ([], {'limits': {'memory': '64Mi'}}, []),
        ([], {'limits': {'memory': '96Mi'}}, [Resize]),
        ([{'resourceName': 'cpu', 'restartPolicy': 'RestartContainer'}], {'limits': {'memory': '96Mi'}}, [Resize]),
        ([{'resourceName': 'memory', 'restartPolicy': 'RestartContainer'}], {'limits': {'memory': '96Mi'}}, [Stop]),
        ([{'resourceName': 'cpu', 'restartPolicy': 'RestartContainer'}],
         {'limits': {'memory': '64Mi'}, 'requests': {'cpu': '1'}}, [Stop]),
    ],
)  # fmt: skip
def test_a_resized_container_is_held_to_other_limits_or_restarted(
    make_pod, make_view, make_record, *, policy, wanted, expected
):
    pod = make_pod(containers=[{'name': 'c', 'image': 'busybox', 'resources': wanted, 'resizePolicy': policy}])
    actions = decide(make_view(pod, make_record(meta={'resources': {'limits': {'memory': '64Mi'}}}))).actions
    assert [type(a) for a in actions] == expected
    assert all(a.message == 'Container c resize requires restart' for a in actions if isinstance(a, Stop))
