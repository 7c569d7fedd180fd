"""Fairness: floods wait for themselves, others pass; and where which request belongs."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from kapi.flow.demand import Demand
from kapi.flow.levels import Level, Refused, dealt
from kapi.flow.turns import (
    COMPANY_TURNS,
    MANY_WATCHERS,
    PLACES,
    PLACES_ALONE,
    PLACES_BESIDE_WATCHERS,
    Round,
    Turns,
)


class Told:
    """How many watchers were told."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> int:
        return self.count


@pytest.fixture
def turns() -> Iterator[Turns]:
    turns = Turns(lambda: 0)
    yield turns
    turns.deadlines.close()


def level(turns: Turns, seats: int, queues: int = 64, length: int = 50, name: str = 'l') -> Level:
    return Level(
        name, turns, Demand(lambda: 0.0), nominal=seats, limit=seats, queue_count=queues, hand=6,
        length_max=length,
    )  # fmt: skip


async def enter(lv: Level, flow: str, width: int = 1) -> None:
    if not lv.enter(flow, width, 0.0):
        await lv.wait(flow, width, 0.0)


async def start(lv: Level, flow: str, width: int = 1) -> asyncio.Task[None]:
    task = asyncio.ensure_future(enter(lv, flow, width))
    await asyncio.sleep(0)
    return task


async def turns_until(done: asyncio.Future[Any]) -> int:
    count = 0
    while not done.done():
        count += 1
        await asyncio.sleep(0)
    return count


async def cancel(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_quiet_flow_is_next_when_a_seat_is_free(turns: Turns) -> None:
    lv = level(turns, 1)
    await enter(lv, 'flood')
    flood = [await start(lv, 'flood') for _ in range(100)]

    async def serve_one() -> None:
        lv.leave(1)
        while not lv.executing:
            await asyncio.sleep(0)
        await asyncio.sleep(0)

    await serve_one()
    quiet = await start(lv, 'quiet')
    assert not quiet.done()
    await serve_one()
    assert quiet.done()
    await cancel(*flood)
    assert (lv.waiting, lv.waiting_seats) == (0, 0)


async def test_a_newcomer_need_not_wait_for_a_flood_that_waits_for_its_turns(turns: Turns) -> None:
    low, high = (level(turns, 1_000, name=n) for n in ('low', 'high'))
    flood = [asyncio.ensure_future(enter(low, 'flood')) for _ in range(200)]
    await asyncio.sleep(0)
    assert await turns_until(asyncio.ensure_future(enter(low, 'quiet'))) <= 2
    assert await turns_until(asyncio.ensure_future(enter(high, 'quiet'))) <= 4
    assert sum(task.done() for task in flood) < 10
    await asyncio.gather(*flood)
    assert (low.busy, low.waiting, high.busy, high.waiting) == (201, 0, 1, 0)


async def test_a_flood_begins_one_request_a_turn_and_is_no_newcomer(turns: Turns) -> None:
    lv = level(turns, 1_000)
    flood = [asyncio.ensure_future(enter(lv, 'flood')) for _ in range(50)]
    for turn in range(1, 20):
        await asyncio.sleep(0)
        # The very first turn has a place for each of the flow's queues that was empty before.
        assert lv.executing <= turn * PLACES + 1
        flood.append(asyncio.ensure_future(enter(lv, 'flood')))
    await cancel(*flood)


async def test_many_flows_share_a_turn_as_one_does(turns: Turns) -> None:
    lv = level(turns, 1_000)
    crowd = [asyncio.ensure_future(enter(lv, f'user-{n}')) for n in range(300)]
    for turn in range(1, 30):
        await asyncio.sleep(0)
        assert lv.executing <= 2 * turn
    await cancel(*crowd)


async def test_when_many_watchers_are_told_more_requests_share_the_turn() -> None:
    told = Told()
    turns = Turns(told)
    lv = level(turns, 1_000)
    flood = [asyncio.ensure_future(enter(lv, 'flood')) for _ in range(100)]
    await asyncio.sleep(0)
    before = lv.executing
    told.count += MANY_WATCHERS
    await asyncio.sleep(0)
    assert lv.executing - before == PLACES_BESIDE_WATCHERS
    await asyncio.sleep(0)
    assert lv.executing - before == PLACES_BESIDE_WATCHERS + PLACES
    await cancel(*flood)
    turns.deadlines.close()


async def test_a_flow_that_is_alone_begins_more_a_turn_until_another_comes(turns: Turns) -> None:
    lv = level(turns, 1_000)
    for _ in range(COMPANY_TURNS + 1):
        turns.comes('flood')
        turns.soon()
        await asyncio.sleep(0)
    flood = [asyncio.ensure_future(enter(lv, 'flood')) for _ in range(100)]
    await asyncio.sleep(0)

    async def begun_in(turns: int) -> int:
        before = lv.executing
        for _ in range(turns):
            await asyncio.sleep(0)
        return lv.executing - before

    assert await begun_in(10) == 10 * PLACES_ALONE
    refused = asyncio.ensure_future(turns.refusals.turn())  # whosoever it was
    for _ in range(3):
        await asyncio.sleep(0)
    turns.comes('flood')
    assert await begun_in(10) == 10 * PLACES
    await cancel(refused, *flood)


async def test_refusals_take_turns_with_those_who_are_served(turns: Turns) -> None:
    lv = level(turns, 1_000)
    served = [asyncio.ensure_future(enter(lv, 'flood')) for _ in range(60)]
    refused = [asyncio.ensure_future(turns.refusals.turn()) for _ in range(60)]
    left = refused.pop(30)
    left.cancel()
    for _ in range(40):
        await asyncio.sleep(0)
    told = sum(r.done() for r in refused)
    assert 15 <= told <= 25
    assert 15 <= lv.executing <= 25
    await asyncio.gather(*served, *refused)


async def test_what_wants_one_place_again_and_again_is_no_newcomer_each_time(turns: Turns) -> None:
    crowd = [asyncio.ensure_future(turns.refusals.turn()) for _ in range(60)]
    arrived = 0

    async def arrive() -> None:
        nonlocal arrived
        while True:
            await turns.arrivals.turn()
            arrived += 1

    arriving = asyncio.ensure_future(arrive())
    for _ in range(60):
        await asyncio.sleep(0)
    assert 15 <= arrived <= 35
    assert sum(c.done() for c in crowd) >= 20
    await cancel(arriving, *crowd)


async def test_a_turn_is_not_kept_by_those_who_gave_up_or_have_no_seat(turns: Turns) -> None:
    full, free = (level(turns, seats, queues=1, name=n) for n, seats in (('full', 1), ('free', 100)))
    await enter(full, 'a')
    stuck = [asyncio.ensure_future(enter(full, 'a')) for _ in range(5)]
    gone = [asyncio.ensure_future(enter(free, 'a')) for _ in range(20)]
    await asyncio.sleep(0)
    await cancel(*gone)
    assert await turns_until(await start(free, 'a')) <= 2
    assert not any(task.done() for task in stuck)
    for task in stuck:
        full.leave(1)
        await task
    assert (full.busy, full.waiting, free.waiting) == (1, 0, 0)


async def test_full_queues_refuse_and_no_seat_is_ever_lost(turns: Turns) -> None:
    lv = level(turns, 2, queues=1, length=1)
    await enter(lv, 'a')
    await asyncio.sleep(0)
    await enter(lv, 'a')
    waiting = await start(lv, 'a')
    with pytest.raises(Refused) as refused:
        await enter(lv, 'a')
    assert refused.value.reason == 'queue-full'
    await cancel(waiting)
    lv.leave(1)
    lv.leave(1)
    assert (lv.busy, lv.executing, lv.waiting, lv.waiting_seats) == (0, 0, 0, 0)


async def test_a_wide_request_takes_its_seats_and_lets_as_many_turns_pass(turns: Turns) -> None:
    lv = level(turns, 10_000)
    lv.width_max = 10
    order: list[str] = []

    async def one(flow: str, width: int) -> None:
        await enter(lv, flow, width)
        order.append(flow)

    lists = [asyncio.ensure_future(one('lists', 10)) for _ in range(10)]
    gets = [asyncio.ensure_future(one('gets', 1)) for _ in range(100)]
    await asyncio.gather(*lists, *gets)
    times = [at for at, who in enumerate(order) if who == 'lists'][1:]
    assert all(later - earlier >= 10 for earlier, later in pairwise(times) if later < 90)
    assert lv.busy == 10 * 10 + 100


async def test_a_wide_request_at_the_head_is_not_passed_by_narrow_ones_for_ever(turns: Turns) -> None:
    lv = level(turns, 4, queues=1)
    lv.width_max = 4
    await enter(lv, 'a')
    wide = await start(lv, 'a', 4)
    narrow = [await start(lv, f'n{n}') for n in range(3)]
    assert not any(t.done() for t in (wide, *narrow))
    lv.leave(1)
    await turns_until(wide)
    assert not any(t.done() for t in narrow)
    lv.leave(4)
    await asyncio.gather(*narrow)


def test_newcomers_are_served_first_and_only_once() -> None:
    line: Round[str] = Round()
    line.join('a')
    line.served('a')
    line.join('b')
    assert line.first() == 'b'
    line.served('b')
    line.join('b')  # is an old one by now
    assert line.first() == 'a'
    line.drop('a')
    line.drop('b')
    assert not line


def test_hands_differ_and_stay() -> None:
    assert dealt('a', 64, 6) == dealt('a', 64, 6)
    assert len(set(dealt('a', 64, 6))) == 6
    assert dealt('a', 64, 6) != dealt('b', 64, 6)
    assert dealt('a', 2, 6) in ((0, 1), (1, 0))
    for name in range(300):
        hand = dealt(str(name), 9, 7)
        assert len(set(hand)) == 7
        assert set(hand) <= set(range(9))
    first = Counter(dealt(str(name), 9, 7)[-1] for name in range(9_000))
    assert all(800 <= first[queue] <= 1_200 for queue in range(9))


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
    full = world.server.fairness.levels['global-default']
    full.busy = full.limit = 1
    refused = await bob.get('/apis')
    assert (refused.status, refused.headers['Retry-After']) == (429, '1')
    assert refused.json['reason'] == 'TooManyRequests'
    assert refused.json['details'] == {'retryAfterSeconds': 1}
    assert refused.headers['X-Kubernetes-PF-PriorityLevel-UID'] == full.uid
    assert (await api.get('/apis')).status == 200
    metrics = (await api.get('/metrics')).text
    where = 'priority_level="global-default"'
    assert f'rejected_requests_total{{flow_schema="global-default",{where},reason="concurrency-limit"}} 1.0' in metrics
