"""The Service of the cluster's name servers and its Endpoints, as nodes come, go and fall silent."""

from __future__ import annotations

import pytest

from kcontrol.config import ControlConfig
from kcontrol.controllers.clusterdns.plan import subsets
from kcore.meta.clusterdns import ADDRESS_ANNOTATION
from kcore.meta.gvk import ENDPOINTS, ENDPOINTSLICES, NODES, SERVICES

DNS = 'kube-dns'
ADDRESS = '127.96.0.10'


def node(name: str, address: str = '', ready: str = 'True') -> dict:
    annotations = {ADDRESS_ANNOTATION: address} if address else {}
    conditions = [{'type': 'Ready', 'status': ready}]
    return {'metadata': {'name': name, 'annotations': annotations}, 'status': {'conditions': conditions}}


def test_nodes_that_answer_are_endpoints_and_those_that_are_not_ready_are_not_ready_ones():
    nodes = [node('b', '127.128.0.2:10053'), node('c', '127.128.0.3:10053', 'Unknown'), node('x'),
             node('y', 'nonsense'), node('a', '127.128.0.1:10053'), node('d', '127.128.0.4:5300')]  # fmt: skip

    def ports(number: int) -> list[dict]:
        return [{'name': n, 'port': number, 'protocol': p} for n, p in (('dns', 'UDP'), ('dns-tcp', 'TCP'))]

    assert subsets(nodes) == [
        {'addresses': [{'ip': '127.128.0.4', 'nodeName': 'd'}], 'ports': ports(5300)},
        {
            'addresses': [{'ip': f'127.128.0.{n}', 'nodeName': name} for n, name in ((1, 'a'), (2, 'b'))],
            'notReadyAddresses': [{'ip': '127.128.0.3', 'nodeName': 'c'}], 'ports': ports(10053),
        },
    ]  # fmt: skip
    assert subsets([node('x')]) == []


@pytest.mark.parametrize('bad', ['x', '1.2.3', '::1'])
def test_an_address_that_is_none_is_refused(bad):
    with pytest.raises(ValueError, match='must be an IPv4 address'):
        ControlConfig(kubeconfig='x', identity='i', cluster_dns=bad)


@pytest.mark.parametrize('config_of', ['kapi'], indirect=True)
async def test_the_service_is_made_once_a_node_answers_and_comes_back_when_deleted(admin, controllers, until, exists):
    await controllers('clusterdns', 'endpointslicemirroring', cluster_dns=ADDRESS)
    await admin.create(NODES, {'metadata': {'name': 'n1', 'annotations': {ADDRESS_ANNOTATION: '127.128.0.1:10053'}}})
    await admin.patch(NODES, 'n1', {'status': node('n1')['status']}, subresource='status')

    async def served() -> bool:
        found = await exists(admin, ENDPOINTS, DNS, 'kube-system')
        return bool(found) and [a['ip'] for s in found['subsets'] for a in s.get('addresses', ())] == ['127.128.0.1']

    await until(served)
    service = await admin.get(SERVICES, DNS, 'kube-system')
    assert service['spec']['clusterIP'] == ADDRESS
    assert service['metadata']['labels']['k8s-app'] == DNS
    assert [(p['name'], p['port'], p['protocol']) for p in service['spec']['ports']] == [
        ('dns', 53, 'UDP'), ('dns-tcp', 53, 'TCP'),
    ]  # fmt: skip

    async def sliced() -> bool:
        selector = f'kubernetes.io/service-name={DNS}'
        slices = (await admin.list(ENDPOINTSLICES, 'kube-system', label_selector=selector)).items
        return [(e['addresses'], e['conditions']['ready']) for s in slices for e in s['endpoints']] == [
            (['127.128.0.1'], True)
        ]

    await until(sliced)
    await admin.delete(SERVICES, DNS, 'kube-system')

    async def back() -> bool:
        found = await exists(admin, SERVICES, DNS, 'kube-system')
        return bool(found) and found['metadata']['uid'] != service['metadata']['uid']

    await until(back)
    await admin.patch(NODES, 'n1', {'status': node('n1', ready='Unknown')['status']}, subresource='status')

    async def unready() -> bool:
        held = await admin.get(ENDPOINTS, DNS, 'kube-system')
        return [a['ip'] for s in held['subsets'] for a in s.get('notReadyAddresses', ())] == ['127.128.0.1']

    await until(unready)
