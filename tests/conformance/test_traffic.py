"""Upstream's conformance tests of what reaches a Service, by address and by name, on real processes.

Connections are made by pods: `netexec`'s own `/dial`, and programs of pods that ask their resolver.
"""
# ruff: noqa: E501 — names of upstream's tests are kept whole, so that they can be searched for

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

import pytest

from kclient.errors import ApiError
from kcore.meta.gvk import DEPLOYMENTS, NODES, PODS, SERVICES
from tests.conformance.pods import WITHIN_S, Obj, World, condition, says
from tests.conformance.scenarios import Ends, Scenarios
from tests.e2e.conftest import LocalCluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180), pytest.mark.xdist_group('traffic')]
scenarios = Scenarios()
scenario = scenarios.add
HTTP, UDP = 8080, 8081
OFTEN = 15


# --- who answers at an address


async def serve(world: World, app: str, count: int = 1, ports: Any = (), **spec: Any) -> list[str]:
    """Addresses of pods that say their names; they are ready."""
    names = [f'{app}-{n}' for n in range(count)]
    args = ['netexec', f'--http-port={HTTP}', f'--udp-port={UDP}']
    for name in names:
        meta = {'name': name, 'namespace': world.namespace, 'labels': {'app': app}}
        container = {
            'name': 'c', 'image': 'agnhost', 'args': args, 'ports': [*ports],
            'readinessProbe': {'httpGet': {'path': '/healthz', 'port': HTTP}, 'periodSeconds': 1},
        }  # fmt: skip
        body = {'terminationGracePeriodSeconds': 1, 'containers': [container], **spec}
        await world.client.create(PODS, {'metadata': meta, 'spec': body})
    return [(await world.until(n, lambda pod: condition(pod, 'Ready') == 'True'))['status']['podIP'] for n in names]


def tcp(**more: Any) -> Obj:
    return {'name': 'http', 'port': 80, 'protocol': 'TCP', 'targetPort': HTTP, **more}


async def make(world: World, name: str, **spec: Any) -> Obj:
    body = {'selector': {'app': name}, 'ports': [tcp()], **spec}
    return await world.make(SERVICES, name, spec=body)


async def change(world: World, name: str, **spec: Any) -> Obj:
    return await world.client.patch(SERVICES, name, {'spec': spec}, world.namespace)


async def node_address(world: World) -> str:
    node = (await world.client.list(NODES)).items[0]
    return next(a['address'] for a in node['status']['addresses'] if a['type'] == 'InternalIP')


async def dial(by: str, host: str, port: int, tries: int = 1, protocol: str = 'http') -> list[str]:
    """Who answers the pod at `by`; empty where nobody does."""
    query = {'host': host, 'port': port, 'tries': tries, 'protocol': protocol, 'request': 'hostname'}
    reader, writer = await asyncio.open_connection(by, HTTP)
    writer.write(f'GET /dial?{urlencode(query)} HTTP/1.1\r\nHost: x\r\n\r\n'.encode())
    async with asyncio.timeout(WITHIN_S):
        body = (await reader.read()).partition(b'\r\n\r\n')[2]
    writer.close()
    return list(json.loads(body)['responses'])


async def until(ask: Callable[[], Awaitable[Any]], wanted: Callable[[Any], bool]) -> None:
    found = None
    try:
        async with asyncio.timeout(WITHIN_S):
            while not wanted(found := await ask()):
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f'the last answer was {found!r}') from None


async def reaches(by: str, host: str, port: int, *pods: str, protocol: str = 'http') -> None:
    """Until all of these answer there, and nobody else."""
    await until(lambda: dial(by, host, port, OFTEN, protocol), lambda found: {*found} == {*pods})


async def stays(by: str, host: str, port: int) -> None:
    """Until one pod answers all that is asked in a row."""
    await until(lambda: dial(by, host, port, OFTEN), lambda found: len({*found}) == 1 and len(found) == OFTEN)


async def affinity(world: World, name: str, kind: str, *, switch: bool) -> None:
    sticky = {'type': kind, 'sessionAffinity': 'ClientIP'}
    made = await make(world, name, **({'type': kind} if switch else sticky))
    by, *_ = await serve(world, name, 3)
    port = made['spec']['ports'][0]
    where = (await node_address(world), port['nodePort']) if kind == 'NodePort' else (made['spec']['clusterIP'], 80)
    everybody = [f'{name}-{n}' for n in range(3)]
    if switch:
        await reaches(by, *where, *everybody)
        await change(world, name, sessionAffinity='ClientIP')
        await stays(by, *where)
        await change(world, name, sessionAffinity='None')
        await reaches(by, *where, *everybody)
        return
    await stays(by, *where)
    [home] = {*await dial(by, *where, OFTEN)}
    assert {*await dial(by, *where, OFTEN)} == {home}


@scenario('Services should have session affinity work for service with type clusterIP')
async def affinity_of_a_cluster_ip(world: World, name: str) -> None:
    await affinity(world, name, 'ClusterIP', switch=False)


@scenario('Services should have session affinity work for NodePort service')
async def affinity_of_a_node_port(world: World, name: str) -> None:
    await affinity(world, name, 'NodePort', switch=False)


@scenario('Services should be able to switch session affinity for service with type clusterIP')
async def switched_affinity_of_a_cluster_ip(world: World, name: str) -> None:
    await affinity(world, name, 'ClusterIP', switch=True)


@scenario('Services should be able to switch session affinity for NodePort service')
async def switched_affinity_of_a_node_port(world: World, name: str) -> None:
    await affinity(world, name, 'NodePort', switch=True)


@scenario('Services should be able to create a functioning NodePort service')
async def a_node_port(world: World, name: str) -> None:
    made = await make(world, name, type='NodePort')
    by, *_ = await serve(world, name, 2)
    pods = (f'{name}-0', f'{name}-1')
    await reaches(by, name, 80, *pods)
    await reaches(by, made['spec']['clusterIP'], 80, *pods)
    await reaches(by, await node_address(world), made['spec']['ports'][0]['nodePort'], *pods)


@scenario('Services should serve endpoints on same port and different protocols')
async def one_port_of_two_protocols(world: World, name: str) -> None:
    udp = {'name': 'udp', 'port': 80, 'protocol': 'UDP', 'targetPort': UDP}
    made = await make(world, name, ports=[tcp(), udp])
    where = made['spec']['clusterIP'], 80
    [by] = await serve(world, name)
    await reaches(by, *where, f'{name}-0')
    await reaches(by, *where, f'{name}-0', protocol='udp')
    await change(world, name, ports=[tcp()])
    await until(lambda: dial(by, *where, 1, 'udp'), lambda found: not found)
    await reaches(by, *where, f'{name}-0')


@scenario(
    'HostPort validates that there is no conflict between pods with same hostPort but different hostIP and protocol [LinuxOnly]'
)
async def one_host_port_of_three_pods(world: World, name: str) -> None:
    number, node = 54323, await node_address(world)
    places = (('127.0.0.1', 'TCP', HTTP), (node, 'TCP', HTTP), (node, 'UDP', UDP))
    pods = [f'{name}{n}' for n in range(len(places))]
    for pod, (ip, protocol, to) in zip(pods, places, strict=True):
        ports = [{'containerPort': to, 'hostPort': number, 'hostIP': ip, 'protocol': protocol}]
        [by] = await serve(world, pod, ports=ports)
    for pod, (ip, protocol, _) in zip(pods, places, strict=True):
        way = 'udp' if protocol == 'UDP' else 'http'
        await until(lambda i=ip, w=way: dial(by, i, number, 1, w), lambda found, pod=pod: found == [f'{pod}-0'])


# --- Services that become others


async def external(world: World, name: str) -> str:
    """The full name of a Service that others are to stand for."""
    await make(world, f'{name}x')
    await serve(world, f'{name}x')
    return f'{name}x.{world.namespace}.svc.cluster.local'


async def becomes_external(world: World, name: str, kind: str) -> None:
    target = await external(world, name)
    await make(world, name, type=kind)
    [by] = await serve(world, name)
    await reaches(by, name, 80, f'{name}-0')
    await change(world, name, type='ExternalName', externalName=target)
    await reaches(by, name, 80, f'{name}x-0')


async def stops_being_external(world: World, name: str, kind: str) -> None:
    target = await external(world, name)
    await world.make(SERVICES, name, spec={'type': 'ExternalName', 'externalName': target})
    [by] = await serve(world, name)
    await reaches(by, name, 80, f'{name}x-0')
    changed = await change(world, name, type=kind, externalName=None, selector={'app': name}, ports=[tcp()])
    await reaches(by, name, 80, f'{name}-0')
    if kind == 'NodePort':
        await reaches(by, await node_address(world), changed['spec']['ports'][0]['nodePort'], f'{name}-0')


@scenario('Services should be able to change the type from ClusterIP to ExternalName')
async def cluster_ip_to_external(world: World, name: str) -> None:
    await becomes_external(world, name, 'ClusterIP')


@scenario('Services should be able to change the type from NodePort to ExternalName')
async def node_port_to_external(world: World, name: str) -> None:
    await becomes_external(world, name, 'NodePort')


@scenario('Services should be able to change the type from ExternalName to ClusterIP')
async def external_to_cluster_ip(world: World, name: str) -> None:
    await stops_being_external(world, name, 'ClusterIP')


@scenario('Services should be able to change the type from ExternalName to NodePort')
async def external_to_node_port(world: World, name: str) -> None:
    await stops_being_external(world, name, 'NodePort')


# --- a whole application


BOOK: dict[str, tuple[int, int, tuple[str, ...]]] = {
    'agnhost-primary': (1, 6379, ('--http-port=6379',)),
    'agnhost-replica': (2, 6379, ('--replicaof=agnhost-primary', '--http-port=6379')),
    'frontend': (3, 8080, ('--backend-port=6379', '--http-port=8080')),
}
"""Name → replicas, port, flags."""


@scenario('Kubectl client Guestbook application should create and stop a working application')
async def a_guestbook(world: World, name: str) -> None:
    for app, (replicas, port, flags) in BOOK.items():
        meta, labels = {'name': app, 'namespace': world.namespace}, {'app': app}
        container = {
            'name': 'c', 'image': 'agnhost', 'args': ['guestbook', *flags], 'ports': [{'containerPort': port}],
            'readinessProbe': {'tcpSocket': {'port': port}, 'periodSeconds': 1},
        }  # fmt: skip
        pod = {'metadata': {'labels': labels}, 'spec': {'terminationGracePeriodSeconds': 1, 'containers': [container]}}
        spec = {'replicas': replicas, 'selector': {'matchLabels': labels}, 'template': pod}
        await world.client.create(DEPLOYMENTS, {'metadata': meta, 'spec': spec})
        await world.make(SERVICES, app, spec={'selector': labels, 'ports': [{'port': port}]})

    async def book(command: str, value: str = '') -> str:
        path = f'/api/v1/namespaces/{world.namespace}/services/frontend/proxy/guestbook'
        query = {'cmd': command, 'key': 'messages', 'value': value}
        try:
            return await (await world.client.request('GET', path, params=query)).text()
        except ApiError as e:
            return str(e)

    await until(lambda: book('get'), lambda said: said == '{"data": ""}')
    await until(lambda: book('set', 'TestEntry'), lambda said: said == '{"data": "Updated"}')
    await until(lambda: book('get'), lambda said: said == '{"data": "TestEntry"}')
    for app in BOOK:
        await world.client.delete(DEPLOYMENTS, app, world.namespace)
        await world.client.delete(SERVICES, app, world.namespace)
    await until(lambda: left(world), lambda pods: not pods)


async def left(world: World) -> list[str]:
    pods = (await world.client.list(PODS, world.namespace, label_selector=f'app in ({",".join(BOOK)})')).items
    return [p['metadata']['name'] for p in pods]


# --- names

ASK = """
import sys, time
import dns.resolver, dns.reversename
for row in sys.argv[1:]:
    kind, name = row.split()
    while True:
        try:
            found = dns.resolver.resolve(dns.reversename.from_address(name) if kind == 'PTR' else name, kind, search=True)
            break
        except Exception:
            time.sleep(0.1)
    print(kind, name, *sorted(r.to_text() for r in found), flush=True)
"""


async def told(world: World, name: str, rows: dict[str, str], **spec: Any) -> None:
    """A pod's resolver has these answers, sooner or later. rows: `TYPE name` → records."""
    await world.create(name, sys.executable, '-c', ASK, *rows, **spec)
    for question, answer in rows.items():
        await says(world, name, f'{question} {answer}\n')


async def headless(world: World, name: str, **spec: Any) -> str:
    """A Service of one pod that has the name `host` below it; the pod's address."""
    await make(world, name, clusterIP='None', **spec)
    [address] = await serve(world, name, hostname='host', subdomain=name)
    return address


@scenario('DNS should provide DNS for the cluster')
async def names_of_the_api(world: World, name: str) -> None:
    api = (await world.client.get(SERVICES, 'kubernetes', 'default'))['spec']['clusterIP']
    full = 'kubernetes.default.svc.cluster.local'
    await told(world, name, {
        f'A {full}': api, 'A kubernetes.default.svc': api, 'A kubernetes.default': api,
        f'SRV _https._tcp.{full}': f'0 100 443 {full}.', f'PTR {api}': f'{full}.',
    })  # fmt: skip


@scenario(
    'DNS should provide DNS for services',
    'DNS should resolve DNS of partial qualified names for services [LinuxOnly]',
)
async def names_of_services(world: World, name: str) -> None:
    ns, head = world.namespace, f'{name}h'
    address = (await make(world, name))['spec']['clusterIP']
    await serve(world, name)
    pod = await headless(world, head)
    full = f'{ns}.svc.cluster.local'
    await told(world, f'{name}-ask', {
        f'A {name}': address, f'A {name}.{ns}': address, f'A {name}.{ns}.svc': address, f'A {name}.{full}': address,
        f'A {head}': pod, f'A {head}.{ns}.svc': pod,
        f'SRV _http._tcp.{name}.{ns}.svc': f'0 100 80 {name}.{full}.',
        f'SRV _http._tcp.{head}.{ns}.svc': f'0 100 {HTTP} host.{head}.{full}.',
        f'PTR {address}': f'{name}.{full}.', f'PTR {pod}': f'host.{head}.{full}.',
    })  # fmt: skip


@scenario('DNS should provide DNS for pods for Hostname', 'DNS should provide DNS for pods for Subdomain')
async def names_of_pods(world: World, name: str) -> None:
    address, full = await headless(world, name), f'{world.namespace}.svc.cluster.local'
    dashed = f'{address.replace(".", "-")}.{world.namespace}.pod.cluster.local'
    rows = {f'A host.{name}.{full}': address, f'A host.{name}': address, f'A {dashed}': address}
    await told(world, f'{name}-ask', rows)


@scenario('DNS should provide DNS for ExternalName services')
async def names_of_external_services(world: World, name: str) -> None:
    full = f'{name}.{world.namespace}.svc.cluster.local'
    await world.make(SERVICES, name, spec={'type': 'ExternalName', 'externalName': 'foo.example.com'})
    await told(world, f'{name}-1', {f'CNAME {full}': 'foo.example.com.'})
    await change(world, name, externalName='bar.example.com')
    await until(lambda: _name(world, full, f'{name}-2'), lambda found: found == 'bar.example.com.')
    changed = await change(world, name, type='ClusterIP', externalName=None, ports=[tcp()])
    await told(world, f'{name}-3', {f'A {full}': changed['spec']['clusterIP']})


async def _name(world: World, full: str, pod: str) -> str:
    """What a pod that asks once is told."""
    line = await world.output(f'{pod}-{world.client.env.new_uid()[:8]}', sys.executable, '-c', ASK, f'CNAME {full}')
    return line.split()[-1]


@pytest.fixture(scope='module')
def ends(cluster: LocalCluster) -> Ends:
    return scenarios.run(cluster)


@pytest.mark.parametrize('name', scenarios.rows())
def test_traffic(ends: Ends, name: str) -> None:
    scenarios.judge(ends, name)
