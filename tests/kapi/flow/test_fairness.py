"""Fairness: floods wait for themselves, others pass; and where which request belongs."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import pytest

from kapi.errors import TooManyRequests
from kapi.server.fairness import Level, dealt


def level(seats: int, queues: int = 64, length: int = 50) -> Level:
    return Level('l', '', seats, queues=[deque() for _ in range(queues)], hand=6, length_max=length)


async def start(lv: Level, flow: str) -> asyncio.Task[None]:
    task = asyncio.get_running_loop().create_task(lv.enter(flow))
    await asyncio.sleep(0)
    return task


async def test_a_quiet_flow_waits_for_one_turn_behind_a_flood() -> None:
    lv = level(1)
    await lv.enter('flood')
    flood = [await start(lv, 'flood') for _ in range(100)]
    quiet = await start(lv, 'quiet')
    served = 0
    while not quiet.done():
        lv.leave()
        served += 1
        await asyncio.sleep(0)
    assert served <= 7
    for task in flood:
        task.cancel()
    await asyncio.gather(*flood, return_exceptions=True)
    assert lv.waiting == 0


async def test_full_queues_refuse_and_no_seat_is_ever_lost() -> None:
    lv = level(2, queues=1, length=1)
    await lv.enter('a')
    await lv.enter('a')
    waiting = await start(lv, 'a')
    with pytest.raises(TooManyRequests):
        await lv.enter('a')
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    lv.leave()
    lv.leave()
    assert (lv.busy, lv.waiting) == (0, 0)


def test_hands_differ_and_stay() -> None:
    assert dealt('a', 64, 6) == dealt('a', 64, 6)
    assert len(set(dealt('a', 64, 6))) == 6
    assert dealt('a', 64, 6) != dealt('b', 64, 6)
    assert dealt('a', 2, 6) in ([0, 1], [1, 0])


async def test_defaults_are_objects_and_answers_name_them(world: Any, api: Any) -> None:
    group = '/apis/flowcontrol.apiserver.k8s.io/v1'
    schemas = {o['metadata']['name']: o for o in (await api.get(f'{group}/flowschemas')).json['items']}
    levels = {o['metadata']['name']: o for o in (await api.get(f'{group}/prioritylevelconfigurations')).json['items']}
    assert {'exempt', 'catch-all', 'global-default', 'system-leader-election', 'service-accounts'} <= set(schemas)
    assert {'exempt', 'catch-all', 'node-high', 'workload-low', 'leader-election'} <= set(levels)
    answer = await (await world.user('bob')).get('/apis')
    assert answer.headers['X-Kubernetes-PF-FlowSchema-UID'] == schemas['global-default']['metadata']['uid']
    assert answer.headers['X-Kubernetes-PF-PriorityLevel-UID'] == levels['global-default']['metadata']['uid']


async def test_a_full_level_refuses_only_its_own(world: Any, api: Any) -> None:
    group = '/apis/flowcontrol.apiserver.k8s.io/v1'
    spec = {'type': 'Limited', 'limited': {'nominalConcurrencyShares': 0, 'limitResponse': {'type': 'Reject'}}}
    await api.put(
        f'{group}/prioritylevelconfigurations/global-default', {'metadata': {'name': 'global-default'}, 'spec': spec}
    )
    await api.get(f'{group}/prioritylevelconfigurations')
    bob = await world.user('bob')
    assert (await bob.get('/apis')).status == 200
    world.server.fairness._levels['global-default'].busy = 1
    refused = await bob.get('/apis')
    assert (refused.status, refused.headers['Retry-After']) == (429, '1')
    assert (await api.get('/apis')).status == 200
