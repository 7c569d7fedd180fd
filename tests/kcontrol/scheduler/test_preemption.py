"""Who has to go, and where."""

from __future__ import annotations

import pytest

from kcontrol.scheduler.core import Failure
from kcontrol.scheduler.podinfo import parse_pod
from kcontrol.scheduler.preemption import Candidate, cheapest, parse_budget, split_by_budget

HOST = 'kubernetes.io/hostname'


def names(failure):
    return {v.name for v in failure.victims}


def test_the_fewest_and_least_important_pods_go(bench, node, pod):
    bench.nodes(node('n', cpu='4'))
    bench.pods(
        pod('low', cpu='1', priority=1, nodeName='n'),
        pod('mid', cpu='1', priority=2, nodeName='n'),
        pod('big', cpu='2', priority=3, nodeName='n'),
    )
    failure = bench.failure(pod('vip', cpu='2', priority=100))
    assert names(failure) == {'low', 'mid'}
    assert failure.nominated == 'n'
    assert failure.message == '0/1 nodes are available: 1 Insufficient cpu.'


def test_the_node_with_the_least_important_victims_is_chosen(bench, node, pod):
    bench.nodes(node('a', cpu='1'), node('b', cpu='1'), node('c', cpu='1'))
    for n, priority in (('a', 5), ('b', 3), ('c', 9)):
        bench.pods(pod(f'on-{n}', cpu='1', priority=priority, nodeName=n))
    assert bench.failure(pod('vip', cpu='1', priority=100)).nominated == 'b'


def test_pods_of_equal_or_higher_priority_stay(bench, node, pod):
    bench.nodes(node('n', cpu='1'))
    bench.pods(pod('peer', cpu='1', priority=7, nodeName='n'))
    failure = bench.failure(pod('p', cpu='1', priority=7))
    assert failure == Failure(
        failure.pod,
        '0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: '
        '1 No preemption victims found for incoming pod.',
    )


def test_preemption_is_not_tried_where_it_cannot_help(bench, node, pod):
    bench.nodes(node('tainted', taints=[{'key': 'k', 'effect': 'NoSchedule'}]), node('small', cpu='1'))
    bench.pods(pod('low', cpu='1', nodeName='tainted'))
    failure = bench.failure(pod('vip', cpu='2', priority=9))
    assert failure.message == (
        '0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint {k: }. '
        'preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.'
    )


def test_a_policy_of_never_preempts_nobody(bench, node, pod):
    bench.nodes(node('n', cpu='1'))
    bench.pods(pod('low', cpu='1', nodeName='n'))
    failure = bench.failure(pod('p', cpu='1', priority=9, preemptionPolicy='Never'))
    assert failure.message.endswith('preemption: not eligible due to preemptionPolicy=Never.')
    assert not failure.victims


def test_the_room_is_kept_for_the_preemptor_and_taken_when_the_victim_is_gone(bench, node, pod):
    bench.nodes(node('n', cpu='1'))
    victim = pod('low', cpu='1', nodeName='n')
    bench.pods(victim)
    failure = bench.failure(pod('vip', cpu='1', priority=9))
    bench.pods(pod('vip', cpu='1', priority=9, status={'nominatedNodeName': failure.nominated}))
    bench.core.pod_changed(victim, None)
    assert '1 Insufficient cpu' in bench.failure(pod('thief', cpu='1', priority=1)).message
    bench.now += 2
    assert bench.run() == {'vip': 'n'}


def test_the_room_is_kept_before_the_status_says_so(bench, node, pod):
    bench.nodes(node('n', cpu='1'))
    victim = pod('low', cpu='1', nodeName='n')
    bench.pods(victim)
    bench.failure(pod('vip', cpu='1', priority=9))
    bench.core.pod_changed(victim, None)
    bench.core.pod_changed(None, pod('thief', cpu='1', priority=1))
    bench.now += 2
    assert bench.run() == {'vip': 'n'}


def test_a_more_important_preemptor_ends_the_nomination_of_a_lesser_one_which_looks_elsewhere(bench, node, pod):
    bench.nodes(node('n', cpu='1'))
    victim = pod('low', cpu='1', nodeName='n')
    bench.pods(victim)
    assert bench.failure(pod('mid', cpu='1', priority=5)).outranked == ()
    bench.pods(pod('mid', cpu='1', priority=5, status={'nominatedNodeName': 'n'}))
    assert [p.name for p in bench.failure(pod('vip', cpu='1', priority=9)).outranked] == ['mid']
    bench.nodes(node('m', cpu='1'))
    bench.core.pod_changed(victim, None)
    bench.now += 20
    assert bench.run() == {'vip': 'n', 'mid': 'm'}


def test_while_its_victims_terminate_a_pod_preempts_nobody_else(bench, node, pod):
    bench.nodes(node('n', cpu='1'), node('m', cpu='1'))
    victim = pod('low', cpu='1', nodeName='n')
    victim['metadata']['deletionTimestamp'] = '2026-01-01T00:00:00Z'
    bench.pods(victim, pod('other', cpu='1', nodeName='m'))
    failure = bench.failure(pod('vip', cpu='1', priority=9, status={'nominatedNodeName': 'n'}))
    assert failure.message.endswith('preemption: not eligible due to a terminating pod on the nominated node.')
    assert failure.nominated == 'n'


def test_a_pod_that_stands_in_the_way_by_anti_affinity_can_be_preempted(bench, node, pod):
    rule = {'topologyKey': HOST, 'labelSelector': {'matchLabels': {'app': 'x'}}}
    apart = {'podAntiAffinity': {'requiredDuringSchedulingIgnoredDuringExecution': [rule]}}
    bench.nodes(node('n'))
    bench.pods(pod('loner', affinity=apart, nodeName='n'), pod('bystander', nodeName='n'))
    assert names(bench.failure(pod('p', labels={'app': 'x'}, priority=9))) == {'loner'}


def test_a_pod_within_an_exhausted_budget_is_spared_if_another_can_go(bench, node, pod):
    budget = {
        'metadata': {'name': 'b', 'namespace': 'default'},
        'spec': {'selector': {'matchLabels': {'app': 'db'}}},
        'status': {'disruptionsAllowed': 0},
    }
    bench.core.budget_changed(None, budget)
    bench.nodes(node('n', cpu='2'))
    bench.pods(pod('db', cpu='1', labels={'app': 'db'}, nodeName='n'), pod('web', cpu='1', priority=1, nodeName='n'))
    assert names(bench.failure(pod('vip', cpu='1', priority=9))) == {'web'}


def test_a_budget_protects_from_the_disruption_that_exceeds_it(pod):
    budget = parse_budget({
        'metadata': {'name': 'b', 'namespace': 'default'},
        'spec': {'selector': {'matchLabels': {'app': 'db'}}},
        'status': {'disruptionsAllowed': 1},
    })  # fmt: skip
    pods = [parse_pod(pod(n, labels={'app': 'db'})) for n in 'ab'] + [parse_pod(pod('c'))]
    protected, others = split_by_budget(pods, [budget])
    assert [p.name for p in protected] == ['b']
    assert [p.name for p in others] == ['a', 'c']


@pytest.mark.parametrize(
    ('left', 'right'),
    [
        ((0, [5]), (1, [1])),
        ((0, [3, 3]), (0, [4])),
        ((0, [4]), (0, [4, 1])),
    ],
)
def test_candidates_are_compared_by_violations_then_importance_then_number(pod, left, right):
    made = [
        Candidate(name, tuple(parse_pod(pod(f'{name}{i}', priority=p)) for i, p in enumerate(priorities)), violations)
        for name, (violations, priorities) in (('left', left), ('right', right))
    ]
    assert cheapest(made).node == cheapest(made[::-1]).node == 'left'


def test_of_equal_candidates_the_one_whose_victims_started_last_goes(pod):
    old, new = (
        Candidate(n, (parse_pod(pod(n, status={'startTime': at})),), 0)
        for n, at in (('old', '2026-01-01T00:00:00Z'), ('new', '2026-01-02T00:00:00Z'))
    )
    assert cheapest([old, new]).node == 'new'


def test_evicting_makes_room_for_exactly_one_preemptor(bench, node, pod):
    bench.nodes(node('n', cpu='2'))
    for i in range(2):
        bench.pods(pod(f'low{i}', cpu='1', nodeName='n'))
    bench.pods(pod('vip1', cpu='1', priority=9))
    first = bench.core.next()
    assert isinstance(first, Failure)
    bench.pods(pod('vip1', cpu='1', priority=9, status={'nominatedNodeName': 'n'}))
    bench.core.pod_changed(first.victims[0].obj, None)
    second = bench.failure(pod('vip2', cpu='1', priority=9))
    assert len(second.victims) == 1
    bench.core.pod_changed(second.victims[0].obj, None)
    bench.pods(pod('late', cpu='1', priority=1))
    bench.now += 2
    assert bench.run() == {'vip1': 'n', 'vip2': 'n'}
