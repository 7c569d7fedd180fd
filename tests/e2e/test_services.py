"""Services of a cluster of real processes: clients that see nothing of rollouts, and of killed agents only what was on
its way through them."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from tests.e2e.conftest import LocalCluster

pytestmark = pytest.mark.e2e
WITHIN_S = 60.0
CLIENTS = 6


def web(replicas: int = 3) -> str:
    container = {
        'name': 'c', 'image': 'agnhost', 'args': ['netexec', '--http-port=8080', '--udp-port=8081'],
        'readinessProbe': {'httpGet': {'path': '/healthz', 'port': 8080}, 'periodSeconds': 1},
        'lifecycle': {'preStop': {'exec': {'command': ['sleep', '1']}}},
    }  # fmt: skip
    deployment = {
        'apiVersion': 'apps/v1', 'kind': 'Deployment', 'metadata': {'name': 'web'},
        'spec': {
            'replicas': replicas, 'selector': {'matchLabels': {'app': 'web'}},
            'template': {
                'metadata': {'labels': {'app': 'web'}},
                'spec': {'terminationGracePeriodSeconds': 5, 'containers': [container]},
            },
        },
    }  # fmt: skip
    service = {
        'apiVersion': 'v1', 'kind': 'Service', 'metadata': {'name': 'web'},
        'spec': {
            'type': 'NodePort', 'selector': {'app': 'web'},
            'ports': [
                {'name': 'http', 'port': 8000, 'targetPort': 8080},
                {'name': 'udp', 'port': 8000, 'protocol': 'UDP', 'targetPort': 8081},
            ],
        },
    }  # fmt: skip
    return json.dumps({'apiVersion': 'v1', 'kind': 'List', 'items': [deployment, service]})


async def ask(ip: str, port: int) -> str:
    """The name of the pod that answers. Raises OSError when none does."""
    reader, writer = await asyncio.open_connection(ip, port)
    writer.write(b'GET /hostname HTTP/1.1\r\nHost: x\r\n\r\n')
    async with asyncio.timeout(WITHIN_S):
        answer = await reader.read()
    writer.close()
    if b'200' not in answer[:20]:
        raise ConnectionError(f'half an answer: {answer!r}')
    return answer.rpartition(b'\r\n')[2].decode()


class Load:
    """Clients that ask one after the other until they are told to stop."""

    def __init__(self, ip: str, port: int) -> None:
        self.answers: Counter[str] = Counter()
        self.errors: list[str] = []
        self.late: list[str] = []
        """Those that cannot have been on their way when it happened."""
        self._where = ip, port
        self._done = asyncio.Event()

    async def _client(self) -> None:
        while not self._done.is_set():
            try:
                self.answers[await ask(*self._where)] += 1
            except OSError as e:
                self.errors.append(f'{type(e).__name__}: {e}')

    async def during(self, act: Callable[[], Any]) -> None:
        """All clients have had an answer before, and after."""
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(self._client())
            await self.more()
            await asyncio.to_thread(act)
            await self.more()
            on_the_way = len(self.errors)
            await self.more()
            self.late = self.errors[on_the_way:]
            self._done.set()

    async def more(self) -> None:
        enough = self.answers.total() + 20 * CLIENTS
        async with asyncio.timeout(WITHIN_S):
            while self.answers.total() < enough:
                await asyncio.sleep(0.01)


@pytest.fixture
def served(cluster: LocalCluster, namespace: str) -> dict[str, Any]:
    """The Service, once all of its pods are behind it."""
    cluster.kubectl('-n', namespace, 'apply', '-f', '-', stdin=web())
    cluster.kubectl('-n', namespace, 'rollout', 'status', 'deployment/web', '--timeout=60s')
    return cluster.get('service', 'web', '-n', namespace)['spec']


def node_addresses(cluster: LocalCluster) -> list[str]:
    nodes = cluster.get('nodes')['items']
    return [a['address'] for n in nodes for a in n['status']['addresses'] if a['type'] == 'InternalIP']


async def test_all_pods_answer_at_the_cluster_ip_and_at_the_node_port_of_each_node(cluster, served):
    pods = {await ask(served['clusterIP'], 8000) for _ in range(12)}
    assert len(pods) == 3
    for address in node_addresses(cluster):
        assert {await ask(address, served['ports'][0]['nodePort']) for _ in range(12)} == pods


async def test_a_rolling_restart_under_load_fails_no_request(cluster, namespace, served):
    load = Load(served['clusterIP'], 8000)

    def restart() -> None:
        cluster.kubectl('-n', namespace, 'rollout', 'restart', 'deployment/web')
        cluster.kubectl('-n', namespace, 'rollout', 'status', 'deployment/web', '--timeout=60s')

    await load.during(restart)
    assert load.errors == []
    assert len(load.answers) >= 6  # the three before, and the three after


async def test_when_an_agent_is_killed_the_others_serve_new_connections_at_once(cluster, served):
    """What was on its way through the killed one, or reached it while it died, is lost."""
    for node in ('node-1', 'node-2'):
        load = Load(served['clusterIP'], 8000)
        before = int(json.loads((cluster.data / 'run' / f'{node}.pid').read_text())['pid'])
        await load.during(psutil.Process(before).kill)
        assert load.late == []
        for _ in range(20):
            await ask(served['clusterIP'], 8000)
        async with asyncio.timeout(WITHIN_S):
            while not await serves_again(cluster, node, before):
                await asyncio.sleep(0.05)


async def serves_again(cluster: LocalCluster, node: str, before: int) -> bool:
    """Whether its successor listens where it did: the node port is each node's own."""
    [address] = [a['address'] for a in cluster.get('node', node)['status']['addresses'] if a['type'] == 'InternalIP']
    [service] = [s for s in cluster.get('services', '-A')['items'] if s['metadata']['name'] == 'web']
    try:
        return bool(await ask(address, service['spec']['ports'][0]['nodePort']))
    except OSError:
        return False
