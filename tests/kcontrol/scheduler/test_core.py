"""Decisions as a whole: messages, assumptions, and that no node is ever over-committed."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kcontrol.scheduler.core import ASSUMPTION_S, Bind, Core, Failure
from kcontrol.scheduler.framework import Framework, sample_size
from kcontrol.scheduler.plugins import PLUGINS
from kcontrol.scheduler.podinfo import parse_pod
from kcontrol.scheduler.snapshot import Cache


def test_the_message_counts_the_reasons_over_all_nodes(bench, node, pod):
    taints = [{'key': 'node-role', 'value': 'cp', 'effect': 'NoSchedule'}]
    bench.nodes(node('a', cpu='1'), node('b', taints=taints), node('c', taints=taints))
    failure = bench.failure(pod('p', cpu='2', priority=0))
    assert failure.message == (
        '0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {node-role: cp}. '
        'preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.'
    )


def test_without_nodes_the_pod_waits_for_the_first_one(bench, node, pod):
    assert bench.failure(pod('p')).message == 'no nodes available to schedule pods'
    bench.nodes(node('n'))
    bench.now += 2
    assert bench.run() == {'p': 'n'}


@pytest.mark.parametrize(
    ('wanted', 'given', 'reason', 'fits'),
    [
        ('1', '3', '', False),  # shrinks, and its node has not heard of it
        ('3', '1', 'Deferred', False),
        ('3', '1', 'Infeasible', True),
        ('1', '1', '', True),
    ],
)
def test_a_pod_that_is_resized_counts_with_what_it_wants_and_what_it_has(
    bench, node, pod, *, wanted, given, reason, fits
):
    bench.nodes(node('n', cpu='4'))
    placed = pod('resized', cpu=given, nodeName='n')
    bench.core.pod_changed(None, placed)
    conditions = [{'type': 'PodResizePending', 'status': 'True', 'reason': reason}] if reason else []
    status = {
        'containerStatuses': [{'name': 'c', 'allocatedResources': {'cpu': given}}], 'conditions': conditions,
    }  # fmt: skip
    bench.core.pod_changed(placed, pod('resized', cpu=wanted, nodeName='n', status=status))
    bench.pods(pod('new', cpu='2'))
    assert isinstance(bench.core.next(), Bind if fits else Failure)


def test_room_that_a_resize_has_given_back_is_used(bench, node, pod):
    def resized(given):
        status = {'containerStatuses': [{'name': 'c', 'allocatedResources': {'cpu': given}}]}
        return pod('resized', cpu='1', nodeName='n', status=status)

    bench.nodes(node('n', cpu='4'))
    bench.core.pod_changed(None, resized('3'))
    bench.core.pod_changed(resized('3'), resized('1'))
    bench.pods(pod('new', cpu='2'))
    assert isinstance(bench.core.next(), Bind)


def test_an_assumed_pod_takes_its_room_at_once(bench, node, pod):
    bench.nodes(node('n', cpu='1'))
    bench.pods(pod('a', cpu='1'), pod('b', cpu='1'))
    assert isinstance(bench.core.next(), Bind)
    assert isinstance(bench.core.next(), Failure)


def test_a_failed_binding_gives_the_room_back_and_the_pod_another_try(bench, node, pod):
    bench.nodes(node('n', cpu='1'))
    bench.pods(pod('a', cpu='1'))
    decision = bench.core.next()
    bench.core.unbound(decision.pod)
    assert bench.core.next() is None
    bench.now += 2
    assert bench.run() == {'a': 'n'}


def test_an_assumption_that_the_informer_never_confirms_expires(bench, node, pod):
    bench.nodes(node('n', cpu='1'))
    bench.pods(pod('a', cpu='1'))
    bench.core.bound(bench.core.next().pod)
    assert bench.core.idle_s() == ASSUMPTION_S
    bench.now += ASSUMPTION_S
    assert bench.core.next() is None
    bench.now += 2
    assert bench.run() == {'a': 'n'}


def test_a_pod_whose_binding_is_under_way_is_not_decided_again(bench, node, pod):
    bench.nodes(node('n'))
    bench.pods(pod('a'))
    bench.core.next()
    bench.core.pod_changed(pod('a'), pod('a', labels={'new': 'label'}))
    bench.now += 1_000
    assert bench.core.next() is None


def test_a_namesake_with_another_uid_is_another_pod(bench, node, pod):
    bench.nodes(node('n', cpu='1'))
    first = pod('a', cpu='1', uid='1')
    bench.pods(first)
    bench.core.next()
    bench.core.pod_changed(first, None)
    bench.pods(pod('a', cpu='1', uid='2'))
    assert bench.run() == {'a': 'n'}


def test_finished_pods_free_their_room(bench, node, pod):
    bench.nodes(node('n', cpu='1'))
    bench.pods(pod('job', cpu='1', nodeName='n', status={'phase': 'Running'}))
    bench.failure(pod('p', cpu='1'))
    bench.core.pod_changed(None, pod('job', cpu='1', nodeName='n', status={'phase': 'Succeeded'}))
    bench.now += 2
    assert bench.run() == {'p': 'n'}


def test_pods_of_another_scheduler_and_pods_being_deleted_are_left_alone(bench, node, pod):
    bench.nodes(node('n'))
    going = pod('going')
    going['metadata']['deletionTimestamp'] = '2026-01-01T00:00:00Z'
    bench.pods(pod('theirs', schedulerName='other'), going)
    assert bench.core.next() is None


def test_pods_seen_before_their_node_count_on_it(bench, node, pod):
    bench.pods(pod('early', cpu='1', nodeName='n'))
    bench.nodes(node('n', cpu='1'))
    assert 'Insufficient cpu' in bench.failure(pod('p', cpu='1')).message


def test_a_node_that_leaves_and_returns_still_carries_its_pods(bench, node, pod):
    bench.nodes(node('n', cpu='1'))
    bench.pods(pod('a', cpu='1', nodeName='n'))
    bench.core.node_changed(node('n', cpu='1'), None)
    bench.nodes(node('n', cpu='1'))
    assert 'Insufficient cpu' in bench.failure(pod('p', cpu='1')).message


def test_uncordoning_a_node_wakes_the_pod_that_waits(bench, node, pod):
    bench.nodes(node('n', unschedulable=True))
    bench.failure(pod('p'))
    bench.core.node_changed(node('n', unschedulable=True), node('n'))
    bench.now += 2
    assert bench.run() == {'p': 'n'}


def test_the_same_seed_decides_alike(node, pod):
    def run(seed: int) -> list[str]:
        core = Core('default-scheduler', random.Random(seed), lambda: 0.0)
        for i in range(20):
            core.node_changed(None, node(f'n{i}'))
        for i in range(40):
            core.pod_changed(None, pod(f'p{i}', cpu='100m'))
        return [core.next().pod.node for _ in range(40)]

    assert run(7) == run(7)
    assert run(7) != run(8)


def test_big_clusters_are_sampled_from_where_the_last_search_ended(node, pod):
    assert [sample_size(n) for n in (1, 100, 150, 1_000, 5_000, 20_000)] == [1, 100, 100, 420, 500, 1_000]
    cache = Cache()
    for i in range(300):
        cache.set_node(node(f'n{i:03}'))
    framework = Framework(PLUGINS, random.Random(1))
    seen = [framework.place(parse_pod(pod(f'p{i}')), cache.snapshot()).feasible for i in range(3)]
    assert seen == [sample_size(300)] * 3


CPU = st.integers(0, 12)
STEP = st.one_of(
    st.tuples(st.just('create'), CPU, st.integers(0, 3)),
    st.tuples(st.just('delete'), st.integers(0, 40), st.just(0)),
    st.tuples(st.just('answer'), st.sampled_from(['ok', 'refused', 'lost']), st.just(0)),
    st.tuples(st.just('cordon'), st.integers(0, 3), st.booleans()),
    st.tuples(st.just('wait'), st.sampled_from([1, 11, 400]), st.just(0)),
)


class World:
    """An API of sorts: what is bound here is the truth that the properties are stated about."""

    def __init__(self, make_node, make_pod) -> None:
        self.now = 0.0
        self.core = Core('default-scheduler', random.Random(3), lambda: self.now)
        self.make_node, self.make_pod = make_node, make_pod
        self.capacity = {f'n{i}': 4 + 3 * i for i in range(4)}
        self.pods: dict[str, dict] = {}
        self.binding: list = []
        self.made = 0
        for name, cpu in self.capacity.items():
            self.core.node_changed(None, make_node(name, cpu=str(cpu), pods=6))

    def create(self, cpu: int, priority: int) -> None:
        self.made += 1
        obj = self.make_pod(f'p{self.made}', cpu=str(cpu), priority=priority)
        self.pods[obj['metadata']['uid']] = obj
        self.core.pod_changed(None, obj)

    def delete(self, index: int) -> None:
        for obj in [*self.pods.values()][index : index + 1]:
            del self.pods[obj['metadata']['uid']]
            self.core.pod_changed(obj, None)

    def decide(self) -> bool:
        """Whether anything changed: a pod was placed, or evicted."""
        changed = False
        while (decision := self.core.next()) is not None:
            if isinstance(decision, Bind):
                self.binding.append(decision.pod)
                changed = True
                continue
            for victim in decision.victims:
                changed = True
                gone = self.pods.pop(victim.uid, None)
                if gone is not None:
                    self.core.pod_changed(gone, None)
        return changed

    def answer(self, how: str) -> None:
        if not self.binding:
            return
        pod = self.binding.pop(0)
        obj = self.pods.get(pod.uid)
        if obj is None:
            self.core.lost(pod)
        elif how == 'refused':
            self.core.unbound(pod)
        else:
            assert not obj['spec'].get('nodeName'), 'bound twice'
            new = {**obj, 'spec': {**obj['spec'], 'nodeName': pod.node}}
            self.pods[pod.uid] = new
            self.check()
            if how == 'ok':  # 'lost': the informer is quicker than the answer
                self.core.bound(pod)
            self.core.pod_changed(obj, new)

    def check(self) -> None:
        for name, capacity in self.capacity.items():
            here = [p for p in self.pods.values() if p['spec'].get('nodeName') == name]
            used = sum(parse_pod(p).cpu for p in here)
            assert used <= capacity * 1000, f'{name} is over-committed'
            assert len(here) <= 6

    def settle(self) -> None:
        for _ in range(200):
            self.now += 11
            self.decide()
            if not self.binding:
                break
            while self.binding:
                self.answer('ok')
        for name, cpu in self.capacity.items():
            self.core.node_changed(None, self.make_node(name, cpu=str(cpu), pods=6))
        for _ in range(200):
            self.now += 400
            if not self.decide():
                break
            while self.binding:
                self.answer('ok')


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEP, max_size=60))
def test_no_node_is_ever_over_committed_and_every_feasible_pod_gets_bound(builders, steps):
    make_node, make_pod = builders
    world = World(make_node, make_pod)
    for verb, one, two in steps:
        match verb:
            case 'create':
                world.create(one, two)
            case 'delete':
                world.delete(one)
            case 'answer':
                world.answer(one)
            case 'cordon':
                name = f'n{one}'
                world.core.node_changed(None, make_node(name, cpu=str(world.capacity[name]), pods=6, unschedulable=two))
            case 'wait':
                world.now += one
        world.decide()
    world.settle()
    world.check()
    waiting = [parse_pod(p) for p in world.pods.values() if not p['spec'].get('nodeName')]
    for pod in waiting:
        for name, capacity in world.capacity.items():
            here = [parse_pod(p) for p in world.pods.values() if p['spec'].get('nodeName') == name]
            free = capacity * 1000 - sum(p.cpu for p in here)
            assert len(here) >= 6 or (pod.cpu and free < pod.cpu), f'{pod.name} would fit on {name}'
