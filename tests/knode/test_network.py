"""An agent that serves Services and names, as a process, and one that has not the privilege for all of it."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import dns.message
import pytest
from pydantic import ValidationError

from kclient.api import Client
from kcore.meta.gvk import ENDPOINTSLICES, EVENTS, NODES, PODS, SERVICES
from knode.config import NodeConfig
from tests.knode.agent_world import NODE, World, connected, pod
from tests.knode.conftest import poll_until
from tests.knode.kills import bury

NET = f'127.{40 + os.getpid() % 20}.{os.getpid() // 20 % 250}'
CLUSTER_DNS = '127.96.0.10'
FIRST_OPEN_PORT = Path('/proc/sys/net/ipv4/ip_unprivileged_port_start')


def service(name: str, address: str, *, port: int, **spec: Any) -> dict[str, Any]:
    ports = [{'name': 'p', 'port': port, 'protocol': 'TCP'}]
    meta = {'name': name, 'namespace': 'default'}
    return {'metadata': meta, 'spec': {'clusterIP': address, 'ports': ports, **spec}}


def piece(name: str, *addresses: str, port: int) -> dict[str, Any]:
    labels = {'kubernetes.io/service-name': name}
    return {
        'metadata': {'name': f'{name}-1', 'namespace': 'default', 'labels': labels}, 'addressType': 'IPv4',
        'ports': [{'name': 'p', 'port': port}], 'endpoints': [{'addresses': [a]} for a in addresses],
    }  # fmt: skip


def listens(ip: str, port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex((ip, port)) == 0


async def lookup(host: str, port: int, name: str) -> list[str]:
    """Addresses; empty while nobody answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.connect((host, port))
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(2):
                await loop.sock_sendall(client, dns.message.make_query(name, 'A').to_wire())
                answer = dns.message.from_wire(await loop.sock_recv(client, 4096))
        except (OSError, TimeoutError):
            return []
    return sorted(r.to_text() for s in answer.answer for r in s)


async def eventually(ask: Any, wanted: Any, within_s: float = 30.0) -> None:
    async with asyncio.timeout(within_s):
        while await ask() != wanted:
            await asyncio.sleep(0.02)


async def events(admin: Client, reason: str) -> list[dict[str, Any]]:
    return [e for e in (await admin.list(EVENTS, 'default')).items if e['reason'] == reason]


@pytest.mark.e2e
async def test_an_agent_serves_services_and_names_until_it_is_killed_and_again_afterwards(env, tmp_path):
    world = World(tmp_path, env)
    flags = ('--cluster-dns', CLUSTER_DNS, '--dns-listen', f'{NET}.211:10053')
    try:
        await world.start_api()
        await world.start_agent(*flags)
        with socket.create_server((f'{NET}.212', 8080)):
            async with connected(world) as admin:
                made = await admin.create(SERVICES, service('web', '', port=18080))
                address = made['spec']['clusterIP']
                await admin.create(ENDPOINTSLICES, piece('web', f'{NET}.212', port=8080))
                await poll_until(lambda: listens(address, 18080))
                name = 'web.default.svc.cluster.local'
                await eventually(lambda: lookup(f'{NET}.211', 10053, name), [address])
                node = await admin.get(NODES, NODE)
                assert node['metadata']['annotations']['dns.kubeling.dev/address'] == f'{NET}.211:10053'
                await world.kill('knode')
                assert not listens(address, 18080)
                await world.start_agent()
                await poll_until(lambda: listens(address, 18080))

                async def told() -> bool:
                    held = await admin.get(NODES, NODE)
                    return 'dns.kubeling.dev/address' in held['metadata']['annotations']

                await eventually(told, wanted=False)  # it has no name server any more
    finally:
        await world.close()


@pytest.mark.e2e
@pytest.mark.as_root
async def test_without_the_privilege_for_low_ports_services_and_pods_say_so(env, tmp_path):
    """Root without its capabilities is nobody special."""
    if os.geteuid() != 0 or int(FIRST_OPEN_PORT.read_text()) <= 53:
        pytest.skip('needs a machine with privileged ports, and root to give the privilege up')
    world = World(tmp_path, env)
    world.prefix = ('setpriv', '--bounding-set=-net_bind_service', '--inh-caps=-net_bind_service')
    try:
        await world.start_api()
        await world.start_agent('--cluster-dns', CLUSTER_DNS, '--dns-listen', f'{NET}.221:10053')
        async with connected(world) as admin:
            await admin.create(SERVICES, service('low', '', port=80))
            await admin.create(ENDPOINTSLICES, piece('low', f'{NET}.222', port=8080))
            await eventually(lambda: _count(admin, 'ServiceNotServed'), True)
            low = [e for e in await events(admin, 'ServiceNotServed') if e['involvedObject']['name'] == 'low']
            assert 'take privilege that the node agent does not have' in low[0]['message']
            await admin.create(PODS, pod('p', 'sh', '-c', 'test -n "$KUBELING_NAMESERVER" && exec sleep 100'))
            await eventually(lambda: _count(admin, 'MissingClusterDNS'), True)
    finally:
        await world.close()
        bury(tmp_path)


async def _count(admin: Client, reason: str) -> bool:
    return bool([e for e in await events(admin, reason) if e['involvedObject']['name'] in {'low', 'p'}])


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'cluster_dns': 'x'}, 'cluster_dns\n.*must be an IPv4 address'),
        ({'dns_listen': '127.0.0.1:0'}, 'dns_listen must name a port'),
        ({'dns_listen': '127.0.0.1:53', 'proxy_mode': 'none'}, 'need proxy_mode userspace'),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(tmp_path, changes, words):
    with pytest.raises(ValidationError, match=words):
        NodeConfig(name='n', kubeconfig=tmp_path, data_dir=tmp_path, **changes)
