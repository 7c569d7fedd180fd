"""QoS classes, oom_score_adj, limits, and who is over one: tables."""

from __future__ import annotations

import pytest

from knode.pods.resources import limits_of, oom_score, qos_class, requests, rlimits
from knode.pods.watchdog import suspects

MI = 1 << 20


def container(name='c', requests=None, limits=None, **more):
    return {'name': name, 'image': 'x', 'resources': {'requests': requests or {}, 'limits': limits or {}}, **more}


BOTH = {'cpu': '1', 'memory': '1Gi'}


@pytest.mark.parametrize(
    ('spec', 'expected'),
    [
        ({'containers': [container()]}, 'BestEffort'),
        ({'containers': [container(requests={'cpu': '0'})]}, 'BestEffort'),
        ({'containers': [container(requests={'ephemeral-storage': '1Gi'})]}, 'BestEffort'),
        ({'containers': [container(limits=BOTH)]}, 'Guaranteed'),
        ({'containers': [container(requests={'cpu': '1000m', 'memory': '1024Mi'}, limits=BOTH)]}, 'Guaranteed'),
        ({'containers': [container(requests={'cpu': '500m'}, limits=BOTH)]}, 'Burstable'),
        ({'containers': [container(limits={'memory': '1Gi'})]}, 'Burstable'),
        ({'containers': [container(limits=BOTH), container('d')]}, 'Burstable'),
        ({'containers': [container(limits=BOTH)], 'initContainers': [container('i')]}, 'Burstable'),
        ({'containers': [container()], 'resources': {'limits': BOTH}}, 'Guaranteed'),
        ({'containers': [container()], 'resources': {'requests': {'cpu': '1'}}}, 'Burstable'),
    ],
)
def test_qos_class(spec, expected):
    assert qos_class(spec) == expected


@pytest.mark.parametrize(
    ('spec', 'expected'),
    [
        ({'containers': [container()]}, 1000),
        ({'containers': [container(limits=BOTH)]}, -997),
        ({'containers': [container(requests={'memory': '1Gi'})]}, 750),
        ({'containers': [container(requests={'cpu': '1'})]}, 999),
        ({'containers': [container(requests={'memory': '4Gi'})]}, 3),
        ({'containers': [container()], 'priorityClassName': 'system-node-critical'}, -997),
    ],
)
def test_the_more_memory_a_container_asks_for_the_later_it_is_killed(spec, expected):
    assert oom_score({'spec': spec}, spec['containers'][0], {'memory': '4Gi'}) == expected


def test_a_sidecar_is_not_killed_before_those_it_serves():
    side = container('s', requests={'memory': '1Mi'}, restartPolicy='Always')
    spec = {'containers': [container(requests={'memory': '2Gi'})], 'initContainers': [side]}
    assert oom_score({'spec': spec}, side, {'memory': '4Gi'}) == 500


def test_what_the_pod_asks_for_stands_instead_of_its_containers():
    spec = {'containers': [container(requests={'cpu': '1', 'memory': '1Gi'})], 'resources': {'requests': {'cpu': '3'}}}
    assert requests({'spec': spec}) == {'cpu': 3000, 'memory': 1 << 30}


def test_limits_go_to_the_kernel_and_a_wide_one_to_each_process():
    c = container(requests={'cpu': '250m'}, limits={'cpu': '500m', 'memory': '64Mi'})
    limits = limits_of({'spec': {'containers': [c]}}, c, 100)
    assert (limits.cpu_milli, limits.cpu_request_milli, limits.memory_bytes, limits.pod_pids) == (
        500,
        250,
        64 * MI,
        100,
    )
    assert rlimits(c) == {'RLIMIT_CORE': (0, 0), 'RLIMIT_DATA': (1152 * MI, 1152 * MI)}
    assert rlimits(container()) == {'RLIMIT_CORE': (0, 0)}


@pytest.mark.parametrize(
    ('pod_limit', 'used', 'expected'),
    [
        ({}, {'a0': 64, 'b0': 500}, []),
        ({}, {'a0': 65, 'b0': 500}, [('a', 64)]),
        ({'memory': '100Mi'}, {'a0': 20, 'b0': 90}, [('b', 80)]),
        ({'memory': '100Mi'}, {'a0': 70, 'b0': 90}, [('a', 64)]),
    ],
)
def test_who_is_over_a_memory_limit(make_record, *, pod_limit, used, expected):
    spec = {
        'containers': [container('a', limits={'memory': '64Mi'}), container('b')],
        'resources': {'limits': pod_limit},
    }
    running = {n: make_record(n) for n in ('a', 'b')}
    found = suspects({'spec': spec}, running, {i: n * MI for i, n in used.items()})
    assert [(r.name, most // MI) for r, most in found] == expected
