"""The cluster in three terminals: close any one and the other two carry on."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from kclient.api import Client
from kclient.errors import AlreadyExists, Conflict, Forbidden, ServerFailed, Timeout, Unavailable
from kclient.kubeconfig import load
from kcontrol.kinds import RESOURCEQUOTAS
from kcore.env import Env
from kcore.meta.gvk import SECRETS
from tests.e2e.conftest import ROOT, LocalCluster
from tests.hush import hushed, leaks

pytestmark = pytest.mark.e2e


class Machines:
    """Three `kctl cluster server` processes on one data directory."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self.running: dict[int, subprocess.Popen[str]] = {}

    def start(self, n: int) -> None:
        self.running[n] = subprocess.Popen(
            [
                sys.executable, '-m', 'kctl', 'cluster', 'server', str(n),
                '--data-dir', str(self.cluster.data), '--port-base', str(self.cluster.port_base),
            ],
            cwd=ROOT, env=self.cluster.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def until_ready(self, n: int) -> None:
        out = self.running[n].stdout
        assert out is not None
        seen = []
        missing = {f'api-{n} ready', f'node-{n} ready'}
        for line in out:
            seen.append(line)
            missing = {m for m in missing if m not in line}
            if not missing:
                return
        raise AssertionError(''.join(seen))

    def stop(self, n: int, number: signal.Signals) -> str:
        process = self.running.pop(n)
        process.send_signal(number)
        out, _ = process.communicate(timeout=60)
        return out


@pytest.fixture
def machines(new_cluster: Callable[[], LocalCluster]) -> Iterator[Machines]:
    three = Machines(new_cluster())
    for n in (1, 2, 3):
        three.start(n)
    for n in (1, 2, 3):
        three.until_ready(n)
    yield three
    for process in three.running.values():
        process.terminate()  # all at once: the last ones have no quorum to report to
    for n in list(three.running):
        three.stop(n, signal.SIGTERM)


def test_a_closed_machine_is_made_up_for_by_the_other_two(machines: Machines) -> None:
    cluster = machines.cluster
    cluster.kubectl('wait', 'nodes', '--all', '--for=condition=Ready', '--timeout=60s')
    cluster.kubectl('apply', '-f', str(ROOT / 'examples' / 'hello.yaml'))
    cluster.kubectl('scale', 'deployment', 'hello', '--replicas=6')
    cluster.kubectl('rollout', 'status', 'deployment/hello', '--timeout=60s')

    machines.stop(1, signal.SIGHUP)  # what a closed terminal sends
    other = ('--context', 'kubeling-2')
    cluster.kubectl(*other, 'create', 'configmap', 'written-to-two', '--from-literal=a=b')
    # Six pods are Available again although a machine's worth of them is gone.
    cluster.kubectl(*other, 'rollout', 'status', 'deployment/hello', '--timeout=80s')
    cluster.kubectl(*other, 'wait', 'deployment/hello', '--for=jsonpath={.status.availableReplicas}=6', '--timeout=80s')
    placed = cluster.kubectl(
        *other, 'get', 'pods', '--field-selector=status.phase=Running', '-o', 'jsonpath={.items[*].spec.nodeName}'
    )
    assert set(placed.stdout.split()) == {'node-2', 'node-3'}

    machines.start(1)
    machines.until_ready(1)
    cluster.kubectl('wait', 'node/node-1', '--for=condition=Ready', '--timeout=60s')


def test_the_same_machine_cannot_run_twice(machines: Machines) -> None:
    second = machines.cluster.kctl('cluster', 'server', '2', '--data-dir', str(machines.cluster.data), check=False)
    assert second.returncode == 1
    assert 'server-2' in second.stderr
    assert 'already runs' in second.stderr


async def test_a_quota_is_exact_while_the_stores_leader_dies_and_no_secret_lies_open(
    machines: Machines,
) -> None:
    cluster, env = machines.cluster, Env.real()
    cluster.kctl('create', 'namespace', 'narrow')
    base = load(cluster.data / 'kubeconfig', env)
    assert len(base.servers) == 3
    limit = {'metadata': {'name': 'q', 'namespace': 'narrow'}, 'spec': {'hard': {'secrets': '10'}}}
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(Client(replace(base, servers=(s,), origin=None), env, user_agent='test'))
            for s in base.servers
        ]
        await clients[0].create(RESOURCEQUOTAS, limit)
        for client in clients:
            await client.get(RESOURCEQUOTAS, 'q', 'narrow')

        async def create(n: int) -> bool:
            """Whether the Secret exists; unclear answers are asked again."""
            meta = {'name': f's{n}', 'namespace': 'narrow'}
            while True:
                try:
                    await clients[n % 3].create(SECRETS, {'metadata': meta, 'stringData': {'password': hushed('10')}})
                except AlreadyExists:
                    return True
                except Forbidden:
                    return False
                except (Unavailable, Timeout, ServerFailed, Conflict):
                    await asyncio.sleep(0.05)
                else:
                    return True

        async with asyncio.TaskGroup() as group:
            creating = [group.create_task(create(n)) for n in range(50)]
            await asyncio.wait(creating, return_when=asyncio.FIRST_COMPLETED)
            killing = group.create_task(asyncio.to_thread(cluster.kill, 'store-leader'))
        assert 'store' in killing.result()
        assert sorted(t.result() for t in creating) == [False] * 40 + [True] * 10
        held = [s for s in (await clients[1].list(SECRETS, 'narrow')).items if s['metadata']['name'].startswith('s')]
        assert {base64.b64decode(s['data']['password']).decode() for s in held} == {hushed('10')}
        assert len(held) == 10
    assert leaks(cluster.data) == []
