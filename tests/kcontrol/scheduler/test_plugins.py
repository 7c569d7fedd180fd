"""Each rule on one node: what passes, and the words of a rejection."""

from __future__ import annotations

import pytest

TAINT = {'key': 'team', 'value': 'a', 'effect': 'NoSchedule'}
AFFINITY = "node(s) didn't match Pod's node affinity/selector"


@pytest.mark.parametrize(
    ('toleration', 'fits'),
    [
        ({'key': 'team', 'operator': 'Equal', 'value': 'a', 'effect': 'NoSchedule'}, True),
        ({'key': 'team', 'value': 'a'}, True),
        ({'key': 'team', 'operator': 'Exists'}, True),
        ({'operator': 'Exists'}, True),
        ({'key': 'team', 'value': 'b'}, False),
        ({'key': 'team', 'value': 'a', 'effect': 'NoExecute'}, False),
        ({'key': 'other', 'operator': 'Exists'}, False),
        ({'operator': 'Exists', 'effect': 'PreferNoSchedule'}, False),
    ],
)
def test_a_taint_keeps_off_pods_that_do_not_tolerate_it(node, pod, verdict, toleration, fits):
    reasons = verdict(pod('p', tolerations=[toleration]), node('n', taints=[TAINT]), [])
    assert reasons == (() if fits else ('node(s) had untolerated taint {team: a}',))


def test_a_soft_taint_keeps_nobody_off_but_counts_against_the_node(node, pod, verdict, bench):
    soft = [{'key': 'old', 'effect': 'PreferNoSchedule'}]
    assert verdict(pod('p'), node('n', taints=soft), []) == ()
    bench.nodes(node('old', taints=soft), node('new'))
    bench.pods(pod('p'))
    assert bench.run() == {'p': 'new'}


def test_a_cordoned_node_takes_only_pods_that_tolerate_it(node, pod, verdict):
    cordoned = node('n', unschedulable=True)
    assert verdict(pod('p'), cordoned, []) == ('node(s) were unschedulable',)
    assert verdict(pod('p', tolerations=[{'operator': 'Exists'}]), cordoned, []) == ()


@pytest.mark.parametrize(
    ('operator', 'values', 'fits'),
    [
        ('In', ['ssd', 'nvme'], True), ('In', ['hdd'], False),
        ('NotIn', ['hdd'], True), ('NotIn', ['ssd'], False),
        ('Exists', [], True), ('DoesNotExist', [], False),
    ],
)  # fmt: skip
def test_node_affinity_operators_on_a_label_that_is_there(node, pod, verdict, operator, values, fits):  # noqa: PLR0917
    rule = {'key': 'disk', 'operator': operator, 'values': values}
    affinity = _required({'matchExpressions': [rule]})
    assert verdict(pod('p', affinity=affinity), node('n', labels={'disk': 'ssd'}), []) == (() if fits else (AFFINITY,))


@pytest.mark.parametrize(
    ('operator', 'values', 'fits'),
    [('In', ['ssd'], False), ('NotIn', ['ssd'], True), ('Exists', [], False), ('DoesNotExist', [], True),
     ('Gt', ['1'], False), ('Lt', ['1'], False)],
)  # fmt: skip
def test_node_affinity_operators_on_a_label_that_is_missing(node, pod, verdict, operator, values, fits):  # noqa: PLR0917
    rule = {'key': 'disk', 'operator': operator, 'values': values}
    affinity = _required({'matchExpressions': [rule]})
    assert verdict(pod('p', affinity=affinity), node('n'), []) == (() if fits else (AFFINITY,))


@pytest.mark.parametrize(
    ('label', 'operator', 'bound', 'fits'),
    [('8', 'Gt', '4', True), ('4', 'Gt', '4', False), ('2', 'Lt', '4', True), ('4', 'Lt', '4', False),
     ('many', 'Gt', '4', False), ('8', 'Gt', 'x', False)],
)  # fmt: skip
def test_greater_and_less_compare_whole_numbers(node, pod, verdict, label, operator, bound, fits):  # noqa: PLR0917
    affinity = _required({'matchExpressions': [{'key': 'cores', 'operator': operator, 'values': [bound]}]})
    assert verdict(pod('p', affinity=affinity), node('n', labels={'cores': label}), []) == (() if fits else (AFFINITY,))


def test_terms_are_alternatives_and_their_expressions_all_needed(node, pod, verdict):
    ssd = {'key': 'disk', 'operator': 'In', 'values': ['ssd']}
    gpu = {'key': 'gpu', 'operator': 'Exists'}
    n = node('n', labels={'disk': 'ssd'})
    assert verdict(pod('p', affinity=_required({'matchExpressions': [ssd, gpu]})), n, []) == (AFFINITY,)
    either = _required({'matchExpressions': [gpu]}, {'matchExpressions': [ssd]})
    assert verdict(pod('p', affinity=either), n, []) == ()
    assert verdict(pod('p', affinity=_required({})), n, []) == (AFFINITY,)


def test_match_fields_name_the_node_and_the_others_are_refused(node, pod, bench):
    field = {'key': 'metadata.name', 'operator': 'In', 'values': ['b']}
    bench.nodes(node('a'), node('b'), node('c'))
    bench.pods(pod('p', affinity=_required({'matchFields': [field]})))
    assert bench.run() == {'p': 'b'}
    nowhere = _required({'matchFields': [{**field, 'values': ['gone']}]})
    message = bench.failure(pod('q', affinity=nowhere)).message
    assert message.startswith(f'0/3 nodes are available: 3 {AFFINITY}.')


def test_the_node_selector_needs_every_label(node, pod, verdict):
    n = node('n', labels={'a': '1'})
    assert verdict(pod('p', nodeSelector={'a': '1'}), n, []) == ()
    assert verdict(pod('p', nodeSelector={'a': '1', 'b': '2'}), n, []) == (AFFINITY,)


def test_preferred_node_affinity_decides_between_equal_nodes(node, pod, bench):
    bench.nodes(node('a'), node('b', labels={'disk': 'ssd'}), node('c'))
    prefer = {'weight': 10, 'preference': {'matchExpressions': [{'key': 'disk', 'operator': 'Exists'}]}}
    affinity = {'nodeAffinity': {'preferredDuringSchedulingIgnoredDuringExecution': [prefer]}}
    bench.pods(pod('p', affinity=affinity))
    assert bench.run() == {'p': 'b'}


@pytest.mark.parametrize(
    ('request_', 'reasons'),
    [
        ({'cpu': '1'}, ()),
        ({'cpu': '1001m'}, ('Insufficient cpu',)),
        ({'memory': '1Gi'}, ()),
        ({'memory': '1025Mi'}, ('Insufficient memory',)),
        ({'cpu': '2', 'memory': '2Gi'}, ('Insufficient cpu', 'Insufficient memory')),
        ({'example.com/gpu': '1'}, ()),
        ({'example.com/gpu': '2'}, ('Insufficient example.com/gpu',)),
        ({'example.com/none': '1'}, ('Insufficient example.com/none',)),
        ({'ephemeral-storage': '1'}, ('Insufficient ephemeral-storage',)),
    ],
)
def test_requests_must_fit_into_what_is_left(node, pod, verdict, request_, reasons):
    n = node('n', cpu='2', memory='2Gi', extended={'example.com/gpu': '1'})
    wanted = pod('p', containers=[{'name': 'c', 'resources': {'requests': request_}}])
    assert verdict(wanted, n, [pod('other', cpu='1', memory='1Gi')]) == reasons


def test_a_full_node_refuses_even_a_pod_that_asks_for_nothing(node, pod, verdict):
    assert verdict(pod('p'), node('n', pods=1), [pod('other')]) == ('Too many pods',)


def test_a_pod_that_asks_for_nothing_fits_an_exhausted_node(node, pod, verdict):
    assert verdict(pod('p'), node('n', cpu='1'), [pod('other', cpu='3')]) == ()


@pytest.mark.parametrize(
    ('wanted', 'used', 'fits'),
    [
        ({'hostPort': 80}, {'hostPort': 80}, False),
        ({'hostPort': 80}, {'hostPort': 81}, True),
        ({'hostPort': 80, 'protocol': 'UDP'}, {'hostPort': 80}, True),
        ({'hostPort': 80, 'hostIP': '127.0.0.1'}, {'hostPort': 80, 'hostIP': '127.0.0.2'}, True),
        ({'hostPort': 80, 'hostIP': '127.0.0.1'}, {'hostPort': 80, 'hostIP': '0.0.0.0'}, False),
        ({'containerPort': 80}, {'hostPort': 80}, True),
    ],
)
def test_host_ports_collide_by_address_protocol_and_number(node, pod, verdict, wanted, used, fits):  # noqa: PLR0917
    present = pod('other', containers=[{'name': 'c', 'ports': [used]}])
    reasons = verdict(pod('p', containers=[{'name': 'c', 'ports': [wanted]}]), node('n'), [present])
    assert reasons == (() if fits else ("node(s) didn't have free ports for the requested pod ports",))


def test_the_emptiest_node_is_preferred(node, pod, bench):
    bench.nodes(node('busy'), node('idle'))
    bench.pods(pod('other', cpu='3', nodeName='busy'), pod('p', cpu='1'))
    assert bench.run() == {'p': 'idle'}


def test_use_of_cpu_and_memory_in_like_proportion_is_preferred(node, pod, bench):
    bench.nodes(node('cpu-taken', cpu='10', memory='10Gi'), node('memory-taken', cpu='10', memory='10Gi'))
    bench.pods(pod('a', cpu='4', nodeName='cpu-taken'), pod('b', memory='4Gi', nodeName='memory-taken'))
    bench.pods(pod('p', cpu='4', memory='100Mi'))
    assert bench.run() == {'p': 'memory-taken'}


def _required(*terms):
    return {'nodeAffinity': {'requiredDuringSchedulingIgnoredDuringExecution': {'nodeSelectorTerms': list(terms)}}}
