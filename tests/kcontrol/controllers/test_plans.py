# ruff: noqa: E501
"""Golden input → output of every plan (tests/golden/plans; KUBELING_GOLDEN=write regenerates), and their edge cases."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcontrol.claim import plan_claim
from kcontrol.controllers.deployment.history import template_hash
from kcontrol.controllers.deployment.plan import View, plan
from kcontrol.controllers.deployment.status import plan_status
from kcontrol.controllers.endpoints import plan as endpoints
from kcontrol.controllers.endpointslice import plan as slices
from kcontrol.controllers.gc import graph as g
from kcontrol.controllers.namespace.plan import plan_conditions, problems, stages
from kcontrol.controllers.nodeipam.plan import allocate
from kcontrol.controllers.nodelifecycle import plan as nodes
from kcontrol.controllers.podgc import plan as podgc
from kcontrol.controllers.replicaset import plan as replicas
from kcontrol.controllers.tainteviction.plan import Seen, dated, evict_in_s, first_seen
from kcontrol.expectations import Expectations
from kcontrol.numbers import resolve, rollout_bounds
from kcore.meta.gvk import CONFIGMAPS, DEPLOYMENTS, NODES, PODS, REPLICASETS


@pytest.fixture
def pod(ago):
    def make(name: str, *, ready_for: float | None = 100, age: float = 200, **over) -> dict:
        conditions = []
        if ready_for is not None:
            conditions = [{'type': 'Ready', 'status': 'True', 'lastTransitionTime': ago(ready_for)}]
        status = {
            'phase': over.get('phase', 'Running'),
            'podIP': over.get('ip', '127.64.0.9'),
            'conditions': conditions,
        }
        if over.get('restarts'):
            status['containerStatuses'] = [{'restartCount': over['restarts']}]
        meta = {'name': name, 'namespace': 'default', 'uid': f'uid-{name}', 'creationTimestamp': ago(age)}
        meta |= {'labels': over.get('labels', {'app': 'web'}), 'annotations': over.get('annotations', {})}
        if over.get('deleting'):
            meta['deletionTimestamp'] = ago(1)
        container = {'name': 'c', 'ports': [{'name': 'http', 'containerPort': 80}]}
        return {
            'metadata': meta,
            'spec': {'nodeName': over.get('node', 'n1'), 'containers': [container]},
            'status': status,
        }

    return make


def rs(count: int, **spec) -> dict:
    template = {'metadata': {'labels': {'app': 'web'}}, 'spec': {'containers': []}}
    return {
        'metadata': {'name': 'web', 'namespace': 'default', 'uid': 'rs', 'generation': 2},
        'spec': {'replicas': count, 'selector': {'matchLabels': {'app': 'web'}}, 'template': template, **spec},
    }


def names(objects) -> list[str]:
    return [o['metadata']['name'] for o in objects]


def test_victims_are_chosen_in_upstreams_order(pod, now, golden):
    pods = [
        pod('healthy-old', ready_for=5000, age=9000), pod('healthy-young', ready_for=10, age=20),
        pod('unscheduled', node='', phase='Pending', ready_for=None), pod('pending', phase='Pending', ready_for=None),
        pod('unready', ready_for=None), pod('cheap', annotations={replicas.COST_ANNOTATION: '-5'}),
        pod('restarted', ready_for=5000, age=9000, restarts=3, node='n4'), pod('crowded', node='n2'),
        pod('alone', node='n3'),
    ]  # fmt: skip
    siblings = [*pods, pod('sibling', node='n2'), pod('sibling-2', node='n2'), pod('sibling-3', node='n2')]
    golden('replicaset-victims', names(replicas.rank_victims(pods, siblings, now)))


@given(st.permutations(range(6)))
def test_the_order_of_victims_does_not_depend_on_the_order_of_pods(order):
    from datetime import UTC, datetime

    def made(i: int) -> dict:
        stamp = f'2026-01-01T00:00:{10 * (i // 2):02}Z'
        return {
            'metadata': {'name': str(i), 'uid': str(i), 'creationTimestamp': stamp}, 'spec': {'nodeName': f'n{i % 2}'},
            'status': {'phase': 'Running', 'conditions': [{'type': 'Ready', 'status': 'True', 'lastTransitionTime': stamp}]},
        }  # fmt: skip

    at = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
    everything = [made(i) for i in range(6)]
    expected = names(replicas.rank_victims(everything, everything, at))
    assert names(replicas.rank_victims([everything[i] for i in order], everything, at)) == expected


def test_only_active_pods_count_as_replicas(pod, now):
    pods = [pod('a'), pod('b', deleting=True), pod('c', phase='Succeeded'), pod('d', phase='Failed')]
    assert replicas.plan_replicas(rs(3), pods, pods, now).create == 2
    assert names(replicas.plan_replicas(rs(0), pods, pods, now).delete) == ['a']
    assert replicas.plan_replicas(rs(2000), [], [], now).create == replicas.BURST_MAX
    gone = rs(3)
    gone['metadata']['deletionTimestamp'] = 'x'
    assert replicas.plan_replicas(gone, pods, pods, now) == replicas.Plan(0, (), None)


def test_a_pod_becomes_available_after_min_ready_seconds(pod, now, golden):
    pods = [pod('new', ready_for=4), pod('newer', ready_for=1), pod('old', ready_for=60), pod('not', ready_for=None)]
    owner = rs(4, minReadySeconds=10)
    assert replicas.plan_replicas(owner, pods, pods, now).recheck_s == 6
    golden('replicaset-status', replicas.plan_status(owner, pods, ('FailedCreate', 'quota exceeded'), now))


def test_a_failure_keeps_its_time_and_goes_when_over(pod, now, ago):
    held = {'type': 'ReplicaFailure', 'status': 'True', 'reason': 'FailedCreate', 'lastTransitionTime': ago(500)}
    owner = {**rs(1), 'status': {'conditions': [held, {'type': 'Foreign', 'status': 'True'}], 'foreign': 1}}
    again = replicas.plan_status(owner, [], ('FailedCreate', 'still'), now)
    assert again['conditions'][-1]['lastTransitionTime'] == ago(500)
    over = replicas.plan_status(owner, [], None, now)
    assert [c['type'] for c in over['conditions']] == ['Foreign']
    assert over['foreign'] == 1


def test_claiming_adopts_orphans_and_releases_strangers(pod):
    ref = [{'uid': 'rs', 'controller': True}]
    mine, stray, orphan, other, foreign, ending = (
        pod(n) for n in ('mine', 'stray', 'orphan', 'other', 'foreign', 'ending')
    )
    mine['metadata']['ownerReferences'] = stray['metadata']['ownerReferences'] = ref
    stray['metadata']['labels'] = {}
    other['metadata']['labels'] = {'app': 'other'}
    foreign['metadata']['ownerReferences'] = [{'uid': 'somebody', 'controller': True}]
    ending['metadata']['deletionTimestamp'] = 'x'
    claim = plan_claim(rs(1), [mine, stray, orphan, other, foreign, ending])
    assert (names(claim.keep), names(claim.adopt), names(claim.release)) == (['mine'], ['orphan'], ['stray'])
    gone = rs(1)
    gone['metadata']['deletionTimestamp'] = 'x'
    assert plan_claim(gone, [mine, stray, orphan]).adopt == ()
    assert plan_claim({**rs(1), 'spec': {'selector': {}}}, [orphan]).adopt == ()


def deployment(**spec) -> dict:
    base = {**rs(4)['spec'], 'strategy': {'type': 'RollingUpdate'}, 'progressDeadlineSeconds': 600,
            'revisionHistoryLimit': 1}  # fmt: skip
    meta = {
        'name': 'web',
        'namespace': 'default',
        'uid': 'd',
        'generation': 3,
        'annotations': {'kubernetes.io/change-cause': 'why'},
    }
    return {'metadata': meta, 'spec': {**base, **spec}}


def old_set(name: str, size: int, available: int, revision: int, **template) -> dict:
    return {
        'metadata': {
            'name': name, 'uid': name, 'creationTimestamp': f'2026-01-01T00:00:0{revision}Z', 'generation': 1,
            'annotations': {'deployment.kubernetes.io/revision': str(revision),
                            'deployment.kubernetes.io/desired-replicas': '4'},
        },
        'spec': {'replicas': size, 'template': {'metadata': {'labels': {'app': 'web', 'pod-template-hash': name}}, 'spec': template}},
        'status': {'replicas': size, 'availableReplicas': available, 'readyReplicas': available, 'observedGeneration': 1},
    }  # fmt: skip


SCENES = {
    'first': lambda: View(deployment(), ()),
    'second-template': lambda: View(deployment(), (old_set('a', 4, 4, 1, image=1),)),
    'grow-and-shrink': lambda: View(
        deployment(), (old_set('a', 4, 4, 1, image=1), old_set('b', 1, 1, 2, containers=[]))
    ),
    'sick-old-pods-first': lambda: View(
        deployment(),
        (old_set('a', 3, 1, 1, image=1), old_set('c', 1, 1, 2, image=2), old_set('b', 1, 0, 3, containers=[])),
    ),
    'roll-back': lambda: View(deployment(), (old_set('a', 0, 0, 1, containers=[]), old_set('b', 4, 4, 2, image=1))),
    'history': lambda: View(
        deployment(),
        (old_set('a', 0, 0, 1, image=1), old_set('b', 0, 0, 2, image=2), old_set('c', 4, 4, 3, containers=[])),
    ),
    'resized': lambda: View(
        deployment(replicas=10), (old_set('a', 3, 3, 1, image=1), old_set('b', 2, 1, 2, containers=[]))
    ),
    'paused': lambda: View(deployment(paused=True), (old_set('a', 4, 4, 1, image=1),)),
    'recreate-down': lambda: View(deployment(strategy={'type': 'Recreate'}), (old_set('a', 4, 4, 1, image=1),)),
    'recreate-waits': lambda: View(deployment(strategy={'type': 'Recreate'}), (old_set('a', 0, 0, 1, image=1),), True),
    'recreate-up': lambda: View(deployment(strategy={'type': 'Recreate'}), (old_set('a', 0, 0, 1, image=1),)),
}


@pytest.mark.parametrize('scene', SCENES)
def test_one_pass_over_a_deployment(scene, golden):
    decided = plan(SCENES[scene]())
    shown = dataclasses.asdict(decided)
    shown['scale'] = [
        {'rs': s.rs['metadata']['name'], 'replicas': s.replicas, 'marks': s.annotations} for s in decided.scale
    ]
    shown['delete'] = names(decided.delete)
    golden(f'deployment-{scene}', shown)


def test_a_rollout_that_stands_still_is_overdue_at_the_deadline(now, ago, golden):
    held = {'type': 'Progressing', 'status': 'True', 'reason': 'ReplicaSetUpdated', 'lastUpdateTime': ago(600),
            'lastTransitionTime': ago(900)}  # fmt: skip
    new = old_set('b', 4, 1, 2, containers=[])
    d = {**deployment(), 'status': {'replicas': 4, 'updatedReplicas': 4, 'readyReplicas': 1, 'availableReplicas': 1,
                                    'conditions': [held]}}  # fmt: skip
    golden('deployment-status-overdue', plan_status(d, new, [new], now))
    held['lastUpdateTime'] = ago(599)
    assert plan_status(d, new, [new], now)['conditions'][0]['reason'] == 'ReplicaSetUpdated'


def test_the_template_hash_is_stable_and_counts_collisions():
    template = {'metadata': {'labels': {'a': 'b'}}, 'spec': {'x': 1}}
    assert template_hash(template, 0) == template_hash({'spec': {'x': 1}, 'metadata': {'labels': {'a': 'b'}}}, 0)
    assert len({template_hash(template, n) for n in range(5)}) == 5


@pytest.mark.parametrize(
    ('value', 'total', 'up', 'expected'),
    [
        ('25%', 10, True, 3),
        ('25%', 10, False, 2),
        ('0%', 10, True, 0),
        ('100%', 7, False, 7),
        (4, 1, True, 4),
        (None, 9, True, 0),
    ],
)
def test_percentages_round_as_asked(value, total, up, expected):
    assert resolve(value, total, up=up) == expected


def test_bounds_that_allow_nothing_allow_one_unavailable():
    assert rollout_bounds(0, 0, 5) == (0, 1)
    assert rollout_bounds('1%', '1%', 5) == (1, 0)
    with pytest.raises(ValueError, match='neither'):
        resolve('many', 5, up=True)


def test_namespace_conditions_say_what_is_left(now, golden):
    held = {'metadata': {'name': 'x', 'finalizers': ['example.com/a']}}
    wrong = problems(
        {CONFIGMAPS: [held, held], DEPLOYMENTS: [], PODS: [{'metadata': {}}]}, {'secrets': 'no'}, {'x/v1': 'down'}
    )
    conditions = plan_conditions({'status': {'conditions': [{'type': 'Foreign'}]}}, wrong, now)
    golden('namespace-conditions', conditions)
    assert plan_conditions({'status': {'conditions': conditions}}, wrong, now) == conditions
    assert stages([PODS, NODES, CONFIGMAPS]) == ([PODS], [CONFIGMAPS])


SERVICE = {
    'metadata': {'name': 'web', 'namespace': 'default', 'uid': 's', 'labels': {'team': 'x'}},
    'spec': {'selector': {'app': 'web'}, 'clusterIP': 'None',
             'ports': [{'name': 'h', 'port': 1, 'targetPort': 'http'}, {'name': 'm', 'port': 9, 'protocol': 'UDP'}]},
}  # fmt: skip


def test_endpoints_and_slices_of_a_service(pod, golden):
    pods = [pod('b', ip='127.64.0.2'), pod('a', ip='127.64.0.3', ready_for=None), pod('c', ip='127.64.0.4', deleting=True),
            pod('d', ip='127.64.0.5', phase='Succeeded'), pod('e', ip='')]  # fmt: skip
    golden('endpoints', endpoints.plan(SERVICE, pods))
    golden('endpointslices', dataclasses.asdict(slices.plan(SERVICE, pods, [], {'n1': 'zone-1'})))


def test_slices_change_no_more_than_they_must(pod):
    pods = [pod(f'p{i:03}', ip=f'127.64.1.{i}') for i in range(150)]
    made = [dict(s, metadata={**s['metadata'], 'name': f's{i}', 'uid': f's{i}'})
            for i, s in enumerate(slices.plan(SERVICE, pods, [], {}).create)]  # fmt: skip
    assert [len(s['endpoints']) for s in made] == [100, 50]
    assert slices.plan(SERVICE, pods, made, {}) == slices.Plan((), (), ())
    more = slices.plan(SERVICE, [*pods, pod('new', ip='127.64.2.1')], made, {})
    assert [s['metadata']['name'] for s, _ in more.update] == ['s1']
    fewer = slices.plan(SERVICE, pods[1:], made, {})
    assert [s['metadata']['name'] for s, _ in fewer.update] == ['s0']
    none = slices.plan(SERVICE, [], made, {})
    assert len(none.delete) == 2
    assert none.create[0]['endpoints'] == []


def test_too_many_addresses_are_cut_off_and_said(pod):
    pods = [pod(f'p{i}', ip=f'127.65.{i // 250}.{i % 250}') for i in range(endpoints.CAPACITY + 5)]
    made = endpoints.plan(SERVICE, pods)
    assert sum(len(s['addresses']) for s in made['subsets']) == endpoints.CAPACITY
    assert made['metadata']['annotations'] == {endpoints.OVER_CAPACITY: 'truncated'}


def node(name: str, ready: str | None = 'True', zone: str = '', taints=(), **spec) -> dict:
    labels = {'topology.kubernetes.io/zone': zone} if zone else {}
    status = {'conditions': [{'type': 'Ready', 'status': ready}]} if ready else {}
    return {'metadata': {'name': name, 'labels': labels}, 'spec': {'taints': list(taints), **spec}, 'status': status}


def test_conditions_become_taints_and_foreign_taints_stay(now, golden):
    foreign = {'key': 'team', 'value': 'x', 'effect': 'NoExecute'}
    golden('node-taints', {
        'ready': nodes.wanted_taints(node('a', taints=[foreign]), 'now', now),
        'not-ready': nodes.wanted_taints(node('a', 'False', taints=[foreign]), 'now', now),
        'not-ready-limited': nodes.wanted_taints(node('a', 'False'), 'later', now),
        'unknown': nodes.wanted_taints(node('a', 'Unknown', unschedulable=True), 'now', now),
        'never-posted': nodes.unknown_conditions(node('a', None), now),
        'silent': nodes.unknown_conditions(node('a'), now),
    })  # fmt: skip
    tainted = node('a', 'False')
    tainted['spec']['taints'] = nodes.wanted_taints(tainted, 'now', now)
    assert nodes.wanted_taints(tainted, 'now', now) is None
    spared = nodes.wanted_taints(tainted, 'never', now)
    assert [(t['key'], t['effect']) for t in spared] == [(nodes.NOT_READY, 'NoSchedule')]
    assert nodes.wanted_taints({**tainted, 'status': node('a')['status']}, 'now', now) == []


def test_evictions_stop_when_everything_is_down_and_slow_down_in_a_sick_zone():
    assert nodes.eviction_rates([node('a', 'Unknown'), node('b', 'False')]) == {'': 0.0}
    assert nodes.eviction_rates([node('a', 'Unknown'), node('b')]) == {'': nodes.EVICTIONS_PER_S}
    small = [node(f'n{i}', 'Unknown' if i < 6 else 'True') for i in range(10)]
    assert nodes.eviction_rates(small) == {'': 0.0}
    large = [node(f'n{i}', 'Unknown' if i < 40 else 'True') for i in range(60)]
    assert nodes.eviction_rates(large) == {'': nodes.SLOW_EVICTIONS_PER_S}
    two = [node('a', 'Unknown', 'x'), node('b', 'Unknown', 'x'), node('c', 'True', 'y')]
    assert nodes.eviction_rates(two) == {':x': nodes.EVICTIONS_PER_S, ':y': nodes.EVICTIONS_PER_S}


def test_one_node_at_a_time_gets_its_evicting_taint():
    limiter = nodes.Limiter()
    taken = [at for at in range(40) if limiter.take('z', {'z': 0.1}, float(at))]
    assert taken == [0, 10, 20, 30]
    assert not limiter.take('z', {'z': 0.0}, 1000.0)


def test_a_heart_is_silent_only_after_the_grace_since_it_was_last_heard():
    heart = nodes.Heart(since=0.0)
    lease = {'spec': {'renewTime': '1'}}
    heart.observe(node('a'), lease, 10.0)
    assert not nodes.silent(node('a'), heart, 60.0, 50, 60)
    assert nodes.silent(node('a'), heart, 60.1, 50, 60)
    heart.observe(node('a'), {'spec': {'renewTime': '2'}}, 60.0)
    assert not nodes.silent(node('a'), heart, 100.0, 50, 60)
    assert not nodes.silent(node('a', None), heart, 115.0, 50, 60)


@pytest.mark.parametrize(
    ('tolerations', 'expected'),
    [
        ([], 0.0),
        ([{'operator': 'Exists'}], None),
        ([{'key': 'k', 'operator': 'Exists', 'tolerationSeconds': 300}], 290.0),
        ([{'key': 'k', 'operator': 'Exists', 'tolerationSeconds': 5}], 0.0),
        ([{'key': 'k', 'value': 'other', 'tolerationSeconds': 300}], 0.0),
        ([{'key': 'k', 'value': 'v', 'effect': 'NoSchedule'}], 0.0),
        ([{'key': 'k', 'value': 'v', 'effect': 'NoExecute'}], None),
        ([{'operator': 'Exists'}, {'key': 'k', 'operator': 'Exists', 'tolerationSeconds': 60}], 50.0),
    ],
)
def test_how_long_a_pod_tolerates_a_taint(tolerations, expected, now, ago):
    taint = {'key': 'k', 'value': 'v', 'effect': 'NoExecute', 'timeAdded': ago(10)}
    soft = {'key': 'soft', 'effect': 'NoSchedule'}
    assert evict_in_s({'spec': {'tolerations': tolerations}}, [soft, taint], now) == expected


def test_a_taint_without_a_time_counts_from_when_it_was_first_seen(now):
    taint = {'key': 'k', 'value': 'v', 'effect': 'NoExecute'}
    pod = {'spec': {'tolerations': [{'key': 'k', 'operator': 'Exists', 'tolerationSeconds': 60}]}}
    seen: Seen = {}
    for passed, wait in ((0, 60.0), (20, 40.0), (61, 0.0)):
        later = now + timedelta(seconds=passed)
        seen = first_seen([taint], seen, later)
        assert evict_in_s(pod, dated([taint], seen), later) == wait
    assert first_seen([], seen, now) == {}, 'a taint that went and comes back starts anew'


def test_each_node_gets_the_lowest_free_network():
    assert allocate('127.64.0.0/16', []) == '127.64.0.0/24'
    assert allocate('127.64.0.0/16', ['127.64.0.0/24', '127.64.2.0/24']) == '127.64.1.0/24'
    assert allocate('127.64.0.0/16', ['127.64.0.0/22', 'fd00::/64']) == '127.64.4.0/24'
    assert allocate('127.64.0.0/23', ['127.64.0.0/24', '127.64.1.0/24']) is None


def test_pods_that_nobody_will_finish_are_removed(pod, golden):
    pods = [pod('fine'), pod('gone', node='lost'), pod('done', phase='Succeeded', age=500), pod('done-2', phase='Failed', age=100),
            pod('never', node='', deleting=True), pod('out', node='dead', deleting=True)]  # fmt: skip
    doomed = podgc.plan(pods, ['lost'], ['dead'], 1)
    golden('podgc', [[d.pod['metadata']['name'], d.why, d.fail_first, d.disrupted] for d in doomed])


def owner_node(uid: str, *owners: str, deleting: bool = False, finalizers=(), block: bool = True) -> g.Node:
    refs = tuple({'uid': o, 'kind': 'ReplicaSet', 'name': o, 'blockOwnerDeletion': block} for o in owners)
    return g.Node(REPLICASETS, 'default', uid, uid, '1', refs, frozenset(finalizers), deleting)


def decide(node: g.Node, *others: g.Node, **owners) -> list:
    graph = g.Graph()
    for one in (node, *others):
        graph.put(one)
    return g.decide(graph, node, owners)


def test_what_the_collector_does_with_one_object():
    assert decide(owner_node('x', 'a'), a='solid') == []
    assert decide(owner_node('x', 'a'), a='absent') == [g.Delete('Background')]
    assert decide(owner_node('x', 'a', finalizers=['orphan']), a='absent') == [g.Delete('Orphan')]
    (kept,) = decide(owner_node('x', 'a', 'b'), a='solid', b='absent')
    assert [r['uid'] for r in kept.owners] == ['a']
    assert decide(owner_node('x', 'a'), owner_node('y', 'x'), a='waiting') == [g.Delete('Foreground')]
    assert decide(owner_node('x', 'a'), a='waiting') == [g.Delete('Background')]
    assert decide(owner_node('x', 'a', deleting=True), a='absent') == []


def test_a_foreground_deletion_waits_for_blocking_dependents_only():
    waiting = owner_node('x', deleting=True, finalizers=[g.FOREGROUND])
    assert decide(waiting, owner_node('y', 'x')) == []
    assert decide(waiting, owner_node('y', 'x', block=False)) == [g.DropFinalizer(g.FOREGROUND)]
    assert decide(waiting) == [g.DropFinalizer(g.FOREGROUND)]


def test_a_cycle_of_owners_is_broken():
    dependent = owner_node('y', 'x', deleting=True, finalizers=[g.FOREGROUND])
    first, second = decide(owner_node('x', 'y'), dependent, y='waiting')
    assert all(not r['blockOwnerDeletion'] for r in first.owners)
    assert second == g.Delete('Foreground')


def test_the_graph_says_who_must_be_looked_at():
    graph = g.Graph()
    assert graph.put(owner_node('owner')) == set()
    assert graph.put(owner_node('child', 'owner')) == {'child'}
    assert graph.put(owner_node('owner', deleting=True, finalizers=[g.FOREGROUND])) == {'owner', 'child'}
    assert graph.remove('child') == {'owner'}
    assert graph.remove('owner') == set()
    assert graph.dependents('owner') == []


def test_an_expectation_is_met_by_the_object_or_by_a_later_revision():
    class Cache(dict):
        pass

    made = {'metadata': {'name': 'a', 'namespace': 'n', 'uid': '1', 'resourceVersion': '10'}}
    for cache, seen, expected in [({}, 9, False), ({'n/a': made}, 9, True), ({}, 10, True)]:
        expectations = Expectations()
        expectations.created('o', made, 0.0)
        assert expectations.satisfied('o', Cache(cache), seen, 1.0) is expected
    expectations = Expectations()
    expectations.deleted('o', made, 0.0)
    assert not expectations.satisfied('o', Cache({'n/a': made}), 99, 1.0)
    assert expectations.satisfied('o', Cache({'n/a': {'metadata': {**made['metadata'], 'uid': '2'}}}), 99, 1.0)
    expectations.deleted('o', made, 0.0)
    assert expectations.satisfied('o', Cache({'n/a': made}), 99, 301.0)
