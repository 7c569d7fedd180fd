"""What a pod and a service count for, in integers and exactly."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from kcore.meta.podresources import exactly, in_integers, pod_total
from kcore.meta.quota import best_effort, in_scope, usage_of


def c(cpu: str, **more: Any) -> dict[str, Any]:
    return {'resources': {'requests': {'cpu': cpu}}, **more}


SIDECAR = {'containers': [c('1'), c('1')], 'initContainers': [c('1', restartPolicy='Always'), c('3')]}


@pytest.mark.parametrize(
    ('spec', 'cpu'),
    [
        (SIDECAR, 4),
        ({'containers': [c('1')], 'initContainers': [c('3'), c('2')]}, 3),
        ({'containers': [c('1')], 'overhead': {'cpu': '250m'}}, Decimal('1.25')),
        ({'containers': [c('1'), c('1')], 'resources': {'requests': {'cpu': '5'}}, 'overhead': {'cpu': '1'}}, 6),
    ],
)
def test_init_containers_count_by_their_peak_sidecars_beside_and_overhead_on_top(spec: Any, cpu: Any) -> None:
    assert pod_total(spec, 'requests', exactly) == {'cpu': Decimal(cpu)}
    assert pod_total(spec, 'requests', in_integers) == {'cpu': int(cpu * 1000)}


def test_overhead_limits_nothing_that_the_containers_leave_free() -> None:
    limited = {'containers': [{'resources': {'limits': {'cpu': '1'}}}], 'overhead': {'cpu': '1', 'memory': '1Gi'}}
    assert pod_total(limited, 'limits', in_integers) == {'cpu': 2000}


def test_the_sum_leaves_what_it_adds_up_alone() -> None:
    amounts = {'cpu': 1}
    assert pod_total({'containers': [{}], 'initContainers': [{}, {}]}, 'requests', in_integers, lambda _: amounts)
    assert amounts == {'cpu': 1}


def test_what_objects_count_for() -> None:
    assert best_effort({'containers': [{}]})
    assert best_effort({'containers': [c('0')]})
    assert usage_of('pods', {'spec': SIDECAR})['requests.cpu'] == Decimal(4)
    balancer = {'spec': {'type': 'LoadBalancer', 'ports': [{}, {}]}}
    assert usage_of('services', balancer)['services.nodeports'] == Decimal(2)
    claim = {
        'spec': {'resources': {'requests': {'storage': '1Gi'}}},
        'status': {'allocatedResources': {'storage': '2Gi'}},
    }
    assert usage_of('persistentvolumeclaims', claim)['requests.storage'] == 2 * 1024**3


@pytest.mark.parametrize(
    ('operator', 'values', 'selected'),
    [
        ('Exists', [], 'gold silver'),
        ('DoesNotExist', [], 'none'),
        ('In', ['gold'], 'gold'),
        ('In', ['silver'], 'silver'),
        ('NotIn', ['gold', 'bronze'], 'none'),
    ],
)
def test_a_quota_selects_claims_by_the_attributes_class_they_have_or_are_about_to_have(
    operator: str, values: list[str], selected: str
) -> None:
    claims = {
        'none': {'spec': {}},
        'gold': {'spec': {'volumeAttributesClassName': 'gold'}},
        'silver': {
            'spec': {'volumeAttributesClassName': 'bronze'},
            'status': {
                'currentVolumeAttributesClassName': 'silver',
                'modifyVolumeStatus': {'targetVolumeAttributesClassName': 'bronze'},
            },
        },
    }
    want = {'scopeName': 'VolumeAttributesClass', 'operator': operator, 'values': values}
    quota = {'spec': {'scopeSelector': {'matchExpressions': [want]}}}
    assert [n for n, o in claims.items() if in_scope(quota, 'persistentvolumeclaims', o)] == selected.split()
    assert not in_scope(quota, 'pods', {'spec': {}})
    assert not in_scope({'spec': {'scopes': ['NotTerminating']}}, 'persistentvolumeclaims', claims['gold'])
