"""Plans of the small controllers: golden answers, and rules that hold whatever happens."""

from __future__ import annotations

import base64
import ipaddress
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from kclient.certificates import NODE_CLIENT_SIGNER, NODE_SERVING_SIGNER, new_key, request
from kcontrol.controllers.certificates import plan as certificates
from kcontrol.controllers.clusterroleaggregation.reconcile import rules_of
from kcontrol.controllers.disruption import plan as budgets
from kcontrol.controllers.endpointslice import plan as slices
from kcontrol.controllers.ephemeralvolume.reconcile import claims_for
from kcontrol.controllers.gc.graph import Graph, decide, node_of
from kcontrol.controllers.horizontalpodautoscaler.limits import Past, limit, stabilize
from kcontrol.controllers.job import plan as jobs
from kcontrol.controllers.nodeipam.plan import allocate
from kcontrol.controllers.nodettl.reconcile import STEPS, step_for
from kcontrol.controllers.replicaset import plan as replicas
from kcontrol.controllers.resourcequota import plan as quotas
from kcontrol.controllers.tainteviction.plan import evict_in_s
from kcontrol.controllers.volumeprotection.reconcile import in_use
from kcore.meta.gvk import PODS, REPLICASETS
from kcore.meta.times import format_micro, format_time
from tests.kcontrol.conftest import NOW

CONTAINERS = [{'name': 'c', 'image': 'x'}]


def pod(name: str, *, ready: bool = True, **meta) -> dict:
    condition = {'type': 'Ready', 'status': str(ready), 'lastTransitionTime': format_time(NOW)}
    return {
        'metadata': {'name': name, 'namespace': 'default', 'uid': name, **meta},
        'spec': {'containers': CONTAINERS, 'nodeName': 'n1'},
        'status': {'phase': 'Running', 'podIP': f'127.0.0.{len(name)}', 'conditions': [condition]},
    }


# --- certificates


def signing(user: str, groups: tuple[str, ...], signer: str, usages: list[str], serves: tuple[str, ...] = ()) -> dict:
    csr = request(new_key(), user, groups, signer=signer, serves=serves)
    return {**csr, 'spec': {**csr['spec'], 'usages': usages, 'username': user}}


CLIENT, SERVER = ['digital signature', 'client auth'], ['digital signature', 'server auth']
NODE, NODES_ = 'system:node:n1', ('system:nodes',)
REQUESTS = {
    'client': ('somebody', ('dev',), certificates.CLIENT, CLIENT, ()),
    'client of masters': ('somebody', ('system:masters',), certificates.CLIENT, CLIENT, ()),
    'client that serves': ('somebody', (), certificates.CLIENT, SERVER, ()),
    'node': (NODE, NODES_, NODE_CLIENT_SIGNER, CLIENT, ()),
    'node of no group': (NODE, (), NODE_CLIENT_SIGNER, CLIENT, ()),
    'node of no name': ('n1', NODES_, NODE_CLIENT_SIGNER, CLIENT, ()),
    'node client with addresses': (NODE, NODES_, NODE_CLIENT_SIGNER, CLIENT, ('n1',)),
    'node that serves': (NODE, NODES_, NODE_SERVING_SIGNER, SERVER, ('n1',)),
    'node that serves nowhere': (NODE, NODES_, NODE_SERVING_SIGNER, SERVER, ()),
    'node that serves as a client': (NODE, NODES_, NODE_SERVING_SIGNER, CLIENT, ('n1',)),
}


def judged(csr: dict) -> str:
    try:
        certificates.check(csr, x509.load_pem_x509_csr(base64.b64decode(csr['spec']['request'])))
    except certificates.NotSignable as e:
        return str(e)
    return 'signed'


def test_every_rule_of_a_signer_has_its_words(golden):
    golden('certificates-signers', {name: judged(signing(*asked)) for name, asked in REQUESTS.items()})


def test_requests_are_cleared_away_by_what_became_of_them(golden, ago):
    def left(*conditions: dict, issued: str = '', ends: datetime | None = None) -> float | None:
        status = {'conditions': [*conditions], 'certificate': issued}
        certificate = SimpleNamespace(not_valid_after_utc=ends) if ends is not None else None
        csr = {'metadata': {'creationTimestamp': ago(600)}, 'status': status}
        return certificates.expired_in_s(csr, certificate, NOW)

    golden('certificates-cleaner', {
        'undecided': left(),
        'approved, waits for its signer': left({'type': 'Approved', 'lastUpdateTime': ago(7200)}),
        'issued': left({'type': 'Approved', 'lastUpdateTime': ago(60)}, issued='x'),
        'issued, and over soon': left(
            {'type': 'Approved', 'lastUpdateTime': ago(60)}, issued='x', ends=NOW + timedelta(seconds=5)
        ),
        'denied': left({'type': 'Denied', 'lastUpdateTime': ago(3600)}),
        'failed': left({'type': 'Failed', 'lastTransitionTime': ago(30)}),
        'approved, then failed': left(
            {'type': 'Approved', 'lastUpdateTime': ago(60)}, {'type': 'Failed', 'lastUpdateTime': ago(10)}
        ),
    })  # fmt: skip


@given(st.none() | st.integers(-1000, 10**9), st.floats(600, 10**8))
def test_a_certificate_never_outlives_what_the_signer_allows_nor_is_it_useless(asked, most):
    spec = {} if asked is None else {'expirationSeconds': asked}
    assert 600 <= certificates.lifetime_s({'spec': spec}, most) <= most


# --- nodes


def test_networks_of_nodes(golden):
    golden('nodeipam', {
        'first': allocate('127.64.0.0/16', []),
        'gap': allocate('127.64.0.0/16', ['127.64.0.0/24', '127.64.2.0/24']),
        'around a larger one': allocate('127.64.0.0/16', ['127.64.0.0/22']),
        'around a smaller one': allocate('127.64.0.0/16', ['127.64.0.128/25']),
        'IPv6 is elsewhere': allocate('127.64.0.0/16', ['fd00::/64']),
        'full': allocate('127.64.0.0/23', ['127.64.0.0/24', '127.64.1.0/24']),
    })  # fmt: skip


@given(st.lists(st.integers(20, 26), max_size=40), st.lists(st.booleans(), max_size=40))
def test_no_two_nodes_share_an_address(sizes, leaves):
    cluster, held = ipaddress.IPv4Network('127.64.0.0/18'), []
    for at, size in enumerate(sizes):
        if size != 24:  # somebody wrote a network of another size by hand
            held.append(list(cluster.subnets(new_prefix=size))[at % 2 ** (size - 18)])
            continue
        found = allocate(str(cluster), map(str, held))
        if found is not None:
            network = ipaddress.IPv4Network(found)
            assert network.subnet_of(cluster)
            assert not any(network.overlaps(other) for other in held)
            held.append(network)
        if at < len(leaves) and leaves[at] and held:
            held.pop(0)


def test_the_ttl_of_secrets_grows_with_the_nodes_and_does_not_flap(golden):
    up = [n for n in range(1, 3000) if step_for(n, step_for(n - 1, 0)) != step_for(n - 1, 0)]
    held, down = len(STEPS) - 1, []
    for n in range(3000, 0, -1):
        before, held = held, step_for(n, held)
        down += [n] if held != before else []
    golden('nodettl', {'grows at': up, 'shrinks at': down, 'seconds': [s for _, _, s in STEPS]})


TAINTS = [
    {'key': k, 'value': v, 'effect': e}
    for k in ('a', 'b') for v in ('', 'x') for e in ('NoExecute', 'NoSchedule')
]  # fmt: skip
TOLERATIONS = st.fixed_dictionaries({}, optional={
    'key': st.sampled_from(['a', 'b']), 'operator': st.sampled_from(['Exists', 'Equal']),
    'value': st.sampled_from(['', 'x']), 'effect': st.sampled_from(['NoExecute', 'NoSchedule']),
    'tolerationSeconds': st.integers(0, 600),
})  # fmt: skip


def test_how_long_taints_are_tolerated(golden):
    def left(*tolerations: dict, taints: tuple[dict, ...] = (TAINTS[0],), since_s: float = 10) -> float | None:
        added = format_micro(NOW - timedelta(seconds=since_s))
        tolerant = {'spec': {'tolerations': [*tolerations]}}
        return evict_in_s(tolerant, [{**t, 'timeAdded': added} for t in taints], NOW)

    every, a = {'operator': 'Exists'}, {'key': 'a', 'operator': 'Exists'}
    golden('tainteviction', {
        'nothing tolerated': left(),
        'tolerated for ever': left(every),
        'tolerated for a while': left({**a, 'tolerationSeconds': 300}),
        'the while is over': left({**a, 'tolerationSeconds': 5}),
        'the shortest of several counts': left({**a, 'tolerationSeconds': 300}, {**every, 'tolerationSeconds': 100}),
        'one of two taints': left({**a, 'tolerationSeconds': 300}, taints=(TAINTS[0], TAINTS[4])),
        'no taint that evicts': left(taints=(TAINTS[1],)),
        'another value': left({'key': 'a', 'operator': 'Equal', 'value': 'y'}, taints=(TAINTS[2],)),
    })  # fmt: skip


@given(st.lists(TOLERATIONS, max_size=4), st.lists(st.sampled_from(TAINTS), max_size=4), TOLERATIONS)
def test_tolerating_more_taints_for_ever_never_brings_an_eviction_forward(tolerations, taints, more):
    dated = [{**t, 'timeAdded': format_micro(NOW)} for t in taints]
    now = evict_in_s({'spec': {'tolerations': tolerations}}, dated, NOW)
    assert now is None or now >= 0
    more = {k: v for k, v in more.items() if k != 'tolerationSeconds'}
    then = evict_in_s({'spec': {'tolerations': [*tolerations, more]}}, dated, NOW)
    assert then is None or (now is not None and then >= now)


# --- roles, claims, quotas, budgets


def test_an_aggregated_role_has_each_rule_of_its_parts_once(golden):
    def role(name: str, *verbs: str, **labels: str) -> dict:
        rules = [{'apiGroups': [''], 'resources': ['pods'], 'verbs': [v]} for v in verbs]
        return {'metadata': {'name': name, 'labels': labels}, 'rules': rules}

    selectors = [{'matchLabels': {'to': 'x'}}, {'matchExpressions': [{'key': 'also', 'operator': 'Exists'}]}]
    whole = {**role('whole', to='x'), 'aggregationRule': {'clusterRoleSelectors': selectors}}
    parts = [role('b', 'get', 'list', to='x'), role('a', 'get', to='x', also='y'), role('c', 'watch'), whole]
    golden('clusterroleaggregation', rules_of(whole, parts))


def test_claims_of_ephemeral_volumes_belong_to_their_pod(golden):
    template = {'metadata': {'labels': {'a': 'b'}, 'annotations': {'n': 'm'}}, 'spec': {'storageClassName': 's'}}
    made = pod('p')
    made['spec']['volumes'] = [
        {'name': 'own', 'ephemeral': {'volumeClaimTemplate': template}}, {'name': 'other', 'emptyDir': {}},
    ]  # fmt: skip
    golden('ephemeralvolume', claims_for(made))


@pytest.mark.parametrize(('change', 'used'), [
    ({}, True), ({'status': {'phase': 'Succeeded'}}, False), ({'spec': {'volumes': []}}, False),
    ({'spec': {'volumes': [{'name': 'v', 'persistentVolumeClaim': {'claimName': 'mine'}}]}}, False),
])  # fmt: skip
def test_a_claim_is_in_use_while_a_pod_that_has_a_node_and_has_not_ended_names_it(change, used):
    user = pod('p')
    user['spec']['volumes'] = [{'name': 'v', 'persistentVolumeClaim': {'claimName': 'mine'}}]
    assert in_use({'metadata': {'name': 'mine', 'namespace': 'default'}}, [{**user, **change}]) is used


@given(
    st.lists(st.booleans(), max_size=12),
    st.one_of(st.integers(0, 12), st.integers(0, 100).map('{}%'.format)),
    st.booleans(), st.integers(0, 15),
)  # fmt: skip
def test_a_budget_never_allows_what_would_leave_too_few(ready, bound, at_least, replicas_):
    budget = {'metadata': {'name': 'b'}, 'spec': {'minAvailable' if at_least else 'maxUnavailable': bound}}
    pods = [pod(f'p{n}', ready=r) for n, r in enumerate(ready)]
    counted = budgets.count(budget, pods, {'rs': replicas_})
    status = budgets.plan_status(budget, pods, counted, NOW)
    allowed = status['disruptionsAllowed']
    assert allowed >= 0
    assert allowed == 0 or sum(ready) - allowed >= counted.desired
    again = budgets.plan_status({**budget, 'status': status}, pods, counted, NOW + timedelta(seconds=60))
    assert again == status, 'nothing changed, nothing is written'


def test_pods_that_nobody_controls_are_told_of_where_a_whole_must_be_known():
    owned = pod('a', ownerReferences=[{'kind': 'ReplicaSet', 'name': 'r', 'uid': 'r', 'controller': True}])
    selector = {'matchLabels': {'app': 'web', 'a': 'b'}, 'matchExpressions': [
        {'key': 'tier', 'operator': 'In', 'values': ['x', 'y']},
    ]}  # fmt: skip
    most = {'metadata': {'name': 'b'}, 'spec': {'maxUnavailable': 1, 'selector': selector}}
    assert budgets.unmanaged(most, [owned]) == ''
    assert budgets.unmanaged(most, [owned, pod('b')]).startswith(
        'Pods selected by this PodDisruptionBudget (selector: &LabelSelector{MatchLabels:map[string]string{a: b,'
        'app: web,},MatchExpressions:[]LabelSelectorRequirement{LabelSelectorRequirement{Key:tier,Operator:In,'
        'Values:[x y],},},}) were found to be unmanaged.'
    )
    assert budgets.unmanaged({**most, 'spec': {'minAvailable': 1}}, [pod('b')]) == ''


@pytest.mark.parametrize(('condition', 'meta', 'left'), [
    ({'status': 'True', 'reason': 'EvictionByEvictionAPI'}, {}, 60.0),
    ({'status': 'True', 'reason': 'TerminationByKubelet'}, {}, None),
    ({'status': 'False'}, {}, None),
    ({'status': 'True', 'reason': 'EvictionByEvictionAPI'}, {'deletionTimestamp': format_time(NOW)}, None),
])  # fmt: skip
def test_a_disruption_that_did_not_happen_is_taken_back_after_two_minutes(condition, meta, left):
    said = pod('p', **meta)
    since = format_time(NOW - timedelta(seconds=60))
    said['status']['conditions'] = [{'type': 'DisruptionTarget', 'lastTransitionTime': since, **condition}]
    assert budgets.stale_in_s(said, NOW) == left


@given(st.lists(st.tuples(st.integers(0, 4000), st.booleans()), max_size=10))
def test_what_a_namespace_uses_is_the_sum_of_what_has_not_ended(wanted):
    hard = {'pods': '100', 'requests.cpu': '100'}
    counted = []
    for n, (milli, over) in enumerate(wanted):
        one = pod(f'p{n}')
        one['spec'] = {'containers': [{'name': 'c', 'resources': {'requests': {'cpu': f'{milli}m'}}}]}
        counted.append({**one, 'status': {'phase': 'Succeeded' if over else 'Running'}})
    used = quotas.used({'spec': {'hard': hard}}, {'pods': counted})
    living = [milli for milli, over in wanted if not over]
    assert int(used['pods']) == len(living)
    cpu = str(used['requests.cpu'])
    assert (float(cpu[:-1]) if cpu.endswith('m') else 1000 * float(cpu)) == sum(living)


# --- pods of a ReplicaSet, endpoints, jobs


@given(
    st.integers(0, 8), st.lists(st.sampled_from(['Pending', 'Running', 'Failed', 'Succeeded', 'going']), max_size=12)
)
def test_a_replica_set_asks_for_exactly_what_is_missing_and_takes_only_what_is_too_much(wanted, phases):
    owner = {'metadata': {'name': 'rs', 'namespace': 'default', 'uid': 'rs', 'generation': 1}}
    owner['spec'] = {'replicas': wanted, 'template': {'metadata': {'labels': {}}}}
    pods = []
    for n, phase in enumerate(phases):
        one = pod(f'p{n}', **({'deletionTimestamp': format_time(NOW)} if phase == 'going' else {}))
        pods.append({**one, 'status': {**one['status'], 'phase': 'Running' if phase == 'going' else phase}})
    active = [p for p in pods if replicas.is_active(p)]
    step = replicas.plan_replicas(owner, pods, pods, NOW)
    assert len(active) + step.create - len(step.delete) == wanted
    assert not (step.create and step.delete)
    assert all(p in active for p in step.delete)
    status = replicas.plan_status(owner, pods, None, NOW)
    assert replicas.plan_status({**owner, 'status': status}, pods, None, NOW + timedelta(seconds=9)) == status


@given(st.lists(st.booleans(), max_size=250), st.integers(0, 2**32))
def test_slices_show_every_pod_once_none_is_too_long_and_the_next_pass_writes_nothing(ready, seed):
    service = {
        'metadata': {'name': 's', 'namespace': 'default', 'uid': 's'},
        'spec': {'selector': {'a': 'b'}, 'ports': [{'port': 80}]},
    }
    pods = [pod(f'p{n}-{seed}', ready=r) for n, r in enumerate(ready)]
    for n, one in enumerate(pods):
        one['status']['podIP'] = f'127.64.{n // 250}.{n % 250 + 1}'
    first = slices.plan(service, pods, [], {})
    assert not first.update
    assert not first.delete
    made = [{**p, 'metadata': {**p['metadata'], 'name': f's-{n}'}} for n, p in enumerate(first.create)]
    shown = [e['targetRef']['name'] for piece in made for e in piece.get('endpoints') or ()]
    assert sorted(shown) == sorted(p['metadata']['name'] for p in pods)
    assert all(len(piece.get('endpoints') or ()) <= slices.SLICE_MAX for piece in made)
    again = slices.plan(service, pods, made, {})
    assert (again.create, again.update, again.delete) == ((), (), ())


def test_the_first_pass_over_jobs_of_every_kind(golden):
    def first(**spec) -> dict:
        template = {'spec': {'restartPolicy': 'Never', 'containers': CONTAINERS}}
        meta = {'name': 'j', 'namespace': 'default', 'uid': 'j', 'generation': 1}
        step = jobs.plan({'metadata': meta, 'spec': {'template': template, 'backoffLimit': 6, **spec}}, [], NOW)
        return {'status': step.status, 'create': step.create, 'note': step.note, 'recheck_s': step.recheck_s}

    golden('job-first-pass', {
        'single': first(completions=1, parallelism=1),
        'three at a time': first(completions=7, parallelism=3),
        'a work queue': first(parallelism=2),
        'indexed': first(completions=3, parallelism=3, completionMode='Indexed'),
        'suspended': first(completions=1, parallelism=1, suspend=True),
        'with a deadline': first(completions=1, parallelism=1, activeDeadlineSeconds=60),
        'of nothing': first(completions=0, parallelism=1),
    })  # fmt: skip


# --- the autoscaler


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=40),
    st.integers(1, 5), st.integers(0, 40), st.integers(0, 600),
)  # fmt: skip
def test_the_autoscaler_stays_within_its_bounds_and_comes_down_only_after_its_window(looks, low, more, window_s):
    spec = {'minReplicas': low, 'maxReplicas': low + more}
    spec['behavior'] = {'scaleDown': {'stabilizationWindowSeconds': window_s}}
    past, current, now, said = Past(), low, NOW, []
    for pause, desired in looks:
        now += timedelta(seconds=pause)
        recent = [n for at, n in said if (now - at).total_seconds() < window_s]
        said.append((now, desired))
        stable, _ = stabilize(past, spec['behavior'], current, desired, now)
        chosen, _ = limit(past, spec, current, stable, now)
        if chosen < current:
            assert all(n <= chosen for n in recent), 'a recent look wanted more'
        if chosen != current:
            assert low <= chosen <= low + more
            past.scaled(current, chosen, now, spec['behavior'])
        current = chosen


# --- the garbage collector


def graph_of(*objects: dict) -> Graph:
    graph = Graph()
    for obj in objects:
        graph.put(node_of(PODS if obj['kind'] == 'Pod' else REPLICASETS, obj))
    return graph


def thing(name: str, *owners: str, kind: str = 'Pod', blocks: bool = False, **meta) -> dict:
    refs = [
        {'apiVersion': 'apps/v1', 'kind': 'ReplicaSet', 'name': o, 'uid': o, 'blockOwnerDeletion': blocks}
        for o in owners
    ]
    return {'kind': kind, 'metadata': {
        'name': name, 'namespace': 'default', 'uid': name, 'resourceVersion': '1', 'ownerReferences': refs, **meta,
    }}  # fmt: skip


def test_what_becomes_of_dependents(golden):
    def said(obj: dict, owners: dict, *others: dict) -> list[str]:
        graph = graph_of(obj, *others)
        node = node_of(PODS if obj['kind'] == 'Pod' else REPLICASETS, obj)
        return [str(action) for action in decide(graph, node, owners)]

    going = {'deletionTimestamp': format_time(NOW)}
    foreground = {**going, 'finalizers': ['foregroundDeletion']}
    orphan = {**going, 'finalizers': ['orphan']}
    owner = thing('o', kind='ReplicaSet', **foreground)
    golden('gc', {
        'owner is there': said(thing('p', 'o'), {'o': 'solid'}),
        'owner is gone': said(thing('p', 'o'), {'o': 'absent'}),
        'one of two is gone': said(thing('p', 'o', 'q'), {'o': 'absent', 'q': 'solid'}),
        'owner waits for it': said(thing('p', 'o', blocks=True), {'o': 'waiting'}, owner),
        'owner in foreground with dependents': said(owner, {}, thing('p', 'o', blocks=True)),
        'owner in foreground, all gone': said(owner, {}),
        'owner that orphans': said(thing('o', kind='ReplicaSet', **orphan), {}, thing('p', 'o')),
        'no owners': said(thing('p'), {}),
    })  # fmt: skip


def test_endpoints_of_a_service_that_prefers_near_ones_are_hinted_to_their_own_zone():
    service = {'metadata': {'name': 's', 'namespace': 'd'}, 'spec': {'trafficDistribution': 'PreferClose'}}
    pod = {'metadata': {'name': 'p', 'namespace': 'd', 'uid': 'u'}, 'status': {'podIP': '127.64.0.2'}}
    ready = {**pod, 'status': {**pod['status'], 'conditions': [{'type': 'Ready', 'status': 'True'}]}}
    assert slices.endpoint(ready, service, 'east')['hints'] == {'forZones': [{'name': 'east'}]}
    for held, of, zone in ((pod, service, 'east'), (ready, service, ''), (ready, {**service, 'spec': {}}, 'east')):
        assert 'hints' not in slices.endpoint(held, of, zone)
