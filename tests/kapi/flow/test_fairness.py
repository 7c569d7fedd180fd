"""Fairness: floods wait for themselves, others pass; and where which request belongs."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import pytest

from kapi.errors import TooManyRequests
from kapi.server.fairness import Level, Turns, dealt


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


async def test_a_flood_that_waits_for_nothing_still_lets_others_begin() -> None:
    turns = Turns()
    low, high = (Level(n, '', 1_000, queues=[deque() for _ in range(64)], hand=6, turns=turns) for n in ('low', 'high'))
    flood = [asyncio.ensure_future(low.enter('flood')) for _ in range(200)]
    others = [asyncio.ensure_future(low.enter('quiet')), asyncio.ensure_future(high.enter('flood'))]
    await asyncio.wait(others)
    assert sum(task.done() for task in flood) < 100
    await asyncio.gather(*flood)
    assert (low.busy, low.waiting, high.busy, high.waiting) == (201, 0, 1, 0)
    turns.deadlines.close()


async def test_a_turn_is_not_kept_by_those_who_gave_up_or_have_no_seat() -> None:
    turns = Turns()
    full, free = (Level(n, '', seats, queues=[deque()], turns=turns) for n, seats in (('full', 1), ('free', 100)))
    await full.enter('a')
    stuck = [asyncio.ensure_future(full.enter('a')) for _ in range(5)]
    gone = [asyncio.ensure_future(free.enter('a')) for _ in range(20)]
    await asyncio.sleep(0)
    for task in gone:
        task.cancel()
    await asyncio.wait(gone)
    await free.enter('a')
    assert not any(task.done() for task in stuck)
    for task in stuck:
        full.leave()
        await task
    assert (full.busy, full.waiting, free.waiting) == (1, 0, 0)
    turns.deadlines.close()


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
    assert dealt('a', 2, 6) in ((0, 1), (1, 0))


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
