"""DaemonSet, StatefulSet, budget and quota plans: golden steps, and rules that hold whatever the pods do."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kcontrol.controllers.daemonset import plan as daemons
from kcontrol.controllers.daemonset.placement import fits, pod_for, tolerations
from kcontrol.controllers.disruption import plan as budgets
from kcontrol.controllers.resourcequota import plan as quotas
from kcontrol.controllers.statefulset import identity
from kcontrol.controllers.statefulset import plan as stateful
from kcontrol.kinds import DAEMONSETS
from kcontrol.revisions import equal_to, hash_of, new_revision, obsolete, restored
from kcore.meta.objects import deleting, is_pod_ready, name_of

NOW = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)
STAMP = '2026-01-02T11:00:00Z'
TEMPLATE = {'metadata': {'labels': {'app': 'web'}}, 'spec': {'containers': [{'name': 'c', 'image': 'one'}]}}


def owner(**spec) -> dict:
    meta = {'name': 'web', 'namespace': 'default', 'uid': 'owner', 'generation': 1}
    return {'metadata': meta, 'spec': {'selector': {'matchLabels': {'app': 'web'}}, 'template': TEMPLATE, **spec}}


def node(name: str, *taints: tuple[str, str], **labels: str) -> dict:
    spec = {'taints': [{'key': k, 'effect': e} for k, e in taints]}
    return {'metadata': {'name': name, 'labels': labels}, 'spec': spec}


def make_ready(pod: dict) -> dict:
    ready = {'type': 'Ready', 'status': 'True', 'lastTransitionTime': STAMP}
    return {**pod, 'status': {'phase': 'Running', 'conditions': [ready]}}


# --- revisions -----------------------------------------------------------------------------------------------------


def test_a_revision_gives_its_template_back_and_is_found_again():
    ds = owner(revisionHistoryLimit=1)
    first = new_revision(ds, DAEMONSETS, 1)
    changed = {**ds, 'spec': {**ds['spec'], 'template': {**TEMPLATE, 'spec': {'containers': []}}}}
    second = new_revision(changed, DAEMONSETS, 2)
    assert restored(changed, first)['spec']['template'] == TEMPLATE
    assert equal_to(ds, [first, second]) is first
    assert hash_of(first) != hash_of(second)
    assert first['data']['spec']['template']['$patch'] == 'replace'
    third = {**first, 'metadata': {**first['metadata'], 'name': 'other'}, 'revision': 3}
    assert obsolete(ds, [third, second, first], {name_of(second)}) == [first]


# --- DaemonSet -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('taints', 'labels', 'expected'),
    [
        ([], {'disk': 'ssd'}, (True, True)),
        ([], {'disk': 'old'}, (False, False)),
        ([('k', 'NoSchedule')], {'disk': 'ssd'}, (False, True)),
        ([('k', 'NoExecute')], {'disk': 'ssd'}, (False, False)),
        ([('node.kubernetes.io/unreachable', 'NoExecute')], {'disk': 'ssd'}, (True, True)),
        ([('node.kubernetes.io/unschedulable', 'NoSchedule')], {'disk': 'ssd'}, (True, True)),
        ([('node.kubernetes.io/network-unavailable', 'NoSchedule')], {'disk': 'ssd'}, (False, True)),
        ([('k', 'PreferNoSchedule')], {'disk': 'ssd'}, (True, True)),
    ],
)
def test_where_a_daemon_belongs(taints, labels, expected):
    ds = owner(template={**TEMPLATE, 'spec': {**TEMPLATE['spec'], 'nodeSelector': {'disk': 'ssd'}}})
    assert fits(ds, node('n', *taints, **labels)) == expected


def test_a_host_network_daemon_tolerates_a_missing_network():
    assert len(tolerations({'hostNetwork': True})) == len(tolerations({})) + 1 == 7


def test_daemon_pods_are_tied_to_their_node(golden):
    terms = [{'matchExpressions': [{'key': 'a', 'operator': 'Exists'}]}, {'matchExpressions': []}]
    near = {'nodeAffinity': {'requiredDuringSchedulingIgnoredDuringExecution': {'nodeSelectorTerms': terms}}}
    ds = owner(template={**TEMPLATE, 'spec': {**TEMPLATE['spec'], 'affinity': near}})
    golden('daemonset-pod', pod_for(ds, 'n1', 'abc'))


class Fleet:
    """Nodes with daemons; what a plan says is done, and pods become ready by chance."""

    def __init__(self, ds: dict, count: int) -> None:
        self.ds, self.hash, self.serial = ds, 'old', 0
        self.nodes = [node(f'n{i}') for i in range(count)]
        self.pods: dict[str, dict] = {}

    def step(self) -> daemons.Plan:
        decided = daemons.plan(self.ds, self.nodes, [*self.pods.values()], self.hash, NOW)
        for pod in [*decided.delete, *decided.failed]:
            self.pods.pop(name_of(pod), None)
        for at in decided.create:
            self.serial += 1
            pod = pod_for(self.ds, at, self.hash)
            pod['metadata'] |= {'name': f'p{self.serial}', 'uid': f'p{self.serial}', 'creationTimestamp': STAMP}
            pod['spec'] = {**pod['spec'], 'nodeName': at}
            self.pods[f'p{self.serial}'] = pod
        return decided

    def available(self) -> int:
        return len({p['spec']['nodeName'] for p in self.pods.values() if is_pod_ready(p)})

    def settle(self) -> None:
        for _ in range(200):
            decided = self.step()
            self.pods = {k: make_ready(p) for k, p in self.pods.items()}
            if not decided.create and not decided.delete:
                return
        raise AssertionError('never settles')


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 8), st.integers(0, 3), st.integers(0, 3), st.integers(0, 2**32), st.booleans()
)  # fmt: skip
def test_a_rolling_daemon_never_lacks_or_doubles_more_than_it_may(count, surge, unavailable, seed, stumble):
    if surge and unavailable:
        unavailable = 0
    if not surge and not unavailable:
        unavailable = 1
    rolling = {'maxSurge': surge, 'maxUnavailable': unavailable}
    fleet, chance = Fleet(owner(updateStrategy={'type': 'RollingUpdate', 'rollingUpdate': rolling}), count), None
    chance = random.Random(seed)
    fleet.settle()
    fleet.hash = 'new'
    broken: set[str] = set()
    for _ in range(60):
        fleet.step()
        # A node whose old pod is broken anyway may get its new one at once, whatever the surge.
        assert len(fleet.pods) <= count + surge + len(broken)
        assert fleet.available() >= count - max(unavailable, 0) - len(broken)
        for name, pod in [*fleet.pods.items()]:
            if chance.random() < 0.5:
                fleet.pods[name] = make_ready(pod)
        if stumble and not broken and fleet.pods and chance.random() < 0.1:
            victim = chance.choice([*fleet.pods])
            broken.add(victim)
            fleet.pods[victim] = {**fleet.pods[victim], 'status': {'phase': 'Running'}}
    fleet.settle()
    assert {p['metadata']['labels']['controller-revision-hash'] for p in fleet.pods.values()} == {'new'}
    assert len(fleet.pods) == count
    assert fleet.step() == daemons.Plan((), (), (), None), 'nothing is left to do'


def test_on_delete_leaves_old_daemons_alone_and_the_status_says_so(golden):
    fleet = Fleet(owner(updateStrategy={'type': 'OnDelete'}), 3)
    fleet.settle()
    fleet.hash = 'new'
    fleet.nodes.append(node('gone', ('k', 'NoSchedule')))
    assert fleet.step().delete == ()
    del fleet.pods['p2']
    fleet.step()
    status = daemons.plan_status(fleet.ds, fleet.nodes, fleet.pods.values(), 'new', NOW)
    golden('daemonset-status', status)


def test_a_failed_daemon_is_replaced_and_one_without_a_node_goes():
    fleet = Fleet(owner(), 2)
    fleet.settle()
    fleet.pods['p1'] = {**fleet.pods['p1'], 'status': {'phase': 'Failed'}}
    stray = pod_for(fleet.ds, 'vanished', 'old')
    stray['metadata'] |= {'name': 'stray', 'uid': 'stray'}
    fleet.pods['stray'] = stray
    decided = daemons.plan(fleet.ds, fleet.nodes, [*fleet.pods.values()], 'old', NOW)
    assert [name_of(p) for p in decided.failed] == ['p1']
    assert [name_of(p) for p in decided.delete] == ['stray']


# --- StatefulSet ---------------------------------------------------------------------------------------------------


class Row:
    """A StatefulSet's pods by ordinal; deletions take a step to finish."""

    def __init__(self, made: dict) -> None:
        self.owner, self.pods, self.serial = made, {}, 0
        self.current = self.update = 'r1'

    def view(self) -> stateful.View:
        return stateful.view_of(self.owner, self.current, self.update, [*self.pods.values()], NOW)

    def step(self) -> stateful.Plan:
        self.pods = {k: p for k, p in self.pods.items() if not deleting(p)}
        decided = stateful.plan(self.view())
        for pod in decided.delete:
            self.pods[name_of(pod)] = {**pod, 'metadata': {**pod['metadata'], 'deletionTimestamp': STAMP}}
        for one in decided.create:
            revision = {'metadata': {'name': self.current if one.current else self.update},
                        'data': {'spec': {'template': TEMPLATE}}}  # fmt: skip
            pod = identity.pod_for(self.owner, revision, one.ordinal)
            self.serial += 1
            pod['metadata']['uid'] = f'u{self.serial}'
            self.pods[name_of(pod)] = pod
        self.owner = {**self.owner, 'status': stateful.plan_status(self.view())}
        self.current = self.owner['status']['currentRevision']
        return decided

    def ready(self, chance: random.Random, share: float) -> None:
        for name, pod in [*self.pods.items()]:
            if not deleting(pod) and chance.random() < share:
                self.pods[name] = make_ready(pod)

    def settle(self) -> None:
        for _ in range(200):
            decided = self.step()
            self.ready(random.Random(0), 1.1)
            if not decided.create and not decided.delete and not any(map(deleting, self.pods.values())):
                return
        raise AssertionError('never settles')


def ordinals(row: Row) -> list[int]:
    return sorted(int(name.rpartition('-')[2]) for name in row.pods)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 6), st.integers(0, 6), st.integers(0, 4), st.integers(0, 2**32), st.integers(0, 6))
def test_an_ordered_set_changes_one_pod_at_a_time_in_order(first, second, start, seed, partition):
    rolling = {'type': 'RollingUpdate', 'rollingUpdate': {'partition': partition}}
    row, chance = Row(owner(replicas=first, ordinals={'start': start}, updateStrategy=rolling)), random.Random(seed)
    row.settle()
    assert ordinals(row) == [*range(start, start + first)]
    row.owner = {**row.owner, 'spec': {**row.owner['spec'], 'replicas': second}}
    row.update = 'r2'
    for _ in range(80):
        before = {name for name, p in row.pods.items() if not deleting(p) and not is_pod_ready(p)}
        unhealthy = len(before)
        decided = row.step()
        assert len(decided.create) + len(decided.delete) <= 1
        for pod in decided.delete:
            assert unhealthy == 0 or name_of(pod) in before, 'nothing goes while another pod is unhealthy'
        for one in decided.create:
            below = [f'web-{i}' for i in range(start, one.ordinal)]
            assert all(is_pod_ready(row.pods[n]) for n in below), 'created only above available pods'
        row.ready(chance, 0.6)
    row.settle()
    assert ordinals(row) == [*range(start, start + second)]
    new = {int(n.rpartition('-')[2]) for n, p in row.pods.items() if identity.revision_of(p) == 'r2'}
    assert new >= {o for o in range(start, start + second) if o >= partition}
    assert row.step() == stateful.Plan(), 'nothing is left to do'


def test_a_parallel_set_does_all_at_once_but_updates_one_by_one():
    row = Row(owner(replicas=4, podManagementPolicy='Parallel', updateStrategy={'type': 'RollingUpdate'}))
    assert [c.ordinal for c in row.step().create] == [0, 1, 2, 3]
    row.settle()
    row.update = 'r2'
    assert [name_of(p) for p in row.step().delete] == ['web-3']
    row.owner = {**row.owner, 'spec': {**row.owner['spec'], 'replicas': 1}}
    row.settle()
    assert ordinals(row) == [0]


def test_on_delete_waits_for_the_hand_that_deletes():
    row = Row(owner(replicas=2, updateStrategy={'type': 'OnDelete'}))
    row.settle()
    row.update = 'r2'
    assert row.step() == stateful.Plan()
    del row.pods['web-0']
    row.settle()
    assert [identity.revision_of(row.pods[n]) for n in ('web-0', 'web-1')] == ['r2', 'r1']


def test_min_ready_seconds_hold_the_next_ordinal_back():
    row = Row(owner(replicas=2, minReadySeconds=3700))
    row.step()
    row.pods['web-0'] = make_ready(row.pods['web-0'])
    assert row.step() == stateful.Plan()
    assert stateful.recheck_s(row.view()) == pytest.approx(100)


def test_a_stateful_pod_and_its_claims(golden):
    claim = {'metadata': {'name': 'data', 'labels': {'a': 'b'}}, 'spec': {'accessModes': ['ReadWriteOnce']}}
    made = owner(replicas=1, serviceName='svc', volumeClaimTemplates=[claim])
    revision = {'metadata': {'name': 'web-abc'}, 'data': {'spec': {'template': {**TEMPLATE, '$patch': 'replace'}}}}
    golden('statefulset-pod', [identity.pod_for(made, revision, 3), identity.claims_for(made, 3)])


@pytest.mark.parametrize(
    ('deleted', 'scaled', 'condemned', 'kinds'),
    [
        ('Retain', 'Retain', True, []),
        ('Delete', 'Retain', False, ['StatefulSet']),
        ('Retain', 'Delete', True, ['Pod']),
        ('Retain', 'Delete', False, []),
        ('Delete', 'Delete', True, ['Pod']),
        ('Delete', 'Delete', False, ['StatefulSet']),
    ],
)  # fmt: skip
def test_retention_decides_with_whom_a_claim_goes(deleted, scaled, condemned, kinds):
    policy = {'whenDeleted': deleted, 'whenScaled': scaled}
    made = owner(replicas=1, persistentVolumeClaimRetentionPolicy=policy)
    old = [{'kind': 'Pod', 'name': 'web-0', 'uid': 'earlier'}]
    claim = {'metadata': {'name': 'data-web-0', 'namespace': 'default', 'ownerReferences': old}}
    pod = {'metadata': {'name': 'web-0', 'uid': 'p'}}
    refs = identity.claim_owners(made, claim, pod, condemned=condemned)
    assert [r['kind'] for r in refs or ()] == kinds
    assert all(r['uid'] != 'earlier' for r in refs or ())
    settled = {'metadata': {**claim['metadata'], 'ownerReferences': refs}}
    assert identity.claim_owners(made, settled, pod, condemned=condemned) is None


# --- budgets and quotas --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('spec', 'healthy', 'allowed'),
    [
        ({'minAvailable': 2}, 3, 1), ({'minAvailable': '50%'}, 3, 0), ({'maxUnavailable': 1}, 5, 1),
        ({'maxUnavailable': '30%'}, 5, 2), ({'maxUnavailable': 0}, 5, 0), ({'minAvailable': '100%'}, 5, 0),
        ({'minAvailable': 0}, 0, 0),
    ],
)  # fmt: skip
def test_how_many_disruptions_a_budget_allows(spec, healthy, allowed):
    budget = {'metadata': {'name': 'b', 'generation': 1}, 'spec': spec}
    pods = [make_ready({'metadata': {'name': f'p{i}', 'uid': str(i)}}) for i in range(healthy)]
    counted = budgets.count(budget, pods, {'rs': 5})
    assert budgets.plan_status(budget, pods, counted, NOW)['disruptionsAllowed'] == allowed


def test_a_granted_eviction_counts_until_it_shows_or_two_minutes_pass(golden):
    held = {'p0': '2026-01-02T11:59:00Z', 'p1': '2026-01-02T11:57:00Z', 'gone': '2026-01-02T11:59:00Z'}
    spec = {'minAvailable': 1}
    budget = {'metadata': {'name': 'b', 'generation': 2}, 'spec': spec, 'status': {'disruptedPods': held}}
    pods = [make_ready({'metadata': {'name': f'p{i}', 'uid': str(i)}}) for i in range(3)]
    assert budgets.granted(budget, pods, NOW) == ({'p0': held['p0']}, 60.0)
    golden('disruption-status', budgets.plan_status(budget, pods, budgets.count(budget, pods, {}), NOW))


def test_what_a_quota_counts(golden):
    def pod(requests: dict, **spec) -> dict:
        return {'kind': 'Pod', 'metadata': {'name': 'p'}, 'spec': {
            'containers': [{'resources': {'requests': requests, 'limits': requests}}], **spec}}  # fmt: skip

    side = [
        {'restartPolicy': 'Always', 'resources': {'requests': {'cpu': '1'}}},
        {'resources': {'requests': {'cpu': '3'}}},
    ]
    pods = [
        pod({'cpu': '250m', 'memory': '1Gi'}), pod({'cpu': '1'}, initContainers=side),
        {**pod({'cpu': '8'}), 'status': {'phase': 'Succeeded'}}, pod({}), pod({'nvidia.com/gpu': '2'}),
    ]  # fmt: skip
    claims = [{'metadata': {}, 'spec': {'storageClassName': 'fast', 'resources': {'requests': {'storage': '5Gi'}}}}]
    services = [
        {'spec': {'type': 'NodePort', 'ports': [{}, {}]}},
        {'spec': {'type': 'LoadBalancer', 'ports': [{}]}},
        {},
    ]
    counted = {'pods': pods, 'persistentvolumeclaims': claims, 'services': services, 'jobs.batch': [{}, {}]}
    hard = dict.fromkeys((
        'pods', 'count/pods', 'cpu', 'requests.cpu', 'limits.cpu', 'requests.nvidia.com/gpu', 'services', 'secrets',
        'services.nodeports', 'services.loadbalancers', 'count/jobs.batch', 'persistentvolumeclaims',
        'fast.storageclass.storage.k8s.io/persistentvolumeclaims',
    ), '10') | dict.fromkeys((
        'requests.memory', 'requests.storage', 'fast.storageclass.storage.k8s.io/requests.storage',
    ), '10Gi')  # fmt: skip
    golden('resourcequota-used', quotas.used({'spec': {'hard': hard}}, counted))
    scoped = {'spec': {'hard': {'pods': '10'}, 'scopes': ['BestEffort']}}
    assert quotas.used(scoped, counted) == {'pods': '2'}
    named = {'scopeName': 'PriorityClass', 'operator': 'In', 'values': ['high']}
    ranked = {'spec': {'hard': {'pods': '10'}, 'scopeSelector': {'matchExpressions': [named]}}}
    assert quotas.used(ranked, {'pods': [pod({}, priorityClassName='high'), pod({})]}) == {'pods': '1'}
