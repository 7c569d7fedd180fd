"""The three-set work queue under shuffled schedules."""

from __future__ import annotations

import asyncio
import random

from hypothesis import given
from hypothesis import strategies as st

from kclient.queue import Delays, ThreeSets, WorkQueue


def test_a_key_added_while_in_work_comes_back_exactly_once():
    sets: ThreeSets[str] = ThreeSets()
    assert sets.add('a')
    assert not sets.add('a')
    assert sets.take() == 'a'
    assert not sets.add('a')
    assert not sets.add('a')
    assert sets.take() is None
    assert sets.done('a')
    assert sets.take() == 'a'
    assert not sets.done('a')
    assert sets.idle


@given(st.lists(st.tuples(st.sampled_from(['add', 'take', 'done']), st.integers(0, 3)), max_size=120))
def test_no_key_is_in_work_twice_and_no_addition_is_lost(steps):
    sets: ThreeSets[int] = ThreeSets()
    working: set[int] = set()
    owed: set[int] = set()
    for step, key in steps:
        if step == 'add':
            sets.add(key)
            owed.add(key)
        elif step == 'take':
            taken = sets.take()
            if taken is not None:
                assert taken not in working
                working.add(taken)
                owed.discard(taken)
        elif key in working:
            working.discard(key)
            sets.done(key)
    for key in working:
        sets.done(key)
    while (taken := sets.take()) is not None:
        owed.discard(taken)
        sets.done(taken)
    assert not owed
    assert sets.idle


def test_of_two_due_times_the_earlier_counts():
    delays: Delays[str] = Delays()
    delays.add('a', 10)
    delays.add('b', 7)
    delays.add('a', 5)
    delays.add('a', 20)
    assert delays.next_at() == 5
    assert delays.due(7) == ['a', 'b']
    assert delays.due(100) == []
    assert delays.next_at() is None


async def test_two_hundred_shuffled_schedules_never_work_a_key_twice_at_once(env):
    for seed in range(200):
        rng, queue = random.Random(seed), WorkQueue[int](env)
        working: set[int] = set()
        state = dict.fromkeys(range(4), 0)
        seen = dict(state)

        async def worker(queue=queue, rng=rng, working=working, state=state, seen=seen):
            while True:
                key = await queue.get()
                assert key not in working
                working.add(key)
                version = state[key]
                for _ in range(rng.randrange(3)):
                    await asyncio.sleep(0)
                seen[key] = version
                working.discard(key)
                queue.done(key)

        workers = [asyncio.ensure_future(worker()) for _ in range(3)]
        for _ in range(30):
            key = rng.randrange(4)
            state[key] += 1
            queue.add(key)
            if rng.random() < 0.3:
                await asyncio.sleep(0)
        while queue.busy:
            await asyncio.sleep(0)
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        assert seen == state


async def test_failures_of_a_key_double_its_pause_until_it_is_forgotten(env):
    queue: WorkQueue[str] = WorkQueue(env, base_s=1.0)
    for expected in (1, 2, 3):
        queue.add_rate_limited('a')
        assert queue.failures('a') == expected
    queue.forget('a')
    assert queue.failures('a') == 0
    queue.close()


async def test_a_cancelled_getter_passes_its_wake_up_on(env):
    queue: WorkQueue[str] = WorkQueue(env)
    first, second = asyncio.ensure_future(queue.get()), asyncio.ensure_future(queue.get())
    await asyncio.sleep(0)
    queue.add('a')
    first.cancel()
    assert await second == 'a'


async def test_a_delayed_key_arrives_when_due(env):
    queue: WorkQueue[str] = WorkQueue(env)
    queue.add_after('late', 0.02)
    queue.add_after('now', 0)
    assert await queue.get() == 'now'
    assert await queue.get() == 'late'


async def test_conflicts_do_not_use_up_what_failures_of_all_keys_share(env):
    queue: WorkQueue[int] = WorkQueue(env, base_s=0.001)
    for key in range(2000):
        queue.add_rate_limited(key, shared=False)
    async with asyncio.timeout(5):
        assert len({await queue.get() for _ in range(2000)}) == 2000
