"""What the proxy's planner promises, by examples and by properties against the rules written down a second time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knode.proxy.model import Backend, Frontend
from knode.proxy.plan import Facts, host_ports, near, plan

FACTS = Facts('n1', '127.128.0.1', 'east')
IP, PORT = '127.96.0.5', Frontend('TCP', '127.96.0.5', 80)


def service(**spec: Any) -> dict[str, Any]:
    ports = [{'name': 'web', 'port': 80, 'protocol': 'TCP', 'targetPort': 8080}]
    status = spec.pop('status', {})
    meta = {'name': 's', 'namespace': 'd', 'labels': spec.pop('labels', {})}
    return {'metadata': meta, 'spec': {'type': 'ClusterIP', 'clusterIP': IP, 'ports': ports, **spec}, 'status': status}


def endpoint(
    n: int,
    *,
    node: str = 'n1',
    ready: bool | None = True,
    serving: bool | None = None,
    ending: bool = False,
    **more: Any,
) -> dict[str, Any]:
    conditions = {'ready': ready, 'serving': ready if serving is None else serving, 'terminating': ending}
    return {'addresses': [f'127.64.{node[1:]}.{n}'], 'nodeName': node, 'conditions': conditions, **more}


def piece(*endpoints: dict[str, Any], name: str = 's-1', kind: str = 'IPv4', **port: Any) -> dict[str, Any]:
    ports = [{'name': 'web', 'port': 8080, 'protocol': 'TCP', **port}]
    return {'metadata': {'name': name}, 'addressType': kind, 'endpoints': [*endpoints], 'ports': ports}


def led(made: Any, frontend: Frontend = PORT) -> list[str]:
    target = made.targets.get(frontend)
    return [b.ip for b in target.backends] if target else []


def test_a_cluster_ip_leads_to_what_is_ready_and_to_each_address_once():
    slices = [piece(endpoint(2), endpoint(3, ready=False)), piece(endpoint(2), endpoint(4), name='s-0')]
    made = plan(service(), slices, FACTS)
    assert led(made) == ['127.64.1.2', '127.64.1.4']
    assert made.targets[PORT].port_name == 'd/s:web'


def test_an_endpoint_whose_readiness_nobody_tells_is_ready():
    assert led(plan(service(), [piece({'addresses': ['127.64.1.2']})], FACTS)) == ['127.64.1.2']


def test_endpoints_that_end_serve_only_when_none_is_ready():
    ending = endpoint(2, ready=False, serving=True, ending=True)
    dead = endpoint(3, ready=False, serving=False, ending=True)
    assert led(plan(service(), [piece(ending, dead)], FACTS)) == ['127.64.1.2']
    assert led(plan(service(), [piece(ending, dead, endpoint(4))], FACTS)) == ['127.64.1.4']
    assert PORT not in plan(service(), [piece(dead)], FACTS).targets


@pytest.mark.parametrize(
    'spec',
    [
        {'clusterIP': 'None'},
        {'clusterIP': ''},
        {'type': 'ExternalName', 'externalName': 'x', 'clusterIP': None},
        {'labels': {'service.kubernetes.io/service-proxy-name': 'other'}},
    ],
)
def test_some_services_are_not_the_proxys_matter(spec):
    assert not plan(service(**spec), [piece(endpoint(2))], FACTS).targets


@pytest.mark.parametrize(
    'slices',
    [[piece(endpoint(2), kind='IPv6')], [piece(endpoint(2), protocol='UDP')],
     [piece(endpoint(2), port=None)], [{**piece(endpoint(2)), 'ports': [{'name': 'other', 'port': 1}]}]],
)  # fmt: skip
def test_slices_of_other_families_protocols_and_names_are_left_out(slices):
    assert not plan(service(), slices, FACTS).targets


def test_ports_of_one_number_and_two_protocols_are_two_frontends():
    ports = [{'name': 'a', 'port': 80, 'protocol': 'TCP'}, {'name': 'b', 'port': 80, 'protocol': 'UDP'}]
    both = {
        **piece(endpoint(2)),
        'ports': [{'name': n, 'port': 8080, 'protocol': p} for n, p in (('a', 'TCP'), ('b', 'UDP'))],
    }
    assert {*plan(service(ports=ports), [both], FACTS).targets} == {PORT, Frontend('UDP', IP, 80)}


def test_a_node_port_is_served_at_the_nodes_own_address_and_with_policy_local_leads_to_its_own_pods():
    ports = [{'name': 'web', 'port': 80, 'protocol': 'TCP', 'nodePort': 30080}]
    slices = [piece(endpoint(2), endpoint(3, node='n2'))]
    node_port = Frontend('TCP', '127.128.0.1', 30080)
    made = plan(service(type='NodePort', ports=ports), slices, FACTS)
    assert led(made, node_port) == led(made) == ['127.64.1.2', '127.64.2.3']
    made = plan(service(type='NodePort', ports=ports, externalTrafficPolicy='Local'), slices, FACTS)
    assert (led(made, node_port), led(made)) == (['127.64.1.2'], ['127.64.1.2', '127.64.2.3'])
    made = plan(service(type='ClusterIP', ports=ports), slices, FACTS)
    assert node_port not in made.targets


def test_external_addresses_and_those_of_load_balancers_are_served():
    ingress = [{'ip': '127.0.0.8'}, {'ip': '127.0.0.9', 'ipMode': 'Proxy'}, {'hostname': 'x'}]
    made = plan(
        service(type='LoadBalancer', externalIPs=['127.0.0.7', '::1'], loadBalancerSourceRanges=['127.64.0.0/16'],
                status={'loadBalancer': {'ingress': ingress}}),
        [piece(endpoint(2))], FACTS,
    )  # fmt: skip
    assert {f.ip for f in made.targets} == {IP, '127.0.0.7', '127.0.0.8'}
    balanced = made.targets[Frontend('TCP', '127.0.0.8', 80)]
    assert [balanced.allows(c) for c in ('127.64.9.9', '127.0.0.1')] == [True, False]


def test_a_health_check_port_counts_the_nodes_own_endpoints():
    local = {'type': 'LoadBalancer', 'externalTrafficPolicy': 'Local', 'healthCheckNodePort': 31000}
    ends = endpoint(4, ready=False, serving=True, ending=True)
    for endpoints, count in (((endpoint(2), endpoint(3), endpoint(4, node='n2')), 2), ((ends,), 1), ((), 0)):
        health = plan(service(**local), [piece(*endpoints)], FACTS).health
        assert health[31000].local == count
    assert not plan(service(**local | {'externalTrafficPolicy': 'Cluster'}), [piece(endpoint(2))], FACTS).health


def test_hints_keep_traffic_in_the_zone_only_while_every_endpoint_has_one_and_some_are_for_it():
    east, west = ({'hints': {'forZones': [{'name': z}]}} for z in ('east', 'west'))
    assert led(plan(service(), [piece(endpoint(2, **east), endpoint(3, **west))], FACTS)) == ['127.64.1.2']
    for endpoints in ((endpoint(2, **east), endpoint(3)), (endpoint(2, **west), endpoint(3, **west))):
        assert led(plan(service(), [piece(*endpoints)], FACTS)) == ['127.64.1.2', '127.64.1.3']
    nowhere = Facts('n1', '127.128.0.1')
    assert len(led(plan(service(), [piece(endpoint(2, **east), endpoint(3, **west))], nowhere))) == 2


def test_session_affinity_lasts_three_hours_unless_told():
    assert plan(service(), [piece(endpoint(2))], FACTS).targets[PORT].affinity_s == 0
    sticky = service(sessionAffinity='ClientIP')
    assert plan(sticky, [piece(endpoint(2))], FACTS).targets[PORT].affinity_s == 10_800
    sticky['spec']['sessionAffinityConfig'] = {'clientIP': {'timeoutSeconds': 9}}
    assert plan(sticky, [piece(endpoint(2))], FACTS).targets[PORT].affinity_s == 9


BACKENDS = (Backend('127.64.1.2', 1, 'n1'), Backend('127.64.2.2', 1, 'n2'), Backend('10.0.0.1', 1, 'far'))


@pytest.mark.parametrize(
    ('client', 'nodes'),
    [('127.64.1.77', ['n1']), ('127.64.2.3', ['n2']), ('127.64.3.3', []), ('127.0.0.1', ['n1', 'n2'])],
)
def test_what_is_near_a_client_is_told_by_its_address(client, nodes):
    assert [b.node for b in near(BACKENDS, client, 24)] == nodes


ENDPOINTS = st.lists(
    st.builds(
        lambda n, node, ready, serving, ending: endpoint(n, node=node, ready=ready, serving=serving, ending=ending),
        st.integers(2, 9), st.sampled_from(['n1', 'n2', 'n3']), st.booleans(), st.booleans(), st.booleans(),
    ),
    max_size=8, unique_by=lambda e: e['addresses'][0],
)  # fmt: skip


@given(ENDPOINTS, st.sampled_from(['Cluster', 'Local']), st.sampled_from(['Cluster', 'Local']), st.data())
def test_every_frontend_leads_to_exactly_what_the_rules_of_upstream_allow(endpoints, internal, external, data):
    """CategorizeEndpoints, said once more: the first group that is not empty, of all nodes or of the policy's."""
    cut = data.draw(st.integers(0, len(endpoints)))
    slices = data.draw(st.permutations([piece(*endpoints[:cut], name='a'), piece(*endpoints[cut:], name='b')]))
    ports = [{'name': 'web', 'port': 80, 'protocol': 'TCP', 'nodePort': 30080}]
    spec = service(type='NodePort', ports=ports, internalTrafficPolicy=internal, externalTrafficPolicy=external)
    made = plan(spec, slices, FACTS)

    def first_group(of: list[dict[str, Any]]) -> list[str]:
        ready = [e for e in of if e['conditions']['ready']]
        last = [e for e in of if e['conditions']['serving'] and e['conditions']['terminating']]
        return sorted(e['addresses'][0] for e in ready or last)

    here = [e for e in endpoints if e['nodeName'] == 'n1']
    assert led(made, Frontend('TCP', '127.128.0.1', 30080)) == first_group(here if external == 'Local' else endpoints)
    target = made.targets.get(PORT)
    if internal == 'Cluster':
        assert led(made) == first_group(endpoints)
        return
    for node in ('n1', 'n2', 'n3'):
        found = near(target.backends, f'127.64.{node[1:]}.99', 24) if target else ()
        assert sorted(b.ip for b in found) == first_group([e for e in endpoints if e['nodeName'] == node])


def pod(*ports: dict[str, Any], **changes: Any) -> dict[str, Any]:
    status = {'podIP': '127.64.1.2', 'phase': 'Running', 'conditions': [{'type': 'Ready', 'status': 'True'}]}
    spec = {'containers': [{'name': 'c', 'ports': [*ports]}], 'hostNetwork': changes.pop('host', False)}
    return {'metadata': {'name': 'p', 'namespace': 'd'}, 'spec': spec, 'status': status | changes}


HOST_PORT = {'containerPort': 8080, 'hostPort': 90}


@pytest.mark.parametrize(
    ('given', 'frontends'),
    [
        (pod(HOST_PORT), {Frontend('TCP', '127.128.0.1', 90)}),
        (pod({**HOST_PORT, 'hostIP': '0.0.0.0', 'protocol': 'UDP'}), {Frontend('UDP', '127.128.0.1', 90)}),
        (pod({**HOST_PORT, 'hostIP': '127.0.0.1'}), {Frontend('TCP', '127.0.0.1', 90)}),
        (pod({'containerPort': 90, 'hostPort': 90}), set()),
        (pod({'containerPort': 90}), set()),
        (pod(HOST_PORT, host=True), set()),
        (pod(HOST_PORT, podIP=''), set()),
        (pod(HOST_PORT, phase='Failed'), set()),
        (pod(HOST_PORT, conditions=[]), set()),
    ],
)
def test_host_ports_that_a_program_cannot_take_itself_are_forwarded_while_its_pod_is_ready(given, frontends):
    targets = host_ports(given, FACTS).targets
    assert {*targets} == frontends
    assert all(t.backends == (Backend('127.64.1.2', 8080, 'n1'),) for t in targets.values())
