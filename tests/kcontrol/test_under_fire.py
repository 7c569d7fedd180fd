"""Rollouts while pods crash, a node dies and leaders fall: bounds hold, order holds, everything converges."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from kclient.errors import NotFound
from kcontrol.config import ControlConfig
from kcontrol.controllers import CONTROLLERS
from kcontrol.kinds import STATEFULSETS
from kcontrol.manager import MANAGER_LEASE, Manager
from kcore.meta.gvk import DEPLOYMENTS, LEASES, PODS, Resource
from kcore.meta.objects import deleting, is_pod_ready, name_of
from kcore.meta.times import parse_time
from tests.kcontrol.virtual import Nodes, Plane, run_virtually

Obj = dict[str, Any]
ROLLS = 10
CRASH_EVERY_S = (1.0, 8.0)
START_S = 4
"""Pods of a namesake are ready after one to so many seconds."""
MANAGERS = {'10.0.0.1': 'one', '10.0.0.2': 'two', '10.0.0.3': 'three'}
LEASE_S = 15.0
NODE_AWAY_S = 90.0
"""50 s until it is Unknown, and then what pods tolerate."""
RUNNING = ('deployment', 'replicaset', 'statefulset', 'gc', 'nodelifecycle', 'tainteviction', 'podgc')


def workload(replicas: int, image: str, **more: Any) -> Obj:
    gone = {'key': 'node.kubernetes.io/unreachable', 'operator': 'Exists', 'effect': 'NoExecute'}
    tolerations = [{**gone, 'tolerationSeconds': 10}]
    template = {'metadata': {'labels': {'app': 'web'}}, 'spec': {'containers': [{'name': 'c', 'image': image}]}}
    template['spec']['tolerations'] = tolerations
    spec = {'replicas': replicas, 'selector': {'matchLabels': {'app': 'web'}}, 'template': template, **more}
    return {'metadata': {'name': 'web', 'namespace': 'default'}, 'spec': spec}


def serves(pod: Obj | None) -> bool:
    return pod is not None and not deleting(pod) and is_pod_ready(pod)


class Ledger:
    """Who took which serving pod away. What the cluster suffers is owed until another pod serves in its stead."""

    def __init__(self, pods: Any) -> None:
        self._pods, self._owed = pods, 0
        self.suffered = 0
        self.chosen: list[str] = []
        """Names of serving pods that a controller deleted, in order."""
        self.lowest = self.highest = 0
        pods.on_change(self._note)

    def begin(self) -> None:
        self.chosen = []
        self.lowest, self.highest = 10**6, 0

    def _note(self, old: Obj | None, new: Obj | None) -> None:
        if serves(new) and not serves(old):
            self._owed = max(0, self._owed - 1)
        elif serves(old) and not serves(new):
            if new is not None and deleting(new):  # controllers delete with grace, a crash does not
                self.chosen.append(name_of(new))
            else:
                self._owed, self.suffered = self._owed + 1, self.suffered + 1
        pods = [p for p in self._pods.store.list() if not deleting(p) and p['status'].get('phase') != 'Failed']
        self.lowest = min(self.lowest, sum(map(serves, pods)) + self._owed)
        self.highest = max(self.highest, len(pods))


class Fire:
    """Three managers, three nodes, pods that need a while to start, and everything that befalls them."""

    def __init__(self, plane: Plane, path: Path) -> None:
        self.plane, self._path, self.leaders = plane, path, set[str]()
        self.nodes = Nodes(plane)
        self.nodes.healthy = self._started

    async def start(self, made: Obj, resource: Resource) -> Ledger:
        await self.nodes.start('a', 'b', 'c')
        chosen = [c for c in CONTROLLERS if c.name in RUNNING]
        for host, name in MANAGERS.items():
            manager = Manager(ControlConfig(kubeconfig=self._path, identity=name), self.plane.world.host(host).env)
            self.plane.start_on(host, manager.lead_controllers(self.plane.client(name, host), chosen))
        self.plane.start(self._tick())
        await self.plane.admin.create(resource, made)
        await self.plane.until(self.rolled(resource, 'v0'))
        ledger = Ledger(self.nodes.pods)
        self.plane.start(self._crash())
        return ledger

    def _started(self, pod: Obj) -> bool:
        age = self.plane.env.clock.wall() - parse_time(pod['metadata']['creationTimestamp'])
        return age.total_seconds() >= 1 + int(pod['metadata']['uid'][:2], 16) % START_S

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self.nodes.poke()

    async def _crash(self) -> None:
        """Serving pods fail, or vanish without a word."""
        chance = self.plane.world.rng
        while True:
            await asyncio.sleep(chance.uniform(*CRASH_EVERY_S))
            serving = sorted(name_of(p) for p in self.nodes.pods.store.list() if serves(p))
            if not serving:
                continue
            name = chance.choice(serving)
            try:
                if chance.random() < 0.5:
                    await self.plane.admin.delete(PODS, name, 'default', grace_period_s=0)
                else:
                    lost = {'phase': 'Failed', 'conditions': [{'type': 'Ready', 'status': 'False'}]}
                    await self.plane.admin.patch(PODS, name, {'status': lost}, 'default', subresource='status')
            except NotFound:
                continue  # a controller was faster

    async def fell_the_leader(self) -> None:
        """It stops in the middle of its work with the lease in hand, and comes back when it has long been deposed."""
        lease = await self.plane.admin.get(LEASES, MANAGER_LEASE, 'kube-system')
        holder = lease['spec']['holderIdentity']
        self.leaders.add(holder)
        host = self.plane.world.host({name: h for h, name in MANAGERS.items()}[holder])
        host.pause()
        await asyncio.sleep(2 * LEASE_S)
        host.resume()

    async def fell_a_node(self) -> None:
        """For long enough that its pods are evicted. They end when it is back: nobody else can say that they did."""
        self.nodes.die('b')
        await asyncio.sleep(NODE_AWAY_S)
        await self.nodes.revive('b')

    async def roll(self, resource: Resource, number: int) -> None:
        image = f'v{number}'
        template = {'spec': {'containers': [{'name': 'c', 'image': image}]}}
        await self.plane.admin.patch(resource, 'web', {'spec': {'template': template}}, 'default')
        await asyncio.sleep(self.plane.world.rng.uniform(0.0, 3.0))
        if number % 3 == 0:
            await self.fell_the_leader()
        if number % 4 == 0:
            await self.fell_a_node()
        await self.plane.until(self.rolled(resource, image))

    def rolled(self, resource: Resource, image: str) -> Callable[[], Awaitable[bool]]:
        async def ask() -> bool:
            found = await self.plane.admin.get(resource, 'web', 'default')
            status, total = found.get('status') or {}, found['spec']['replicas']
            counts = [status.get(f) for f in ('replicas', 'updatedReplicas', 'availableReplicas')]
            pods = [p for p in self.nodes.pods.store.list() if serves(p)]
            images = {p['spec']['containers'][0]['image'] for p in pods}
            return counts == [total] * 3 and images == {image}

        return ask


def test_a_deployment_rolls_ten_times_under_fire(pki, monkeypatch, tmp_path):
    total, unavailable, surge = 20, 5, 5

    async def scenario(plane: Plane) -> None:
        fire = Fire(plane, tmp_path)
        ledger = await fire.start(workload(total, 'v0'), DEPLOYMENTS)
        for number in range(1, ROLLS + 1):
            ledger.begin()
            await fire.roll(DEPLOYMENTS, number)
            assert ledger.lowest >= total - unavailable, 'by choice never fewer'
            assert ledger.highest <= total + surge, 'never above the surge'
            assert ledger.chosen
        assert ledger.suffered > 2 * ROLLS
        assert len(fire.leaders) >= 2

    run_virtually(scenario, pki, monkeypatch)


def test_a_stateful_set_keeps_its_order_under_fire(pki, monkeypatch, tmp_path):
    total = 5

    async def scenario(plane: Plane) -> None:
        fire = Fire(plane, tmp_path)
        ledger = await fire.start(workload(total, 'v0', serviceName='web'), STATEFULSETS)
        for number in range(1, ROLLS + 1):
            ledger.begin()
            await fire.roll(STATEFULSETS, number)
            ordinals = [int(name.rpartition('-')[2]) for name in ledger.chosen]
            assert ordinals == sorted(set(ordinals), reverse=True), 'from the highest down, none twice'
            assert ledger.lowest >= total - 1, 'by choice one at a time'
        assert ledger.suffered > ROLLS
        assert len(fire.leaders) >= 2

    run_virtually(scenario, pki, monkeypatch)
