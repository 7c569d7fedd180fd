"""A leader that was stopped past its lease must not act when it wakes: real processes with SIGSTOP, and simulated."""

from __future__ import annotations

import asyncio
import signal
import sys

import pytest
import yaml

from kcontrol.config import ControlConfig
from kcontrol.controllers import CONTROLLERS
from kcontrol.manager import MANAGER_LEASE, Manager
from kcore.meta.gvk import DEPLOYMENTS, LEASES, PODS
from kcore.meta.objects import name_of
from tests.kcontrol.virtual import Nodes, Plane, run_virtually


@pytest.fixture
async def manager(fake, tmp_path):
    path = tmp_path / 'kubeconfig'
    path.write_text(yaml.safe_dump({
        'clusters': [{'name': 'k', 'cluster': {'server': fake.url}}], 'users': [{'name': 'u', 'user': {}}],
        'contexts': [{'name': 'k', 'context': {'cluster': 'k', 'user': 'u'}}], 'current-context': 'k',
    }))  # fmt: skip
    started = []

    async def start(identity: str) -> asyncio.subprocess.Process:
        lease = ('--lease-duration-s', '2', '--renew-deadline-s', '1.2', '--retry-period-s', '0.2')
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            '-m',
            'kcontrol',
            '--kubeconfig',
            str(path),
            '--identity',
            identity,
            '--no-scheduler',
            *lease,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.e2e
async def test_a_leader_that_slept_past_its_lease_wakes_up_powerless(fake, manager, until):
    def holder() -> str:
        lease = fake.one('leases', 'kube-controller-manager', 'kube-system')
        return lease['spec']['holderIdentity'] if lease else ''

    def acted(identity: str) -> list:
        return [a for a in fake.attempts if a[0].endswith(f'/{identity}') and '/leases' not in a[2]]

    def looked() -> int:
        return sum(count for agent, count in fake.reads.items() if agent.endswith('/first'))

    first = await manager('first')
    await until(lambda: fake.one('serviceaccounts', 'default', 'default'))
    second = await manager('second')
    first.send_signal(signal.SIGSTOP)
    await until(lambda: holder() == 'second')
    fake.put('namespaces', {'metadata': {'name': 'later'}, 'spec': {'finalizers': ['kubernetes']}})
    await until(lambda: fake.one('serviceaccounts', 'default', 'later'))
    before = len(acted('first'))
    # What the sleeper would do with its stale view: the account is missing again when it looks.
    for name in ('a', 'b', 'c'):
        fake.put('namespaces', {'metadata': {'name': name}, 'spec': {'finalizers': ['kubernetes']}})
    asleep = looked()
    first.send_signal(signal.SIGCONT)
    await until(lambda: fake.one('serviceaccounts', 'default', 'c'))
    # It is awake, and has asked for the lease often enough to have done what it was about to do before.
    await until(lambda: looked() >= asleep + 4)
    assert len(acted('first')) == before
    assert holder() == 'second'
    second.kill()
    await until(lambda: holder() == 'first')
    fake.put('namespaces', {'metadata': {'name': 'last'}, 'spec': {'finalizers': ['kubernetes']}})
    await until(lambda: fake.one('serviceaccounts', 'default', 'last'))
    first.terminate()
    assert await first.wait() == 0


LEASE_S = 15.0
MANAGERS = {'10.0.0.1': 'one', '10.0.0.2': 'two', '10.0.0.3': 'three'}


@pytest.mark.parametrize('seed', range(4))
def test_whoever_writes_holds_the_lease_whatever_is_paused(pki, monkeypatch, tmp_path, seed):
    """Three managers on hosts that stop for longer and shorter than a lease while a Deployment is kept busy."""

    async def scenario(plane: Plane) -> None:
        nodes = await Nodes(plane).start('a', 'b')
        holder = ['']
        strange: list[tuple[str, str, str]] = []

        def note(agent: str, path: str) -> None:
            if '/leases' not in path and agent in MANAGERS.values() and agent != holder[0]:
                strange.append((agent, holder[0], path))

        async def follow() -> None:
            async for event in plane.admin.watch(LEASES, 'kube-system', timeout_s=1e6):
                if event.type in ('ADDED', 'MODIFIED') and name_of(event.object) == MANAGER_LEASE:
                    holder[0] = event.object['spec']['holderIdentity']

        plane.on_write = note
        plane.start(follow())
        chosen = [c for c in CONTROLLERS if c.name in ('deployment', 'replicaset')]
        for host, name in MANAGERS.items():
            manager = Manager(ControlConfig(kubeconfig=tmp_path, identity=name), plane.world.host(host).env)
            plane.start_on(host, manager.lead_controllers(plane.client(name, host), chosen))
        labels = {'app': 'web'}
        template = {'metadata': {'labels': labels}, 'spec': {'containers': [{'name': 'c', 'image': 'x'}]}}
        spec = {'replicas': 4, 'selector': {'matchLabels': labels}, 'template': template}
        await plane.admin.create(DEPLOYMENTS, {'metadata': {'name': 'web', 'namespace': 'default'}, 'spec': spec})
        chance = plane.world.rng
        hosts = {name: host for host, name in MANAGERS.items()}
        leaders = set()
        for number in range(12):
            await asyncio.sleep(chance.uniform(3, 25))
            await plane.admin.patch(DEPLOYMENTS, 'web', {'spec': {'replicas': 4 + number % 5}}, 'default')
            await asyncio.sleep(chance.uniform(0, 0.02))  # in the middle of its work
            leaders.add(holder[0])
            paused = plane.world.host(hosts.get(holder[0], '10.0.0.1'))
            paused.pause()
            await asyncio.sleep(chance.choice((2.0, 9.9, LEASE_S + 1, 3 * LEASE_S)))
            paused.resume()
        assert not strange
        assert len(leaders - {''}) >= 2

        async def converged() -> bool:
            pods = (await plane.admin.list(PODS, 'default')).items
            return len(pods) == 4 + 11 % 5

        await plane.until(converged)
        assert nodes.nodes

    run_virtually(scenario, pki, monkeypatch, seed)
