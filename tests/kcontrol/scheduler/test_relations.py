"""Rules that look beyond one node: pod affinity, anti-affinity, topology spread."""

from __future__ import annotations

import pytest

ZONE = 'topology.kubernetes.io/zone'
HOST = 'kubernetes.io/hostname'
REQUIRED = 'requiredDuringSchedulingIgnoredDuringExecution'
PREFERRED = 'preferredDuringSchedulingIgnoredDuringExecution'


def term(key=ZONE, **labels):
    return {'topologyKey': key, 'labelSelector': {'matchLabels': labels}}


@pytest.fixture
def zones(bench, node):
    """Two zones of two nodes."""
    bench.nodes(*(node(f'{z}{i}', labels={ZONE: z}) for z in 'ab' for i in (1, 2)))
    return bench


def test_affinity_goes_to_the_zone_of_its_company(zones, pod):
    zones.pods(pod('db', labels={'app': 'db'}, nodeName='b1'))
    zones.pods(*(pod(f'p{i}', affinity={'podAffinity': {REQUIRED: [term(app='db')]}}) for i in range(4)))
    assert set(zones.run().values()) <= {'b1', 'b2'}


def test_affinity_without_company_is_refused(zones, pod):
    failure = zones.failure(pod('p', affinity={'podAffinity': {REQUIRED: [term(app='db')]}}))
    assert "4 node(s) didn't match pod affinity rules." in failure.message


def test_the_first_of_a_group_that_wants_its_own_kind_may_go_anywhere(zones, pod):
    rule = {'podAffinity': {REQUIRED: [term(app='x')]}}
    zones.pods(*(pod(f'p{i}', labels={'app': 'x'}, affinity=rule) for i in range(4)))
    placed = zones.run()
    assert len(placed) == 4
    assert len({n[0] for n in placed.values()}) == 1


def test_affinity_looks_only_into_its_own_namespace_unless_told_otherwise(zones, pod):
    zones.core.namespace_changed(None, {'metadata': {'name': 'data', 'labels': {'team': 'd'}}})
    zones.pods(pod('db', namespace='data', labels={'app': 'db'}, nodeName='b1'))
    plain = term(app='db')
    assert 'affinity rules' in zones.failure(pod('p', affinity={'podAffinity': {REQUIRED: [plain]}})).message
    zones.pods(
        pod('q', affinity={'podAffinity': {REQUIRED: [{**plain, 'namespaces': ['data']}]}}),
        pod('r', affinity={
            'podAffinity': {REQUIRED: [{**plain, 'namespaceSelector': {'matchLabels': {'team': 'd'}}}]}
        }),
    )  # fmt: skip
    placed = zones.run()
    assert placed['q'][0] == placed['r'][0] == 'b'


def test_anti_affinity_puts_one_on_each_host(zones, pod):
    rule = {'podAntiAffinity': {REQUIRED: [term(HOST, app='x')]}}
    zones.pods(*(pod(f'p{i}', labels={'app': 'x'}, affinity=rule) for i in range(5)))
    placed = zones.run()
    assert sorted(placed.values()) == ['a1', 'a2', 'b1', 'b2']


def test_anti_affinity_of_a_placed_pod_keeps_others_away(zones, pod):
    rule = {'podAntiAffinity': {REQUIRED: [term(app='x')]}}
    zones.pods(pod('loner', affinity=rule, nodeName='a1'), pod('p', labels={'app': 'x'}))
    assert zones.run()['p'][0] == 'b'
    zones.pods(pod('loner2', affinity=rule, nodeName='b1'))
    failure = zones.failure(pod('q', labels={'app': 'x'}))
    assert "4 node(s) didn't satisfy existing pods anti-affinity rules." in failure.message


def test_room_opens_when_the_pod_with_the_anti_affinity_goes(zones, pod):
    rule = {'podAntiAffinity': {REQUIRED: [term(app='x')]}}
    loners = [pod('la', affinity=rule, nodeName='a1'), pod('lb', affinity=rule, nodeName='b1')]
    zones.pods(*loners)
    zones.failure(pod('q', labels={'app': 'x'}))
    zones.core.pod_changed(loners[0], None)
    zones.now += 11
    assert zones.run()['q'][0] == 'a'


def test_preferred_company_and_dislike_decide_between_equal_nodes(zones, pod):
    zones.pods(pod('db', labels={'app': 'db'}, nodeName='b1'), pod('noise', labels={'app': 'noise'}, nodeName='b2'))
    like = {'podAffinity': {PREFERRED: [{'weight': 50, 'podAffinityTerm': term(HOST, app='db')}]}}
    dislike = {'podAntiAffinity': {PREFERRED: [{'weight': 50, 'podAffinityTerm': term(app='noise')}]}}
    zones.pods(pod('p', affinity=like))
    assert zones.run()['p'] == 'b1'
    zones.pods(pod('q', affinity=dislike))
    assert zones.run()['q'][0] == 'a'


def spread(skew=1, key=ZONE, when='DoNotSchedule', **more):
    return {
        'maxSkew': skew, 'topologyKey': key, 'whenUnsatisfiable': when,
        'labelSelector': {'matchLabels': {'app': 'x'}}, **more,
    }  # fmt: skip


def test_hard_spread_keeps_the_zones_level(zones, pod):
    for i in range(6):
        zones.pods(pod(f'p{i}', labels={'app': 'x'}, topologySpreadConstraints=[spread()]))
        zones.run()
    nodes = zones.core.cache.nodes.values()
    assert sorted(sum(len(n.pods) for n in nodes if n.labels[ZONE] == z) for z in 'ab') == [3, 3]


def test_hard_spread_refuses_what_would_tilt_it(zones, pod, node):
    zones.core.node_changed(None, node('b1', labels={ZONE: 'b'}, unschedulable=True))
    zones.core.node_changed(None, node('b2', labels={ZONE: 'b'}, unschedulable=True))
    zones.pods(pod('p0', labels={'app': 'x'}, topologySpreadConstraints=[spread()]))
    assert zones.run()['p0'][0] == 'a'
    message = zones.failure(pod('p1', labels={'app': 'x'}, topologySpreadConstraints=[spread()])).message
    assert "2 node(s) didn't match pod topology spread constraints, 2 node(s) were unschedulable." in message


def test_a_node_without_the_label_is_no_place_for_a_spread_pod(zones, pod, node):
    zones.nodes(node('bare'))
    zones.pods(*(pod(f'p{i}', labels={'app': 'x'}, topologySpreadConstraints=[spread()]) for i in range(8)))
    assert 'bare' not in zones.run().values()


def test_a_terminating_pod_does_not_count_for_spread(zones, pod):
    leaving = pod('old', labels={'app': 'x'}, nodeName='a1')
    leaving['metadata']['deletionTimestamp'] = '2026-01-01T00:00:00Z'
    zones.pods(leaving, pod('new', labels={'app': 'x'}, nodeName='b1'))
    zones.pods(pod('p', labels={'app': 'x'}, topologySpreadConstraints=[spread()]))
    assert zones.run()['p'][0] == 'a'


def test_min_domains_takes_missing_zones_for_empty_ones(zones, pod):
    zones.pods(pod('1', labels={'app': 'x'}, nodeName='a1'), pod('2', labels={'app': 'x'}, nodeName='b1'))
    rule = spread(minDomains=3)
    assert 'spread constraints' in zones.failure(
        pod('p', labels={'app': 'x'}, topologySpreadConstraints=[rule])
    ).message  # fmt: skip


def test_spread_counts_only_nodes_that_the_pod_may_use(zones, pod):
    zones.pods(pod('1', labels={'app': 'x'}, nodeName='a1'))
    wanted = pod('p', labels={'app': 'x'}, nodeSelector={ZONE: 'a'}, topologySpreadConstraints=[spread()])
    zones.pods(wanted)
    assert zones.run()['p'][0] == 'a'
    ignoring = pod(
        'q', labels={'app': 'x'}, nodeSelector={ZONE: 'a'},
        topologySpreadConstraints=[spread(nodeAffinityPolicy='Ignore')],
    )  # fmt: skip
    assert 'spread constraints' in zones.failure(ignoring).message


def test_soft_spread_prefers_the_emptier_zone(zones, pod):
    zones.pods(pod('1', labels={'app': 'x'}, nodeName='a1'))
    zones.pods(pod('p', labels={'app': 'x'}, topologySpreadConstraints=[spread(when='ScheduleAnyway')]))
    assert zones.run()['p'][0] == 'b'


def test_pods_of_a_workload_spread_by_default(zones, pod):
    owner = {'metadata': {'namespace': 'default', 'name': 'web'}, 'spec': {'selector': {'matchLabels': {'app': 'x'}}}}
    zones.core.owner_changed('ReplicaSet', None, owner)
    zones.pods(*(pod(f'p{i}', labels={'app': 'x'}, owner=('ReplicaSet', 'web')) for i in range(4)))
    assert sorted(zones.run().values()) == ['a1', 'a2', 'b1', 'b2']


def test_match_label_keys_count_only_the_pods_own_revision(zones, pod):
    for i, n in enumerate(('a1', 'a2')):
        zones.pods(pod(f'old{i}', labels={'app': 'x', 'rev': '1'}, nodeName=n))
    rule = spread(matchLabelKeys=['rev'])
    zones.pods(
        pod('n1', labels={'app': 'x', 'rev': '2'}, nodeName='b1'),
        pod('p', labels={'app': 'x', 'rev': '2'}, topologySpreadConstraints=[rule]),
    )
    assert zones.run()['p'][0] == 'a'
