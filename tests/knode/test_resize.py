"""Resizes in place: what fits is granted, what does not waits or is impossible, and the pod says which."""

from __future__ import annotations

import asyncio

import pytest

from knode.pods.model import Start
from knode.pods.plan import decide
from knode.pods.status import obsolete
from tests.knode.virtual_node import VirtualNode


@pytest.fixture
def node(tmp_path):
    return VirtualNode(tmp_path)


def asks(cpu, **more):
    return [{'name': 'c', 'image': 'busybox', 'resources': {'requests': {'cpu': cpu}}, **more}]


def resizes(node, name):
    """{condition: (reason, message)}, and the cpu that the container has."""
    status = node.status(name)
    found = {
        c['type']: (c['reason'] or '', c['message'] or '')
        for c in status['conditions']
        if c['type'].startswith('PodResize')
    }
    return found, status['containerStatuses'][0]['allocatedResources']['cpu']


def test_a_resize_beyond_the_node_is_infeasible_and_the_container_keeps_what_it_has(node):
    async def script():
        node.create('p', containers=asks('1'))
        await asyncio.sleep(5)
        node.resize('p', requests={'cpu': '5'})
        await asyncio.sleep(5)

    node.run(script)
    text = "Node didn't have enough capacity: cpu, requested: 5000, capacity: 4000"
    assert resizes(node, 'p') == ({'PodResizePending': ('Infeasible', text)}, '1')
    status = node.status('p')['containerStatuses'][0]
    assert (status['resources'], status['restartCount']) == ({'requests': {'cpu': '1'}}, 0)


def test_a_resize_waits_until_another_pod_has_ended(node):
    seen = []

    async def script():
        node.create('p', containers=asks('1'))
        node.create('other', {'run-for': '20'}, containers=asks('2'), restartPolicy='Never')
        await asyncio.sleep(5)
        node.resize('p', requests={'cpu': '3'})
        await asyncio.sleep(5)
        seen.append(resizes(node, 'p'))
        await asyncio.sleep(20)

    node.run(script)
    text = "Node didn't have enough resource: cpu, requested: 3000, used: 2000, capacity: 4000"
    assert seen == [({'PodResizePending': ('Deferred', text)}, '1')]
    assert resizes(node, 'p') == ({}, '3')


def test_a_resize_waits_until_another_pod_has_shrunk(node):
    async def script():
        node.create('p', containers=asks('1'))
        node.create('other', containers=asks('2'))
        await asyncio.sleep(5)
        node.resize('p', requests={'cpu': '3'})
        await asyncio.sleep(5)
        node.resize('other', requests={'cpu': '1'})
        await asyncio.sleep(5)

    node.run(script)
    assert resizes(node, 'p') == ({}, '3')


def test_what_was_not_granted_takes_no_room(node):
    async def script():
        node.create('p', containers=asks('1'))
        await asyncio.sleep(5)
        node.resize('p', requests={'cpu': '5'})
        node.create('other', containers=asks('3'))
        await asyncio.sleep(5)

    node.run(script)
    assert node.status('other')['phase'] == 'Running'


def test_a_wish_that_is_taken_back_is_not_pending_any_more(node):
    async def script():
        node.create('p', containers=asks('1'))
        await asyncio.sleep(5)
        node.resize('p', requests={'cpu': '5'})
        await asyncio.sleep(5)
        node.resize('p', requests={'cpu': '1'})
        await asyncio.sleep(5)

    node.run(script)
    assert resizes(node, 'p') == ({}, '1')


def test_a_resize_that_restarts_the_container_is_in_progress_until_it_has_ended(node):
    seen = []

    async def script():
        policy = [{'resourceName': 'cpu', 'restartPolicy': 'RestartContainer'}]
        node.create('p', {'stop-for': '4'}, containers=asks('1', resizePolicy=policy))
        await asyncio.sleep(5)
        node.resize('p', requests={'cpu': '2'})
        await asyncio.sleep(2)
        seen.append((resizes(node, 'p'), node.status('p')['containerStatuses'][0]['resources']))
        await asyncio.sleep(10)

    node.run(script)
    assert seen == [(({'PodResizeInProgress': ('', '')}, '2'), {'requests': {'cpu': '1'}})]
    assert resizes(node, 'p') == ({}, '2')
    assert node.status('p')['containerStatuses'][0]['restartCount'] == 1


def test_an_agent_that_starts_again_remembers_what_it_granted(node, tmp_path):
    async def script():
        node.create('p', containers=asks('1'))
        await asyncio.sleep(5)
        node.resize('p', requests={'cpu': '2'})
        await asyncio.sleep(5)
        node.resize('p', requests={'cpu': '5'})
        await asyncio.sleep(5)

    node.run(script)
    [kept] = node.host.checkpoints.load()
    assert kept.pod['spec']['containers'][0]['resources'] == {'requests': {'cpu': '2'}}


def test_a_container_that_waits_after_a_crash_is_started_at_once_with_its_new_resources(
    make_pod, make_view, make_record
):
    pod = make_pod(containers=[{'name': 'c', 'image': 'busybox', 'resources': {'limits': {'memory': '96Mi'}}}])
    crashed = make_record(ended=137, backoff_s=300.0, meta={'resources': {'limits': {'memory': '64Mi'}}})
    [start] = decide(make_view(pod, crashed)).actions
    assert isinstance(start, Start)
    assert start.backoff_s == 0.0


def test_a_condition_that_does_not_hold_any_more_is_taken_out_of_the_api():
    pod = {'status': {'conditions': [{'type': 'Ready'}, {'type': 'PodResizePending'}, {'type': 'example.com/mine'}]}}
    assert obsolete(pod, {'conditions': [{'type': 'Ready'}]}) == ['PodResizePending']
    assert obsolete(pod, {'conditions': [{'type': 'PodResizePending'}]}) == []
