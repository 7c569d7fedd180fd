"""The queue: who is next, who waits, what wakes them."""

from __future__ import annotations

import pytest

from kcontrol.scheduler.framework import Happening
from kcontrol.scheduler.podinfo import parse_pod
from kcontrol.scheduler.queue import Place, SchedulingQueue

WAKES = {'Fit': frozenset({Happening.POD_DELETE}), 'Taints': frozenset({Happening.NODE_TAINTS})}


class Clocked:
    def __init__(self) -> None:
        self.now = 0.0
        self.queue = SchedulingQueue(WAKES, lambda: self.now)

    def refuse(self, *plugins: str) -> str:
        pod = self.queue.pop()
        assert pod is not None
        self.queue.unfit(pod.uid, frozenset(plugins))
        return pod.name


@pytest.fixture
def clocked():
    return Clocked()


@pytest.fixture
def info(pod):
    return lambda name, **more: parse_pod(pod(name, **more))


def test_the_highest_priority_goes_first_and_equals_in_order_of_arrival(clocked, info):
    for name, priority in (('a', 0), ('b', 10), ('c', 0), ('d', 10)):
        clocked.queue.put(info(name, priority=priority))
    assert [clocked.queue.pop().name for _ in range(4)] == ['b', 'd', 'a', 'c']
    assert clocked.queue.pop() is None


def test_an_unschedulable_pod_wakes_only_for_what_may_help(clocked, info):
    clocked.queue.put(info('a'))
    clocked.refuse('Fit')
    clocked.now = 60.0
    clocked.queue.happened(Happening.NODE_TAINTS)
    assert clocked.queue.pop() is None
    clocked.queue.happened(Happening.POD_DELETE)
    assert clocked.queue.pop().name == 'a'


def test_a_woken_pod_serves_its_growing_back_off(clocked, info):
    clocked.queue.put(info('a'))
    waits = []
    for _ in range(6):
        clocked.refuse('Fit')
        clocked.queue.happened(Happening.POD_DELETE)
        assert clocked.queue.pop() is None
        due = clocked.queue.next_due()
        waits.append(due - clocked.now)
        clocked.now = due
    assert waits == [1, 2, 4, 8, 10, 10]


def test_what_happens_during_an_attempt_is_not_missed(clocked, info):
    clocked.queue.put(info('a'))
    pod = clocked.queue.pop()
    clocked.queue.happened(Happening.POD_DELETE)
    clocked.queue.unfit(pod.uid, frozenset({'Fit'}))
    assert clocked.queue.place_of(pod.uid) is Place.BACKOFF


def test_a_pod_rejected_by_nobody_in_particular_wakes_for_anything(clocked, info):
    clocked.queue.put(info('a'))
    clocked.refuse()
    clocked.now = 60.0
    clocked.queue.happened(Happening.NODE_ADD)
    assert clocked.queue.pop().name == 'a'


def test_an_unschedulable_pod_is_tried_again_after_five_minutes(clocked, info):
    clocked.queue.put(info('a'))
    clocked.refuse('Fit')
    clocked.now = 299.0
    assert clocked.queue.pop() is None
    assert clocked.queue.next_due() == 300.0
    clocked.now = 300.0
    assert clocked.queue.pop().name == 'a'


def test_a_gated_pod_waits_until_its_gates_are_gone(clocked, info):
    clocked.queue.put(info('a', schedulingGates=[{'name': 'wait'}]))
    clocked.queue.happened(Happening.NODE_ADD)
    assert clocked.queue.pop() is None
    clocked.queue.put(info('a'))
    assert clocked.queue.pop().name == 'a'


def test_a_status_update_does_not_wake_a_pod_but_a_new_toleration_does(clocked, info):
    clocked.queue.put(info('a'))
    clocked.refuse('Taints')
    clocked.now = 60.0
    clocked.queue.put(info('a', status={'conditions': []}))
    assert clocked.queue.pop() is None
    clocked.queue.put(info('a', tolerations=[{'operator': 'Exists'}]))
    assert clocked.queue.pop().name == 'a'


def test_a_removed_pod_never_comes_out(clocked, info):
    clocked.queue.put(info('a'))
    clocked.queue.put(info('b'))
    clocked.queue.remove('uid-a')
    assert clocked.queue.pop().name == 'b'
    clocked.queue.remove('uid-b')
    clocked.queue.unfit('uid-b', frozenset({'Fit'}))
    clocked.queue.happened(Happening.POD_DELETE)
    assert clocked.queue.pop() is None
    assert len(clocked.queue) == 0


def test_every_pod_is_in_exactly_one_place(clocked, info):
    for name in 'abc':
        clocked.queue.put(info(name))
    clocked.queue.put(info('g', schedulingGates=[{'name': 'wait'}]))
    clocked.refuse('Fit')
    clocked.queue.pop()
    found = {place: n for place, n in clocked.queue.counts().items() if n}
    assert found == {Place.UNSCHEDULABLE: 1, Place.IN_FLIGHT: 1, Place.ACTIVE: 1, Place.GATED: 1}
