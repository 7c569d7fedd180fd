"""From what the watches say to who listens, and what is told when nobody can."""

from __future__ import annotations

import asyncio
import os
import socket
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry

from kclient.informer import Informer
from kclient.reflector import Begin, Commit, Delete, Put
from kcore.env import Env
from kcore.meta.gvk import ENDPOINTSLICES, PODS, SERVICES
from kcore.tasks import start_detached, stop
from knode.proxy.plan import Facts
from knode.proxy.proxier import SERVICE_INDEX, Proxier, service_of
from tests.knode.conftest import poll_until

NET = f'127.{40 + os.getpid() % 20}.{os.getpid() // 20 % 250}'
VIP, NODE, POD = f'{NET}.101', f'{NET}.102', f'{NET}.103'


@pytest.fixture
async def world(env: Env) -> Any:
    client: Any = SimpleNamespace(env=env)
    made = SimpleNamespace(
        services=Informer(client, SERVICES), pods=Informer(client, PODS), told=[], facts=Facts('n1', NODE),
        slices=Informer(client, ENDPOINTSLICES, indexers={SERVICE_INDEX: service_of}), registry=CollectorRegistry(),
    )  # fmt: skip
    events: Any = SimpleNamespace(event=lambda obj, kind, reason, text: made.told.append((obj['kind'], reason, text)))
    proxier = Proxier(
        env, lambda: made.facts, lambda: 24, services=made.services, slices=made.slices, pods=made.pods, events=events,
        registry=made.registry,
    )  # fmt: skip
    made.proxier, serial = proxier, iter(range(1, 1000))

    def put(informer: Informer, obj: dict[str, Any]) -> None:
        obj = {**obj, 'metadata': {**obj['metadata'], 'resourceVersion': str(next(serial))}}
        informer.apply([Put(obj)])

    made.pod = lambda **more: put(made.pods, pod(**more))
    made.service = lambda **spec: put(made.services, service(**spec))
    made.slice = lambda *addresses: put(made.slices, piece(*addresses))
    for informer in (made.services, made.slices):
        informer.apply([Begin(), Commit('1')])
    task = start_detached('proxy', proxier.run())
    with socket.create_server((POD, 8080)):
        yield made
        await stop(task)


def service(**spec: Any) -> dict[str, Any]:
    ports = [{'name': 'web', 'port': 18080, 'protocol': 'TCP', 'nodePort': 30080}]
    return {
        'metadata': {'name': 's', 'namespace': 'd'},
        'spec': {'type': 'NodePort', 'clusterIP': VIP, 'ports': ports, **spec},
    }


def piece(*addresses: str) -> dict[str, Any]:
    return {
        'metadata': {'name': 's-1', 'namespace': 'd', 'labels': {'kubernetes.io/service-name': 's'}},
        'addressType': 'IPv4', 'ports': [{'name': 'web', 'port': 8080}],
        'endpoints': [{'addresses': [a], 'nodeName': 'n1'} for a in addresses],
    }  # fmt: skip


def pod(*, ready: bool = True, **spec: Any) -> dict[str, Any]:
    conditions = [{'type': 'Ready', 'status': str(ready)}]
    return {
        'metadata': {'name': 'p', 'namespace': 'd'}, 'spec': spec,
        'status': {'podIP': POD, 'phase': 'Running', 'conditions': conditions},
    }  # fmt: skip


def listens(ip: str, port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex((ip, port)) == 0


async def test_frontends_follow_services_slices_and_what_the_node_knows_of_itself(world):
    world.slice(POD)
    world.service()
    await poll_until(lambda: listens(VIP, 18080) and listens(NODE, 30080))
    world.facts = Facts('n1', f'{NET}.104')
    world.proxier.look()
    await poll_until(lambda: listens(f'{NET}.104', 30080) and not listens(NODE, 30080))
    world.slice()
    await poll_until(lambda: not listens(VIP, 18080))
    world.slice(POD)
    await poll_until(lambda: listens(VIP, 18080))
    world.services.apply([Delete(service())])
    await poll_until(lambda: not listens(VIP, 18080))
    value = world.registry.get_sample_value
    assert value('kubeproxy_sync_proxy_rules_service_changes_total') == 2
    assert value('kubeproxy_sync_proxy_rules_endpoint_changes_total') == 3
    assert value('kubeproxy_sync_proxy_rules_duration_seconds_count') > 0
    assert value('kubeling_proxy_frontends') == 0


async def test_a_service_that_nobody_can_serve_has_an_event(world):
    with socket.create_server((VIP, 18080)):
        world.service()
        world.slice(POD)
        await poll_until(lambda: world.told)
    [(kind, reason, text)] = world.told
    assert (kind, reason) == ('Service', 'ServiceNotServed')
    assert text.startswith(f'nobody listens at {VIP}:18080/TCP: another process has taken the port')


async def test_an_address_of_another_machine_is_none_of_our_business_unless_it_is_the_cluster_ip(world):
    world.slice(POD)
    world.service(externalIPs=['198.51.100.1'])
    await poll_until(lambda: listens(VIP, 18080))
    assert not world.told
    world.service(clusterIP='198.51.100.2')
    await poll_until(lambda: world.told)
    assert 'no address of this machine' in world.told[0][2]


async def test_load_balancers_hear_whether_this_node_has_endpoints(world):
    local = {'type': 'LoadBalancer', 'externalTrafficPolicy': 'Local', 'healthCheckNodePort': 31000}
    world.service(**local)

    async def ask() -> tuple[str, dict[str, Any]]:
        reader, writer = await asyncio.open_connection(NODE, 31000)
        writer.write(b'GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n')
        head, _, body = (await reader.read()).partition(b'\r\n\r\n')
        writer.close()
        return head.split()[1].decode(), orjson.loads(body)

    await poll_until(lambda: listens(NODE, 31000))
    assert await ask() == (
        '503',
        {'service': {'namespace': 'd', 'name': 's'}, 'localEndpoints': 0, 'serviceProxyHealthy': True},
    )
    world.slice(POD)
    await poll_until(lambda: listens(VIP, 18080))
    status, body = await ask()
    assert (status, body['localEndpoints']) == ('200', 1)
    world.service(**local | {'externalTrafficPolicy': 'Cluster'})
    await poll_until(lambda: not listens(NODE, 31000))


async def test_host_ports_lead_to_the_pod_while_it_is_ready(world):
    ports = [{'containerPort': 8080, 'hostPort': 18099}, {'containerPort': 8080, 'hostPort': 18098, 'hostIP': VIP}]
    containers = [{'name': 'c', 'ports': ports}]
    world.pod(containers=containers)
    await poll_until(lambda: listens(NODE, 18099) and listens(VIP, 18098))
    assert not listens(VIP, 18099)
    world.facts = Facts('n1', f'{NET}.105')
    world.proxier.look()
    await poll_until(lambda: listens(f'{NET}.105', 18099) and not listens(NODE, 18099))
    world.pod(containers=containers, ready=False)
    await poll_until(lambda: not listens(VIP, 18098))
    world.pod(containers=containers)
    await poll_until(lambda: listens(VIP, 18098))
    world.pods.apply([Delete(pod(containers=containers))])
    await poll_until(lambda: not listens(VIP, 18098))
