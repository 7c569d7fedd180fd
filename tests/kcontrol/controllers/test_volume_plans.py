"""Binding of claims, attachments and mirrored Endpoints as pure plans: golden files, and rules that always hold."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcontrol.controllers.attachdetach import plan as attaching
from kcontrol.controllers.endpointslicemirroring import plan as mirroring
from kcontrol.controllers.volumebinder import plan as binding
from kcontrol.volumes import BY_CONTROLLER, COMPLETED, SELECTED_NODE, claim_ref, size_of
from kcore.meta.objects import name_of


def volume(name: str, size: str = '1Gi', claim: dict | None = None, **spec) -> dict:
    body = {'capacity': {'storage': size}, 'accessModes': ['ReadWriteOnce'], 'storageClassName': '', **spec}
    if claim is not None:
        body['claimRef'] = claim_ref(claim)
    return {'metadata': {'name': name, 'uid': f'uid-{name}'}, 'spec': body}


def marked(obj: dict, annotation: str) -> dict:
    return {**obj, 'metadata': {**obj['metadata'], 'annotations': {annotation: 'yes'}}}


def claim(name: str, size: str = '1Gi', completed: bool = False, **spec) -> dict:
    meta = {'name': name, 'namespace': 'default', 'uid': f'uid-{name}', 'resourceVersion': '7'}
    if completed:
        meta['annotations'] = {COMPLETED: 'yes'}
    body = {'accessModes': ['ReadWriteOnce'], 'storageClassName': '', 'resources': {'requests': {'storage': size}}}
    return {'metadata': meta, 'spec': {**body, **spec}}


@pytest.mark.parametrize(
    ('name', 'asked', 'volumes', 'storage'),
    [
        ('smallest', claim('c'), [volume('big', '5Gi'), volume('small', '2Gi'), volume('tiny', '1Mi')], None),
        ('reserved', claim('c'), [volume('free'), volume('mine', '9Gi', claim('c'))], None),
        ('none', claim('c'), [volume('taken', claim=claim('other'))], None),
        ('no-class', claim('c', storageClassName='fast'), [], None),
        ('waits', claim('c', storageClassName='fast'), [],
         {'provisioner': 'p', 'volumeBindingMode': 'WaitForFirstConsumer'}),
        ('provisioned', claim('c', storageClassName='fast'), [], {'provisioner': 'p'}),
        ('reserved-by-hand', claim('c', storageClassName='fast', selector={'matchLabels': {'a': 'b'}}),
         [volume('mine', storageClassName='slow', claimRef={'namespace': 'default', 'name': 'c'})], None),
        ('fewest-modes', claim('c'),
         [volume('small', '1Gi', accessModes=['ReadWriteOnce', 'ReadOnlyMany']), volume('plain', '5Gi')], None),
        ('waits-with-free-volume', claim('c', storageClassName='fast'), [volume('v', storageClassName='fast')],
         {'provisioner': 'p', 'volumeBindingMode': 'WaitForFirstConsumer'}),
        ('built-in', claim('c', storageClassName='fast'), [], {'provisioner': 'kubernetes.io/no-provisioner'}),
        ('too-small', claim('c', '2Gi', volumeName='v'), [volume('v')], None),
        ('other-class', claim('c', volumeName='v'), [volume('v', storageClassName='slow')], None),
        ('other-modes', claim('c', volumeName='v'), [volume('v', accessModes=['ReadOnlyMany'])], None),
        ('half-bound', claim('c', volumeName='v'), [volume('v', claim=claim('c'))], None),
        ('taken', claim('c', volumeName='v'), [volume('v', claim=claim('other'))], None),
        ('lost', claim('c', completed=True, volumeName='v'), [], None),
        ('misbound', claim('c', completed=True, volumeName='v'), [volume('v', claim=claim('other'))], None),
    ],
)  # fmt: skip
def test_what_becomes_of_a_claim(name, asked, volumes, storage, golden):
    step = binding.plan_claim(asked, {name_of(v): v for v in volumes}, storage)
    said = dataclasses.asdict(step) | {'bind': name_of(step.bind) if step.bind else None}
    golden(f'volumebinder-claim-{name}', said)


def test_what_becomes_of_a_volume(golden):
    mine = claim('c', volumeName='v')
    golden('volumebinder-volume', {
        'free': dataclasses.asdict(binding.plan_volume(volume('v'), None)),
        'bound': dataclasses.asdict(binding.plan_volume(volume('v', claim=mine), mine)),
        'released': dataclasses.asdict(binding.plan_volume(volume('v', claim=mine), None)),
        'deleted': dataclasses.asdict(
            binding.plan_volume(volume('v', claim=mine, persistentVolumeReclaimPolicy='Delete'), None)
        ),
        'recycled': dataclasses.asdict(
            binding.plan_volume(volume('v', claim=mine, persistentVolumeReclaimPolicy='Recycle'), None)
        ),
        'elsewhere': dataclasses.asdict(
            binding.plan_volume(volume('v', claim=mine), claim('c', volumeName='other'))
        ),
        'elsewhere-and-ours': dataclasses.asdict(
            binding.plan_volume(marked(volume('v', claim=mine), BY_CONTROLLER), claim('c', volumeName='other'))
        ),
        'elsewhere-and-provisioned': dataclasses.asdict(binding.plan_volume(
            marked(volume('v', claim=mine, persistentVolumeReclaimPolicy='Delete'), binding.PROVISIONED_BY),
            claim('c', volumeName='other'),
        )),
    })  # fmt: skip


def test_a_claim_that_waits_says_for_which_pods():
    storage = {'provisioner': 'p', 'volumeBindingMode': 'WaitForFirstConsumer'}
    asked = claim('c', storageClassName='fast')
    notes = [binding.plan_claim(asked, {}, storage, waiting=pods).note for pods in ((), ('a',), ('a', 'b'))]
    assert notes == [
        ('Normal', 'WaitForFirstConsumer', 'waiting for first consumer to be created before binding'),
        ('Normal', 'WaitForPodScheduled', 'waiting for pod a to be scheduled'),
        ('Normal', 'WaitForPodScheduled', 'waiting for pods a,b to be scheduled'),
    ]


def test_a_claim_that_waited_gets_a_volume_of_its_first_consumers_node():
    def local(name: str, node: str) -> dict:
        term = {'matchExpressions': [{'key': 'kubernetes.io/hostname', 'operator': 'In', 'values': [node]}]}
        affinity = {'required': {'nodeSelectorTerms': [term]}}
        return volume(name, storageClassName='fast', nodeAffinity=affinity)

    storage = {'provisioner': 'x/y', 'volumeBindingMode': 'WaitForFirstConsumer'}
    node = {'metadata': {'name': 'n2', 'labels': {'kubernetes.io/hostname': 'n2'}}}
    asked, volumes = claim('c', storageClassName='fast'), {'a': local('a', 'n1'), 'b': local('b', 'n2')}
    step = binding.plan_claim(asked, volumes, storage, node=node)
    assert (step.phase, name_of(step.bind)) == ('Bound', 'b')
    made = binding.plan_claim(asked, {'a': volumes['a']}, storage, node=node)
    assert (made.phase, made.provisioner, made.node) == ('Pending', 'x/y', 'n2')
    marked_ = {**asked, 'metadata': {**asked['metadata'], 'annotations': {SELECTED_NODE: 'n1'}}}
    said = binding.plan_claim(marked_, volumes, storage, node=node)
    assert (said.bind, said.provisioner, said.node) == (None, 'x/y', ''), 'a scheduler has chosen where'


def test_a_claim_without_a_class_is_given_the_newest_default_and_one_that_wants_none_is_not():
    def storage(name: str, created: str, default: str = 'true') -> dict:
        marks = {binding.DEFAULT_MARKS[0]: default}
        return {'metadata': {'name': name, 'creationTimestamp': created, 'annotations': marks}}

    classes = [storage('old', '2026-01-01T00:00:00Z'), storage('new', '2026-02-01T00:00:00Z'),
               storage('other', '2026-03-01T00:00:00Z', 'false')]  # fmt: skip
    without = claim('c')
    del without['spec']['storageClassName']
    assert binding.default_class(without, classes) == 'new'
    assert binding.default_class(without, classes[2:]) == ''
    assert binding.default_class(claim('c'), classes) == ''


def test_a_lost_claim_has_no_capacity():
    held = claim('c') | {'status': {'phase': 'Bound', 'capacity': {'storage': '1Gi'}, 'accessModes': ['ReadWriteOnce']}}
    assert binding.claim_status(held, None, 'Lost') == {'phase': 'Lost'}


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=8),
    st.lists(st.integers(1, 9), min_size=1, max_size=8),
    st.randoms(use_true_random=False),
)
def test_no_two_claims_get_one_volume_in_whatever_order_they_are_looked_at(sizes, asks, chance):
    volumes = {f'v{i}': volume(f'v{i}', f'{s}Gi') for i, s in enumerate(sizes)}
    claims = {f'c{i}': claim(f'c{i}', f'{s}Gi') for i, s in enumerate(asks)}
    taken: dict[str, str] = {}
    for _ in range(3 * len(claims)):
        name = chance.choice(sorted(claims))
        step = binding.plan_claim(claims[name], volumes, None)
        if step.bind is None:
            continue
        chosen = name_of(step.bind)
        assert taken.setdefault(chosen, name) == name
        assert size_of(step.bind) >= asks[int(name[1:])]
        # A crash between the two writes leaves the claim without its volume's name.
        volumes[chosen] = {**step.bind, 'spec': {**step.bind['spec'], 'claimRef': claim_ref(claims[name])}}
        if chance.random() < 0.5:
            claims[name] = claim(name, f'{asks[int(name[1:])]}Gi', completed=True, volumeName=chosen)
    assert len(set(taken.values())) == len(taken), 'nor one claim two volumes'


def test_a_volume_is_attached_where_a_pod_that_has_not_ended_uses_it(golden):
    csi = {'driver': 'd', 'volumeHandle': 'h'}
    held = {'v': volume('v', claim=claim('c'), csi=csi), 'local': volume('local')}
    claims = {'default/c': claim('c', volumeName='v'), 'default/l': claim('l', volumeName='local')}

    def pod(name: str, node: str = '', phase: str = 'Running', uses: str = 'c') -> dict:
        volumes = [{'name': 'x', 'persistentVolumeClaim': {'claimName': uses}}]
        meta = {'name': name, 'namespace': 'default'}
        return {'metadata': meta, 'spec': {'nodeName': node, 'volumes': volumes}, 'status': {'phase': phase}}

    pods = [pod('a', 'n1'), pod('b', 'n1'), pod('c'), pod('d', 'n2', 'Succeeded'), pod('e', 'n3', uses='l')]
    found = attaching.wanted(pods, claims.get, held.get, {})
    golden('attachdetach-wanted', [*found.values()])
    skips = {'d': {'spec': {'attachRequired': False}}}
    assert attaching.wanted(pods, claims.get, held.get, skips) == {}
    there = [{**one, 'status': {'attached': True}} for one in found.values()]
    assert attaching.attached('n1', there, held.get) == [{'name': 'kubernetes.io/csi/d^h', 'devicePath': ''}]
    assert attaching.attached('n2', there, held.get) == []
    assert [name_of(p) for p in attaching.users_of(held['v'], pods)] == ['a', 'b', 'c']


@pytest.mark.parametrize(('modes', 'waits'), [
    (['ReadWriteOnce'], True), (['ReadWriteOncePod'], True), (['ReadWriteOnce', 'ReadWriteMany'], False), ([], False),
])  # fmt: skip
def test_a_volume_for_one_node_is_not_attached_to_a_second(modes, waits):
    one = {'spec': {'nodeName': 'n1', 'source': {'persistentVolumeName': 'v'}}}
    two = {'spec': {'nodeName': 'n2', 'source': {'persistentVolumeName': 'v'}}}
    other = {'spec': {'nodeName': 'n1', 'source': {'persistentVolumeName': 'w'}}}
    assert attaching.held_elsewhere(two, [one, other], volume('v', accessModes=modes)) is waits
    assert not attaching.held_elsewhere(two, [two, other], volume('v', accessModes=modes))


SERVICE = {'metadata': {'name': 'db', 'namespace': 'default', 'uid': 'u'}, 'spec': {'ports': [{'port': 1}]}}


def endpoints(*subsets: dict, **labels: str) -> dict:
    meta = {'name': 'db', 'namespace': 'default', 'uid': 'e', 'labels': labels}
    return {'metadata': meta, 'subsets': [*subsets]}


def test_endpoints_become_slices_by_subset_and_family(golden):
    subset = {
        'addresses': [{'ip': '192.0.2.1', 'hostname': 'a'}, {'ip': '2001:db8::1'}],
        'notReadyAddresses': [{'ip': '192.0.2.2'}],
        'ports': [{'name': 'p', 'port': 5432}],
    }
    golden('endpointslicemirroring', mirroring.slices(endpoints(subset, app='db'), SERVICE))
    assert mirroring.mirrored(endpoints(subset), SERVICE)
    assert not mirroring.mirrored(endpoints(subset, **{mirroring.SKIP: 'true'}), SERVICE)
    assert not mirroring.mirrored(endpoints(subset), {**SERVICE, 'spec': {'selector': {'app': 'x'}}})


@given(st.integers(0, 1200), st.integers(0, 50))
def test_mirrored_slices_hold_each_address_once_and_never_too_many(ready, not_ready):
    both = [{'ip': f'10.0.{i // 256}.{i % 256}'} for i in range(ready + not_ready)]
    subset = {'addresses': both[:ready], 'notReadyAddresses': both[ready:], 'ports': [{'port': 1}]}
    made = mirroring.slices(endpoints(subset), SERVICE)
    held = [a for s in made for e in s['endpoints'] for a in e['addresses']]
    assert held == [a['ip'] for a in both][: mirroring.SUBSET_MAX]
    assert mirroring.skipped(endpoints(subset)) == len(both) - len(held)
    assert all(len(s['endpoints']) <= mirroring.SLICE_MAX for s in made)
    assert len({name_of(s) for s in made}) == len(made)
    assert all(mirroring.same(s, w) for s, w in zip(made, mirroring.slices(endpoints(subset), SERVICE), strict=True))
