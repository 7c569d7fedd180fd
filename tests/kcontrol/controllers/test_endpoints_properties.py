"""Endpoints of a Service: rules that hold for whatever pods it selects."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcontrol.controllers.endpoints import plan as endpoints

# Two pods of a node's own network share its address, hence so few of them.
PODS = st.lists(
    st.fixed_dictionaries({
        'ip': st.sampled_from(['', '127.64.0.1', '127.64.0.2', '127.64.0.10']),
        'ready': st.booleans(), 'going': st.booleans(), 'phase': st.sampled_from(['Running', 'Running', 'Succeeded']),
        'ports': st.dictionaries(st.sampled_from(['web', 'admin']), st.integers(80, 82)),
    }),
    max_size=8,
)  # fmt: skip

# Pods of which most are shown, and some share all their ports.
SHOWN = st.lists(
    st.fixed_dictionaries({
        'ip': st.sampled_from(['127.64.0.1', '127.64.0.2']), 'ready': st.booleans(),
        'ports': st.sampled_from([{'web': 80}, {'web': 80, 'admin': 81}, {'web': 82}]),
    }),
    min_size=2, max_size=8,
)  # fmt: skip


def pod(number: int, ip: str, ready: bool, *, going: bool = False, phase: str = 'Running', ports=None) -> dict:
    meta = {'name': f'p{number}', 'namespace': 'default', 'uid': f'u{number}'}
    declared = [{'name': name, 'containerPort': port} for name, port in (ports or {}).items()]
    return {
        'metadata': meta | ({'deletionTimestamp': '2026-01-01T00:00:00Z'} if going else {}),
        'spec': {'nodeName': 'n1', 'containers': [{'name': 'c', 'ports': declared}]},
        'status': {'podIP': ip, 'phase': phase, 'conditions': [{'type': 'Ready', 'status': str(ready)}]},
    }


def service(*targets: str | int, unready: bool = False) -> dict:
    ports = [{'name': f's{n}', 'port': n + 1, 'targetPort': target} for n, target in enumerate(targets)]
    spec = {'selector': {'a': 'b'}, 'clusterIP': 'None', 'ports': ports, 'publishNotReadyAddresses': unready}
    return {'metadata': {'name': 's', 'namespace': 'default'}, 'spec': spec}


def shown(obj: dict) -> list[tuple[str, str, str, int, bool]]:
    """(uid, address, port name, port, ready) of all that the subsets say; port 0 of a Service without ports."""
    return [
        (address['targetRef']['uid'], address['ip'], port['name'], port['port'], field == 'addresses')
        for subset in obj['subsets'] for field in ('addresses', 'notReadyAddresses')
        for address, port in itertools.product(
            subset.get(field, ()), subset.get('ports', [{'name': '', 'port': 0}])
        )
    ]  # fmt: skip


@given(PODS, st.lists(st.sampled_from(['web', 'admin', 8080]), max_size=3, unique=True), st.booleans())
def test_every_pod_with_an_address_is_shown_once_for_each_port_that_it_has(made, targets, unready):
    expected = []
    for number, one in enumerate(made):
        if not one['ip'] or one['phase'] == 'Succeeded' or (one['going'] and not unready):
            continue
        ready = one['ready'] or unready
        numbers = {**one['ports'], 8080: 8080}
        ports = [(f's{n}', numbers[target]) for n, target in enumerate(targets) if target in numbers]
        expected += [(f'u{number}', one['ip'], *port, ready) for port in (ports if targets else [('', 0)])]
    made_by = endpoints.plan(service(*targets, unready=unready), [pod(n, **one) for n, one in enumerate(made)])
    assert sorted(shown(made_by)) == sorted(expected)
    assert all(subset.keys() & {'addresses', 'notReadyAddresses'} for subset in made_by['subsets'])


@given(SHOWN, st.randoms(use_true_random=False))
def test_the_same_pods_in_another_order_write_nothing(made, chance):
    pods = [pod(n, **one) for n, one in enumerate(made)]
    asked = service('web', 'admin')
    assert endpoints.plan(asked, chance.sample(pods, len(pods))) == endpoints.plan(asked, pods)


def counted(obj: dict, *fields: str) -> int:
    return sum(len(subset.get(field, ())) for subset in obj['subsets'] for field in fields)


@given(SHOWN, st.integers(1, 5))
def test_what_is_too_much_is_cut_off_and_said_and_ready_pods_stay(made, most):
    pods, asked = [pod(n, **one) for n, one in enumerate(made)], service('web', 'admin')
    whole = endpoints.plan(asked, pods)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(endpoints, 'CAPACITY', most)
        cut = endpoints.plan(asked, pods)
    ready, every = counted(whole, 'addresses'), counted(whole, 'addresses', 'notReadyAddresses')
    assert counted(cut, 'addresses') == min(ready, most)
    assert counted(cut, 'addresses', 'notReadyAddresses') == min(every, most)
    assert {*shown(cut)} <= {*shown(whole)}
    assert all(subset.keys() & {'addresses', 'notReadyAddresses'} for subset in cut['subsets']), (
        'the API takes no other'
    )
    mark = cut['metadata'].get('annotations', {}).get(endpoints.OVER_CAPACITY)
    assert mark == ('truncated' if every > most else None)


def test_ports_that_the_same_pods_offer_share_a_subset():
    both, one = {'web': 80, 'admin': 81}, {'web': 80}
    pods = [pod(1, '127.64.0.1', True, ports=both), pod(2, '127.64.0.2', False, ports=one)]
    said = [
        ([a['ip'] for a in s.get('addresses', ())], [a['ip'] for a in s.get('notReadyAddresses', ())],
         [p['port'] for p in s['ports']])
        for s in endpoints.plan(service('web', 'admin', 8080), pods)['subsets']
    ]  # fmt: skip
    assert said == [(['127.64.0.1'], ['127.64.0.2'], [80, 8080]), (['127.64.0.1'], [], [81])]
