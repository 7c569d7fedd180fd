"""What a node refuses, and in which words; whom a critical pod displaces."""

from __future__ import annotations

import pytest

from knode.pods.admission import PREFIX, judge, victims

ALLOCATABLE = {'cpu': '4', 'memory': '4Gi', 'pods': '3', 'ephemeral-storage': '10Gi'}
NODE = {
    'metadata': {'name': 'n1', 'labels': {'disk': 'ssd', 'cores': '8', 'kubernetes.io/hostname': 'host'}},
    'spec': {'taints': [{'key': 'k', 'value': 'v', 'effect': 'NoSchedule'}]},
    'status': {},
}
NO_EXECUTE = {**NODE, 'spec': {'taints': [{'key': 'k', 'value': 'v', 'effect': 'NoExecute'}]}}
AFFINITY = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
PORTS = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
TAINTS = "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate"
CRITICAL = {'priority': 2_000_001_000}


def asks(name='c', **requests):
    return {'name': name, 'image': 'x', 'resources': {'requests': requests}}


def port(number, **more):
    return {'containers': [{'name': 'c', 'image': 'x', 'ports': [{'hostPort': number, 'containerPort': 1, **more}]}]}


def wants(*terms):
    required = {'nodeSelectorTerms': list(terms)}
    return {'affinity': {'nodeAffinity': {'requiredDuringSchedulingIgnoredDuringExecution': required}}}


def expression(key, operator, *values):
    return {'matchExpressions': [{'key': key, 'operator': operator, 'values': list(values)}]}


def field(name):
    return {'matchFields': [{'key': 'metadata.name', 'operator': 'In', 'values': [name]}]}


@pytest.mark.parametrize(
    ('spec', 'node', 'reason', 'message'),
    [
        ({'nodeSelector': {'disk': 'ssd'}}, NODE, None, ''),
        ({'nodeSelector': {'disk': 'hdd'}}, NODE, 'NodeAffinity', AFFINITY),
        ({'nodeSelector': {'disk': 'hdd'}}, None, None, ''),
        (wants(expression('disk', 'In', 'ssd', 'hdd')), NODE, None, ''),
        (wants(expression('disk', 'NotIn', 'ssd')), NODE, 'NodeAffinity', AFFINITY),
        (wants(expression('cores', 'Gt', '7'), expression('cores', 'Lt', '2')), NODE, None, ''),
        (wants(expression('cores', 'Gt', '8')), NODE, 'NodeAffinity', AFFINITY),
        (wants(expression('gpu', 'Exists')), NODE, 'NodeAffinity', AFFINITY),
        (wants(expression('gpu', 'DoesNotExist')), NODE, None, ''),
        (wants({}), NODE, 'NodeAffinity', AFFINITY),
        (wants(field('n1')), NODE, None, ''),
        (wants(field('host')), NODE, 'NodeAffinity', AFFINITY),
        ({}, NO_EXECUTE, 'TaintToleration', TAINTS),
        ({'tolerations': [{'key': 'k', 'operator': 'Exists'}]}, NO_EXECUTE, None, ''),
        ({'tolerations': [{'key': 'k', 'value': 'w'}]}, NO_EXECUTE, 'TaintToleration', TAINTS),
        (port(80), NODE, 'NodePorts', PORTS),
        (port(80, protocol='UDP'), NODE, None, ''),
        (port(80, hostIP='127.0.0.9'), NODE, 'NodePorts', PORTS),
        (port(81, hostIP='127.0.0.9'), NODE, None, ''),
        ({'os': {'name': 'linux'}}, NODE, None, ''),
        ({'os': {'name': 'windows'}}, NODE, 'PodOSNotSupported',
         "Failed to admit pod as the OS field doesn't match node OS"),
        ({'securityContext': {'supplementalGroupsPolicy': 'Strict'}}, NODE, 'SupplementalGroupsPolicyNotSupported',
         'SupplementalGroupsPolicy=Strict is not supported in this node'),
        ({'securityContext': {'sysctls': [{'name': 'kernel.shm_rmid_forced', 'value': '1'}]}}, NODE,
         'SysctlForbidden', 'forbidden sysctl: "kernel.shm_rmid_forced" not allowlisted'),
        ({'containers': [asks(cpu='3500m')]}, NODE, 'OutOfcpu',
         "Node didn't have enough resource: cpu, requested: 3500, used: 1000, capacity: 4000"),
        ({'containers': [asks(memory='5Gi')]}, NODE, 'OutOfmemory',
         "Node didn't have enough resource: memory, requested: 5368709120, used: 0, capacity: 4294967296"),
        ({'containers': [asks(cpu='1')], 'overhead': {'cpu': '2500m'}}, NODE, 'OutOfcpu',
         "Node didn't have enough resource: cpu, requested: 3500, used: 1000, capacity: 4000"),
        ({'containers': [asks(**{'hugepages-2Mi': '2Mi'})]}, NODE, 'OutOfhugepages-2Mi',
         "Node didn't have enough resource: hugepages-2Mi, requested: 2097152, used: 0, capacity: 0"),
        ({'containers': [asks(**{'example.com/gpu': '1'})]}, NODE, None, ''),
        ({'containers': [asks(cpu='9')], **CRITICAL, **port(80)}, NODE, 'NodePorts', PORTS),
    ],
)  # fmt: skip
def test_what_a_node_refuses(make_pod, *, spec, node, reason, message):
    other = make_pod(**port(80))
    other['spec']['containers'].append(asks('d', cpu='1'))
    found = judge(make_pod(**spec), [other], ALLOCATABLE, node).verdict
    assert (found and found.reason) == reason
    assert found is None or found.message == PREFIX + message


def test_a_pod_for_another_operating_system_is_refused_by_its_label(make_pod):
    pod = make_pod()
    pod['metadata']['labels'] = {'kubernetes.io/os': 'windows'}
    found = judge(pod, [], ALLOCATABLE, NODE).verdict
    assert found is not None
    assert found.reason == 'PodOSSelectorNodeLabelDoesNotMatch'


def test_a_node_that_changes_groups_takes_pods_that_are_strict_about_them(make_pod):
    pod = make_pod(securityContext={'supplementalGroupsPolicy': 'Strict'})
    able = {**NODE, 'status': {'features': {'supplementalGroupsPolicy': True}}}
    assert judge(pod, [], ALLOCATABLE, able).verdict is None


def test_a_static_pod_is_taken_whatever_the_taints(make_pod):
    pod = make_pod()
    pod['metadata']['annotations'] = {'kubernetes.io/config.source': 'file'}
    assert judge(pod, [], ALLOCATABLE, NO_EXECUTE).verdict is None


def test_a_full_node_takes_critical_pods_once_there_is_room(make_pod):
    full = [make_pod() for _ in range(3)]
    refused = judge(make_pod(), full, ALLOCATABLE, NODE)
    assert refused.verdict is not None
    assert refused.verdict.reason == 'OutOfpods'
    waiting = judge(make_pod(containers=[asks(cpu='5')], **CRITICAL), full, ALLOCATABLE, NODE)
    assert waiting.verdict is None
    assert {s.name: s.missing for s in waiting.shortages} == {'pods': 1, 'cpu': 1000}


LIMITS = {'cpu': '1', 'memory': '1Gi'}
HELD = {
    'idle': {},
    'busy': {'requests': {'cpu': '500m'}},
    'busier': {'requests': {'cpu': '1500m'}},
    'sure': {'limits': LIMITS, 'requests': LIMITS},
    'surer': {'limits': {'cpu': '2', 'memory': '1Gi'}, 'requests': {'cpu': '2', 'memory': '1Gi'}},
}


@pytest.mark.parametrize(
    ('asked', 'chosen'),
    [
        ('500m', ['busy']),
        ('600m', ['busier']),
        ('1800m', ['busier', 'busy']),
        ('2500m', ['busier', 'sure']),
        ('3500m', ['busier', 'surer']),
        ('5', ['busier', 'busy', 'surer', 'sure']),
        ('6', None),
    ],
)
def test_as_few_and_as_unimportant_pods_as_possible_make_room(make_pod, *, asked, chosen):
    others = []
    for name, resources in HELD.items():
        others.append(make_pod(containers=[{'name': 'c', 'image': 'x', 'resources': resources}]))
        others[-1]['metadata']['name'] = name
    others.append(make_pod(containers=[asks(cpu='9')], **CRITICAL))
    critical = make_pod(containers=[asks(cpu=asked)], **CRITICAL)
    shortages = judge(critical, others[:-1], {**ALLOCATABLE, 'cpu': '5', 'pods': '110'}, NODE).shortages
    found = victims(critical, others, shortages)
    assert (found and [p['metadata']['name'] for p in found]) == chosen
