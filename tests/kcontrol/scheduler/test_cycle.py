"""The running scheduler against a small API that loses answers and refuses bindings."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import pytest

from kclient.errors import Conflict, Invalid, NotFound, Unavailable, failure
from kclient.model import ObjectList, WatchEvent
from kcontrol.scheduler.cycle import run_scheduler
from kcontrol.volumes import COMPLETED
from kcore.env import Env
from kcore.meta.gvk import PODS
from kcore.tasks import start_detached, stop

Obj = dict[str, Any]


class Api:
    """As much of `kclient.api.Client` as the scheduler uses, over dictionaries."""

    def __init__(self) -> None:
        self.env = Env.real(1)
        self.objects: dict[str, dict[str, Obj]] = defaultdict(dict)
        self.revision = 0
        self.watchers: list[tuple[str, asyncio.Queue[WatchEvent]]] = []
        self.bindings: list[tuple[str, str]] = []
        self.answers: list[str] = []
        """What becomes of the next bindings: 'lost' (done, no answer), 'down' (not done, no answer)."""
        self.stolen: dict[str, str] = {}
        """Pods that another scheduler binds an instant earlier."""
        self.taken: set[str] = set()
        """Volumes that somebody else changes an instant earlier."""
        self.evicts = True
        """False: what is deleted takes its time."""
        self.changed = asyncio.Event()

    def put(self, plural: str, obj: Obj) -> Obj:
        self.revision += 1
        obj = {**obj, 'metadata': {**obj['metadata'], 'resourceVersion': str(self.revision)}}
        name = obj['metadata']['name']
        kind = 'MODIFIED' if name in self.objects[plural] else 'ADDED'
        self.objects[plural][name] = obj
        self._tell(plural, WatchEvent(kind, obj))
        return obj

    def remove(self, plural: str, name: str) -> None:
        self._tell(plural, WatchEvent('DELETED', self.objects[plural].pop(name)))

    def _tell(self, plural: str, event: WatchEvent) -> None:
        for watched, queue in self.watchers:
            if watched == plural:
                queue.put_nowait(event)
        self.changed.set()

    async def until(self, condition) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    def pod(self, name: str) -> Obj:
        return self.objects['pods'][name]

    def messages(self, reason: str) -> list[str]:
        return [e['message'] for e in self.objects['events'].values() if e['reason'] == reason]

    async def list(self, r, namespace=None, **_) -> ObjectList:
        if r.plural in ('statefulsets', 'replicationcontrollers', 'poddisruptionbudgets', 'csistoragecapacities'):
            raise NotFound(failure(404, 'NotFound', 'no such kind'))
        return ObjectList([*self.objects[r.plural].values()], str(self.revision))

    async def watch(self, r, namespace=None, *, initial_events=False, **_):
        if initial_events:
            raise Invalid(failure(422, 'Invalid', 'no streamed lists here'))
        queue: asyncio.Queue[WatchEvent] = asyncio.Queue()
        self.watchers.append((r.plural, queue))
        while True:
            yield await queue.get()

    async def get(self, r, name, namespace=None, **_) -> Obj:
        if name not in self.objects[r.plural]:
            raise NotFound(failure(404, 'NotFound', 'gone'))
        return self.objects[r.plural][name]

    async def create(self, r, obj, *, subresource=None, name=None) -> Obj:
        if subresource != 'binding':
            return self.put(r.plural, obj)
        answer = self.answers.pop(0) if self.answers else 'ok'
        if answer == 'down':
            raise Unavailable(failure(503, '', 'down'))
        pod = await self.get(PODS, name)
        if name in self.stolen:
            pod = self.put('pods', {**pod, 'spec': {**pod['spec'], 'nodeName': self.stolen.pop(name)}})
        if pod['spec'].get('nodeName'):
            raise Conflict(failure(409, 'Conflict', f'pod {name} is already assigned to node'))
        self.bindings.append((name, obj['target']['name']))
        self.put('pods', {**pod, 'spec': {**pod['spec'], 'nodeName': obj['target']['name']}})
        if answer == 'lost':
            raise Unavailable(failure(503, '', 'connection reset'))
        return {}

    async def patch(self, r, name, patch, namespace=None, **_) -> Obj:
        old = await self.get(r, name)
        if name in self.taken:
            self.taken.remove(name)
            raise Conflict(failure(409, 'Conflict', f'{name} was changed'))
        spec, status = ({**old.get(part, {}), **patch.get(part, {})} for part in ('spec', 'status'))
        return self.put(r.plural, {**old, 'spec': spec, 'status': status})

    async def delete(self, r, name, namespace=None, **_) -> Obj:
        await self.get(r, name)
        if self.evicts:
            self.remove(r.plural, name)
        return {}


@pytest.fixture
async def api():
    api = Api()
    task = start_detached('scheduler', run_scheduler(api, api.env))
    yield api
    await stop(task)


async def test_a_pending_pod_is_bound_and_an_event_says_where(api, node, pod):
    api.put('nodes', node('n'))
    api.put('pods', pod('p'))
    await api.until(lambda: api.messages('Scheduled'))
    assert api.bindings == [('p', 'n')]
    assert api.messages('Scheduled') == ['Successfully assigned default/p to n']


async def test_an_unschedulable_pod_gets_a_condition_and_an_event_and_is_bound_when_room_appears(api, node, pod):
    api.put('nodes', node('n', cpu='1'))
    api.put('pods', pod('p', cpu='2'))
    await api.until(lambda: api.messages('FailedScheduling') and api.pod('p')['status'].get('conditions'))
    condition = api.pod('p')['status']['conditions'][0]
    assert (condition['type'], condition['status'], condition['reason']) == ('PodScheduled', 'False', 'Unschedulable')
    assert condition['message'].startswith('0/1 nodes are available: 1 Insufficient cpu.')
    assert api.messages('FailedScheduling') == [condition['message']]
    api.put('nodes', node('m', cpu='2'))
    await api.until(lambda: api.bindings)
    assert api.bindings == [('p', 'm')]


async def test_a_binding_whose_answer_is_lost_is_not_made_again(api, node, pod):
    api.answers = ['lost']
    api.put('nodes', node('n'))
    api.put('pods', pod('p'))
    await api.until(lambda: api.messages('Scheduled'))
    api.put('pods', pod('q'))
    await api.until(lambda: len(api.messages('Scheduled')) == 2)
    assert api.bindings == [('p', 'n'), ('q', 'n')]


async def test_a_binding_that_did_not_arrive_is_made_again(api, node, pod):
    api.answers = ['down']
    api.put('nodes', node('n', cpu='1'))
    api.put('pods', pod('p', cpu='1'))
    await api.until(lambda: api.bindings)
    assert api.bindings == [('p', 'n')]


async def test_a_pod_that_somebody_else_bound_keeps_its_node(api, node, pod):
    api.stolen = {'p': 'm'}
    api.put('nodes', node('n', cpu='1'))
    api.put('nodes', node('m', cpu='1', unschedulable=True))
    api.put('pods', pod('p', cpu='1'))
    await api.until(lambda: api.pod('p')['spec'].get('nodeName'))
    api.put('pods', pod('q', cpu='1'))
    await api.until(lambda: api.bindings)
    assert api.bindings == [('q', 'n')]
    assert api.pod('p')['spec']['nodeName'] == 'm'


async def test_a_volume_is_reserved_before_the_pod_that_needs_it_is_bound_and_asked_for_again_when_refused(
    api, node, pod
):
    api.taken = {'disk'}
    local = {'storageClassName': 'local', 'accessModes': ['ReadWriteOnce']}
    claim = {
        'metadata': {'name': 'c', 'namespace': 'default', 'uid': 'uid-c'},
        'spec': {**local, 'resources': {'requests': {'storage': '1Gi'}}},
    }  # fmt: skip
    api.put('nodes', node('n'))
    api.put('storageclasses', {
        'metadata': {'name': 'local'}, 'provisioner': 'kubernetes.io/no-provisioner',
        'volumeBindingMode': 'WaitForFirstConsumer',
    })  # fmt: skip
    api.put('persistentvolumes', {'metadata': {'name': 'disk'}, 'spec': {**local, 'capacity': {'storage': '1Gi'}}})
    api.put('persistentvolumeclaims', claim)
    api.put('pods', pod('p', volumes=[{'name': 'v', 'persistentVolumeClaim': {'claimName': 'c'}}]))
    await api.until(lambda: 'claimRef' in api.objects['persistentvolumes']['disk']['spec'])
    assert api.messages('FailedScheduling') == ['binding volumes: disk was changed']
    assert api.objects['persistentvolumes']['disk']['spec']['claimRef']['uid'] == 'uid-c'
    assert not api.bindings
    bound = {**claim, 'spec': {**claim['spec'], 'volumeName': 'disk'}}
    bound['metadata'] = {**claim['metadata'], 'annotations': {COMPLETED: 'yes'}}
    api.put('persistentvolumeclaims', bound)
    await api.until(lambda: api.bindings)
    assert api.bindings == [('p', 'n')]


async def test_preemption_evicts_the_victim_and_then_binds_the_preemptor(api, node, pod):
    api.put('nodes', node('n', cpu='1'))
    api.put('pods', pod('low', cpu='1', nodeName='n'))
    api.put('pods', pod('vip', cpu='1', priority=9))
    await api.until(lambda: api.bindings)
    assert api.bindings == [('vip', 'n')]
    assert 'low' not in api.objects['pods']
    await api.until(lambda: api.messages('Preempted'))
    assert api.messages('Preempted') == ['Preempted by pod uid-vip on node n']


async def test_the_status_of_an_outranked_preemptor_no_longer_names_the_node(api, node, pod):
    api.put('nodes', node('n', cpu='1'))
    api.evicts = False
    api.put('pods', pod('low', cpu='1', nodeName='n'))
    api.put('pods', pod('mid', cpu='1', priority=5))
    await api.until(lambda: api.pod('mid')['status'].get('nominatedNodeName') == 'n')
    api.put('pods', pod('vip', cpu='1', priority=9))
    await api.until(lambda: api.pod('vip')['status'].get('nominatedNodeName') == 'n')
    assert api.pod('mid')['status']['nominatedNodeName'] is None


async def test_a_pod_deleted_while_it_waits_is_forgotten(api, node, pod):
    api.put('pods', pod('p'))
    await api.until(lambda: api.messages('FailedScheduling'))
    api.remove('pods', 'p')
    api.put('nodes', node('n'))
    api.put('pods', pod('q'))
    await api.until(lambda: api.bindings)
    assert api.bindings == [('q', 'n')]


async def test_a_thousand_pods_are_each_bound_once_within_the_nodes_room(api, node, pod):
    for i in range(20):
        api.put('nodes', node(f'n{i}', pods=50))
    for i in range(1_000):
        api.put('pods', pod(f'p{i}'))
    await api.until(lambda: len(api.bindings) == 1_000)
    assert len({name for name, _ in api.bindings}) == 1_000
    load: dict[str, int] = defaultdict(int)
    for _, where in api.bindings:
        load[where] += 1
    assert set(load.values()) == {50}


async def test_a_scheduler_that_starts_late_counts_what_is_there(node, pod):
    api = Api()
    api.put('nodes', node('n', cpu='2'))
    api.put('pods', pod('old', cpu='1', nodeName='n'))
    api.put('pods', pod('p', cpu='2'))
    api.put('pods', pod('q', cpu='1'))
    task = start_detached('scheduler', run_scheduler(api, api.env))
    await api.until(lambda: api.bindings and api.messages('FailedScheduling'))
    await stop(task)
    assert api.bindings == [('q', 'n')]
