"""The agent process against a real API server: pods run, survive kills of anything, and leave nothing behind."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import orjson
import pytest

from kclient.api import Client
from kclient.errors import ClientError, NotFound
from kcore.env import Env
from kcore.meta.gvk import CONFIGMAPS, EVENTS, NODES, PODS, SECRETS
from tests.hush import hushed
from tests.knode import kills
from tests.knode.agent_world import NODE, World, connected, pod

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture
async def world(tmp_path: Path, remaining) -> AsyncIterator[World]:
    w = World(tmp_path, Env.real())
    await w.start_api()
    await w.start_agent()
    yield w
    await w.close()
    assert remaining(tmp_path) == []


@pytest.fixture
async def client(world: World) -> AsyncIterator[Client]:
    async with connected(world) as c:
        yield c


async def wait_for(client: Client, name: str, condition, within_s: float = 30.0) -> dict:
    async with asyncio.timeout(within_s):
        while True:
            try:
                found = await client.get(PODS, name, 'default')
                if condition(found):
                    return found
            except NotFound:
                if condition(None):
                    return {}
            await asyncio.sleep(0.05)


def running(p) -> bool:
    statuses = ((p or {}).get('status') or {}).get('containerStatuses') or [{}]
    return 'running' in (statuses[0].get('state') or {})


async def test_a_pod_serves_on_its_own_address_and_leaves_nothing(client, world, remaining, eventually):
    hello = {
        'name': 'c',
        'image': 'py://knode.images.hello:main',
        'readinessProbe': {'httpGet': {'path': '/healthz', 'port': 8080}, 'periodSeconds': 1},
    }
    for name in ('a', 'b'):  # both on port 8080 of one host
        await client.create(PODS, pod(name) | {'spec': pod(name)['spec'] | {'containers': [hello]}})
    for name in ('a', 'b'):
        p = await wait_for(
            client, name, lambda p: (((p or {}).get('status') or {}).get('containerStatuses') or [{}])[0].get('ready')
        )
        address = p['status']['podIP']
        assert address.startswith('127.64.201.')
        async with aiohttp.ClientSession() as http, http.get(f'http://{address}:8080/') as answer:
            assert f'Hello from {name}' in await answer.text()
    log = ''
    async with asyncio.timeout(10):
        while 'GET / HTTP/1.1' not in log:
            log = await (await client.request('GET', '/api/v1/namespaces/default/pods/a/log')).text()
    assert '/healthz' not in log
    for name in ('a', 'b'):
        await client.delete(PODS, name, 'default')
        await wait_for(client, name, lambda p: p is None)
    await eventually(lambda: not list((world.root / 'n1' / 'pods').iterdir()))


async def test_the_outcome_of_a_finished_pod_is_reported(client):
    await client.create(PODS, pod('ok', 'true', restartPolicy='Never'))
    await client.create(PODS, pod('bad', 'sh', '-c', 'exit 3', restartPolicy='Never'))
    await client.create(PODS, pod('gone', 'nosuch', restartPolicy='Never'))
    assert (await wait_for(client, 'ok', lambda p: p['status'].get('phase') == 'Succeeded'))['status']['podIP']
    bad = await wait_for(client, 'bad', lambda p: p['status'].get('phase') == 'Failed')
    assert bad['status']['containerStatuses'][0]['state']['terminated']['exitCode'] == 3
    gone = await wait_for(client, 'gone', lambda p: p['status'].get('phase') == 'Failed')
    assert (
        'executable file not found in $PATH' in gone['status']['containerStatuses'][0]['state']['terminated']['message']
    )
    for name in ('ok', 'bad', 'gone'):
        await client.delete(PODS, name, 'default')
        await wait_for(client, name, lambda p: p is None)


async def test_status_converges_to_the_truth_whatever_is_killed(tmp_path, remaining):
    await kills.storm(tmp_path, steps=16, seed=7)
    assert remaining(tmp_path) == []


async def test_exec_speaks_the_channel_protocol_both_ways(client, world):
    await client.create(PODS, pod('x', 'sleep', '1000'))
    await wait_for(client, 'x', running)
    tls = client.config.ssl_context()
    base = f'https://127.0.0.1:{world.port}/api/v1/namespaces/default/pods/x/exec'
    query = [('command', 'sh'), ('command', '-c'), ('command', 'cat; echo err >&2; exit 3'), ('stdin', 'true')]
    query += [('stdout', 'true'), ('stderr', 'true'), ('container', 'c')]
    got: dict[int, bytes] = {}
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as http,
        http.ws_connect(base, params=query, protocols=['v5.channel.k8s.io']) as ws,
    ):
        assert ws.protocol == 'v5.channel.k8s.io'
        await ws.send_bytes(b'\x00' + b'hello')
        await ws.send_bytes(b'\xff\x00')
        async for message in ws:
            got[message.data[0]] = got.get(message.data[0], b'') + message.data[1:]
    assert (got[1], got[2]) == (b'hello', b'err\n')
    status = orjson.loads(got[3])
    assert status['reason'] == 'NonZeroExitCode'
    assert status['details']['causes'] == [{'reason': 'ExitCode', 'message': '3'}]
    await client.delete(PODS, 'x', 'default')
    await wait_for(client, 'x', lambda p: p is None)


def manifest(root: Path, says: str) -> str:
    command = ['sh', '-c', f'echo {says} >> {root}/said; exec sleep 1000']
    spec = {
        'terminationGracePeriodSeconds': 1,
        'containers': [{'name': 'c', 'image': 'busybox', 'command': command}],
    }
    return orjson.dumps({'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {'name': 'still'}, 'spec': spec}).decode()


async def serving(client: Client) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                await client.get(NODES, NODE)
                return
            except ClientError:
                await asyncio.sleep(0.1)


async def test_a_static_pod_needs_no_api_and_its_mirror_comes_back(world, client, eventually, remaining):
    name, file, said = f'still-{NODE}', world.root / 'manifests' / 'still.json', world.root / 'said'
    file.write_text(manifest(world.root, 'first'))
    mirror = await wait_for(client, name, running)
    container = mirror['status']['containerStatuses'][0]['containerID']
    assert mirror['metadata']['annotations']['kubernetes.io/config.source'] == 'file'
    assert mirror['metadata']['ownerReferences'][0]['name'] == NODE

    await client.delete(PODS, name, 'default')
    again = await wait_for(client, name, lambda p: running(p) and p['metadata']['uid'] != mirror['metadata']['uid'])
    assert again['status']['containerStatuses'][0]['containerID'] == container, 'the mirror went, the pod did not'

    await world.kill('kapi')
    file.write_text(manifest(world.root, 'second'))
    await eventually(lambda: said.read_text().split() == ['first', 'second'], within_s=30)
    await world.kill('knode')
    await world.start_agent()  # finds its pod, and no API
    await world.start_api()
    await serving(client)
    await wait_for(client, name, running)
    assert said.read_text().split() == ['first', 'second'], 'the pod was adopted, not started again'

    file.unlink()
    await wait_for(client, name, lambda p: p is None)
    await eventually(lambda: not (world.root / 'n1' / 'pods').exists() or not os.listdir(world.root / 'n1' / 'pods'))


async def test_a_container_over_its_memory_limit_is_killed_and_says_so(world, client):
    grow = 'x = bytearray(96 << 20); import time; time.sleep(1000)'
    p = pod('hog', sys.executable, '-c', grow, restartPolicy='Never')
    p['spec']['containers'][0]['resources'] = {'limits': {'memory': '64Mi'}}
    await client.create(PODS, p)
    dead = await wait_for(client, 'hog', lambda p: p and p['status']['phase'] == 'Failed')
    ended = dead['status']['containerStatuses'][0]['state']['terminated']
    assert (ended['reason'], ended['exitCode']) == ('OOMKilled', 137)
    await client.delete(PODS, 'hog', 'default')
    await wait_for(client, 'hog', lambda p: p is None)


async def test_a_node_short_of_its_budget_evicts_and_recovers(world, client):
    await world.kill('knode')
    await world.start_agent(
        '--memory', '300Mi', '--eviction-hard', 'memory.available<100Mi', '--stats-period-s', '0.2',
        '--eviction-pressure-transition-period-s', '2',
    )  # fmt: skip
    grow = 'x = bytearray(160 << 20); import time; time.sleep(1000)'
    await client.create(PODS, pod('greedy', sys.executable, '-c', grow))
    small = pod('small', 'sleep', '1000')
    small['spec']['containers'][0]['resources'] = {'requests': {'memory': '10Mi'}}
    await client.create(PODS, small)
    dead = await wait_for(client, 'greedy', lambda p: p and p['status']['phase'] == 'Failed')
    assert dead['status']['reason'] == 'Evicted'
    assert dead['status']['message'].startswith('The node was low on resource: memory. Threshold quantity: 100Mi')
    assert running(await client.get(PODS, 'small', 'default')), 'it uses no more than it asked for'

    async def pressed(value: str) -> None:
        async with asyncio.timeout(30):
            while True:
                node = await client.get(NODES, NODE)
                found = {c['type']: c for c in node['status']['conditions']}
                if found['MemoryPressure']['status'] == value:
                    return
                await asyncio.sleep(0.05)

    await pressed('True')
    await client.create(PODS, pod('late', 'sleep', '1000'))
    late = await wait_for(client, 'late', lambda p: p and p['status']['phase'] in {'Failed', 'Running'})
    assert late['status'].get('message') == 'Pod was rejected: The node had condition: [MemoryPressure]. '
    await pressed('False')
    for name in ('greedy', 'small', 'late'):
        await client.delete(PODS, name, 'default')
        await wait_for(client, name, lambda p: p is None)


async def test_a_hook_that_hangs_keeps_its_pod_unready_but_not_from_being_deleted(client):
    hanging = pod('hung', 'sleep', '1000')
    hanging['spec']['containers'][0]['lifecycle'] = {'postStart': {'exec': {'command': ['sleep', '1001']}}}
    await client.create(PODS, hanging)
    async with asyncio.timeout(30):
        while 'Started' not in {e['reason'] for e in (await client.list(EVENTS, 'default')).items}:
            await asyncio.sleep(0.05)
    status = (await client.get(PODS, 'hung', 'default'))['status']
    shown = status['containerStatuses'][0]
    assert (status['phase'], shown['ready'], shown['started']) == ('Pending', False, False)
    await client.delete(PODS, 'hung', 'default')
    await wait_for(client, 'hung', lambda p: p is None)


async def test_what_a_pod_has_mounted_follows_the_api_within_one_round(world, client, eventually):
    """A round is 60 s, so what arrives within 30 s was watched; also by an agent that found the pod running."""
    await client.create(CONFIGMAPS, {'metadata': {'name': 'conf', 'namespace': 'default'}, 'data': {'k': '1'}})
    sources = [{'configMap': {'name': 'conf'}}, {'secret': {'name': 'later', 'optional': True}}]
    volume = {'name': 'v', 'projected': {'sources': sources}}
    made = await client.create(PODS, pod('reader', 'sleep', '1000', volumes=[volume]))
    await wait_for(client, 'reader', running)
    directory = world.root / 'n1' / 'pods' / made['metadata']['uid'] / 'volumes' / 'v'

    def files() -> dict[str, str]:
        return {p.name: p.read_text() for p in directory.iterdir() if not p.name.startswith('..')}

    await client.patch(CONFIGMAPS, 'conf', {'data': {'k': '2'}}, 'default')
    await eventually(lambda: files() == {'k': '2'}, 30.0)
    await world.kill('knode')
    await client.patch(CONFIGMAPS, 'conf', {'data': {'k': '3'}}, 'default')
    await world.start_agent()
    await eventually(lambda: files() == {'k': '3'}, 45.0)
    secret = {'metadata': {'name': 'later', 'namespace': 'default'}, 'stringData': {'s': hushed('x')}}
    await client.create(SECRETS, secret)
    await eventually(lambda: files() == {'k': '3', 's': hushed('x')}, 30.0)
    await client.delete(PODS, 'reader', 'default')
    await wait_for(client, 'reader', lambda p: p is None)
