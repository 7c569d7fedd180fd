"""Pods go where their data is, or can be; their claims are bound before they are."""

from __future__ import annotations

import pytest

from kcontrol.scheduler.core import VOLUMES_S, Bind, BindVolumes, Failure
from kcontrol.volumes import COMPLETED, SELECTED_NODE, claim_ref

UNHELPFUL = 'preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.'


def storage(name: str, provisioner: str = 'kubernetes.io/no-provisioner', **more) -> dict:
    lazy = {'volumeBindingMode': 'WaitForFirstConsumer'}
    return {'metadata': {'name': name}, 'provisioner': provisioner, **lazy, **more}


def claim(name: str, size: str = '1Gi', *, volume: str = '', class_: str = 'local', **meta) -> dict:
    spec = {'resources': {'requests': {'storage': size}}, 'accessModes': ['ReadWriteOnce'], 'storageClassName': class_}
    bound = {'annotations': {COMPLETED: 'yes'}} if volume else {}
    meta = {'name': name, 'namespace': 'default', 'uid': f'uid-{name}', 'resourceVersion': '7', **bound, **meta}
    phase = 'Bound' if volume else 'Pending'
    return {'metadata': meta, 'spec': spec | ({'volumeName': volume} if volume else {}), 'status': {'phase': phase}}


def volume(name: str, node: str = '', size: str = '1Gi', *, of: dict | None = None, class_: str = 'local') -> dict:
    spec = {'capacity': {'storage': size}, 'accessModes': ['ReadWriteOnce'], 'storageClassName': class_}
    if node:
        rule = {'key': 'kubernetes.io/hostname', 'operator': 'In', 'values': [node]}
        spec['nodeAffinity'] = {'required': {'nodeSelectorTerms': [{'matchExpressions': [rule]}]}}
    if of is not None:
        spec['claimRef'] = claim_ref(of)
    return {'metadata': {'name': name, 'resourceVersion': '3'}, 'spec': spec, 'status': {'phase': 'Available'}}


def uses(*claims: str) -> list[dict]:
    return [{'name': name, 'persistentVolumeClaim': {'claimName': name}} for name in claims]


@pytest.fixture
def world(bench, node):
    """Two nodes, a class of local volumes; `add` and `drop` are what the informers say."""
    bench.nodes(node('a'), node('b'))
    bench.core.class_changed(None, storage('local'))

    def add(*objs: dict) -> None:
        for obj in objs:
            kind = bench.core.claim_changed if 'namespace' in obj['metadata'] else bench.core.volume_changed
            kind(None, obj)

    bench.add = add
    return bench


@pytest.mark.parametrize(
    ('given', 'text'),
    [
        ([], 'persistentvolumeclaim "c" not found'),
        ([claim('c', class_='')], 'pod has unbound immediate PersistentVolumeClaims'),
        ([claim('c', deletionTimestamp='2026-01-01T00:00:00Z')], 'persistentvolumeclaim "c" is being deleted'),
        ([{**claim('c', volume='v'), 'status': {'phase': 'Lost'}}],
         'persistentvolumeclaim "c" bound to non-existent persistentvolume "v"'),
    ],
)  # fmt: skip
def test_what_no_node_can_help_is_said_without_counting_nodes(world, pod, given, text):
    world.add(*given)
    message = world.failure(pod('p', volumes=uses('c'))).message
    assert message == f'0/2 nodes are available: {text}. {UNHELPFUL}'


def test_an_ephemeral_volume_waits_for_its_own_claim(world, pod):
    wanted = pod('p', volumes=[{'name': 'v', 'ephemeral': {'volumeClaimTemplate': {}}}])
    text = 'waiting for ephemeral volume controller to create the persistentvolumeclaim "p-v"'
    assert text in world.failure(wanted).message
    world.add(claim('p-v', volume='v'), volume('v'))
    world.now += 20
    assert 'PVC default/p-v was not created for pod default/p (pod is not owner)' in world.core.next().message
    world.add(claim('p-v', volume='v', ownerReferences=[{'uid': 'uid-p', 'controller': True, 'kind': 'Pod'}]))
    world.now += 20
    assert world.run() in ({'p': 'a'}, {'p': 'b'})


@pytest.mark.parametrize(
    ('volumes', 'text'),
    [
        ([volume('v', 'nowhere')], '2 node(s) had volume node affinity conflict'),
        ([], '2 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)'),
    ],
)
def test_a_bound_volume_has_to_be_there_and_within_reach(world, pod, volumes, text):
    world.add(claim('c', volume='v'), *volumes)
    assert world.failure(pod('p', volumes=uses('c'))).message == f'0/2 nodes are available: {text}. {UNHELPFUL}'
    world.add(volume('v', 'b'))
    world.now += 2
    assert world.run() == {'p': 'b'}


def test_a_claim_gets_the_smallest_free_volume_of_the_node_before_the_pod_is_bound(world, pod):
    world.add(claim('c'), volume('large', 'a', '9Gi'), volume('small', 'a', '2Gi'), volume('tiny', 'b', '1Mi'))
    world.pods(pod('p', volumes=uses('c')))
    asked = world.core.next()
    assert isinstance(asked, BindVolumes)
    assert (asked.pod.node, [(v['metadata']['name'], c['metadata']['name']) for v, c in asked.choice.bind]) == (
        'a', [('small', 'c')],
    )  # fmt: skip
    world.core.volumes_written(asked.pod)
    assert world.core.next() is None
    world.add(claim('c', volume='small'))
    bind = world.core.next()
    assert isinstance(bind, Bind)
    assert (bind.pod.name, bind.pod.node) == ('p', 'a')


def test_two_claims_of_a_pod_and_two_pods_never_get_one_volume(world, pod):
    world.add(claim('big', '2Gi'), claim('small'), volume('v2', 'a', '2Gi'), volume('v1', 'a'))
    world.pods(pod('p', volumes=uses('big', 'small')))
    pairs = {(v['metadata']['name'], c['metadata']['name']) for v, c in world.core.next().choice.bind}
    assert pairs == {('v2', 'big'), ('v1', 'small')}
    world.add(claim('late'))
    text = "2 node(s) didn't find available persistent volumes to bind"
    late = world.failure(pod('q', volumes=uses('late')))
    assert late.message == f'0/2 nodes are available: {text}. {UNHELPFUL}'


def test_pods_that_share_a_claim_follow_the_first_choice(world, pod):
    world.add(claim('c'), volume('on-a', 'a'), volume('on-b', 'b'))
    world.pods(pod('p', volumes=uses('c')), pod('q', volumes=uses('c')))
    first, second = world.core.next(), world.core.next()
    assert first.choice == second.choice


def test_a_volume_is_made_for_the_node_that_was_chosen_and_another_is_found_when_that_fails(world, pod):
    topology = [{'matchLabelExpressions': [{'key': 'kubernetes.io/hostname', 'values': ['b']}]}]
    world.core.class_changed(None, storage('made', 'example.com/p', allowedTopologies=topology))
    asked = claim('c', class_='made')
    world.add(asked)
    world.pods(pod('p', volumes=uses('c')))
    chosen = world.core.next()
    assert ([c['metadata']['name'] for c in chosen.choice.provision], chosen.choice.node) == (['c'], 'b')
    world.core.volumes_written(chosen.pod)
    marked = claim('c', class_='made', annotations={SELECTED_NODE: 'b'})
    world.core.claim_changed(asked, marked)
    assert world.core.next() is None
    world.core.claim_changed(marked, asked)
    failed = world.core.next()
    assert isinstance(failed, Failure)
    assert failed.message == 'binding volumes: provisioning failed for PVC "c"'
    world.now += 2
    assert isinstance(world.core.next(), BindVolumes)


def test_a_node_that_was_chosen_for_a_claim_is_the_only_one(world, pod):
    world.core.class_changed(None, storage('made', 'example.com/p'))
    world.add(claim('c', class_='made', annotations={SELECTED_NODE: 'b'}))
    world.pods(pod('p', volumes=uses('c')))
    assert world.core.next().pod.node == 'b'


def test_drivers_that_publish_their_capacity_are_not_asked_for_more(world, pod):
    world.core.class_changed(None, storage('made', 'example.com/p'))
    world.core.driver_changed(None, {'metadata': {'name': 'example.com/p'}, 'spec': {'storageCapacity': True}})
    world.add(claim('c', '2Gi', class_='made'))
    text = '2 node(s) did not have enough free storage'
    assert world.failure(pod('p', volumes=uses('c'))).message == f'0/2 nodes are available: {text}. {UNHELPFUL}'
    for number, (where, size) in enumerate((('a', '1Gi'), ('b', '2Gi'))):
        world.core.capacity_changed(None, {
            'metadata': {'name': f'c{number}', 'namespace': 'csi'}, 'storageClassName': 'made', 'capacity': size,
            'nodeTopology': {'matchLabels': {'kubernetes.io/hostname': where}},
        })  # fmt: skip
    world.now += 2
    assert world.core.next().pod.node == 'b'


def test_what_does_not_come_true_in_time_is_given_up(world, pod):
    world.add(claim('c'), volume('v', 'a'))
    world.pods(pod('p', volumes=uses('c')))
    asked = world.core.next()
    world.core.volumes_written(asked.pod)
    assert world.core.idle_s() == VOLUMES_S
    world.now += VOLUMES_S
    assert world.core.next().message == 'binding volumes: context deadline exceeded'
    world.now += 2
    assert world.core.next().choice == asked.choice


def test_a_pod_that_goes_meanwhile_leaves_its_volume_to_others(world, pod):
    world.add(claim('c'), claim('d'), volume('v', 'a'))
    gone = pod('p', volumes=uses('c'))
    world.pods(gone)
    asked = world.core.next()
    world.core.pod_changed(gone, None)
    world.core.volumes_written(asked.pod)
    world.add(claim('c', volume='other'))
    world.pods(pod('q', volumes=uses('d')))
    assert [v['metadata']['name'] for v, _ in world.core.next().choice.bind] == ['v']
    assert world.core.next() is None
