"""Lock, election and barrier over one member."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kstore.model import Do
from kstore.recipes import Barrier, Election, Lock, LockLost, Session

Stores = Callable[..., Awaitable[Any]]


async def test_a_lock_is_held_by_one_in_order_with_growing_tokens(stores: Stores):
    client = await (await stores(1)).client()
    order: list[tuple[int, int]] = []
    inside = 0

    async def worker(n: int) -> None:
        nonlocal inside
        async with Session(client) as session, Lock(session, b'/locks/a') as token:
            inside += 1
            assert inside == 1
            order.append((n, token))
            await asyncio.sleep(0)
            inside -= 1

    async with asyncio.timeout(60):
        await asyncio.gather(*(worker(n) for n in range(6)))
    tokens = [token for _, token in order]
    assert (len(order), tokens) == (6, sorted(set(tokens)))
    assert (await client.range(b'/locks/', b'/locks0', count_only=True)).count == 0


async def test_a_holder_whose_lease_ended_cannot_write_under_the_lock(stores: Stores):
    client = await (await stores(1)).client()
    async with Session(client) as first, Session(client) as second:
        lock = Lock(first, b'/locks/b')
        with pytest.raises(LockLost):
            await lock.guard([(Do.PUT, b'/data', b'never held')])
        await lock.acquire()
        await lock.guard([(Do.PUT, b'/data', b'1')])
        waiting = asyncio.ensure_future(Lock(second, b'/locks/b').acquire())
        await client.lease_revoke(first.lease)
        async with asyncio.timeout(60):
            token = await waiting
        assert token > lock.token
        with pytest.raises(LockLost, match='not held'):
            await lock.guard([(Do.PUT, b'/data', b'2')])
        first.lost.set()  # its lease is gone already
    assert (await client.get(b'/data')).kv.value == b'1'


async def test_a_cancelled_waiter_leaves_its_place(stores: Stores):
    client = await (await stores(1)).client()
    async with Session(client) as first, Session(client) as second, Session(client) as third:
        lock = Lock(first, b'/locks/c')
        await lock.acquire()
        middle = asyncio.ensure_future(Lock(second, b'/locks/c').acquire())
        async with asyncio.timeout(60):
            while (await client.range(b'/locks/', b'/locks0', count_only=True)).count < 2:
                await asyncio.sleep(0.01)
            last = asyncio.ensure_future(Lock(third, b'/locks/c').acquire())
            middle.cancel()
            with pytest.raises(asyncio.CancelledError):
                await middle
            await lock.release()
            assert await last > 0


async def test_an_election_shows_its_leader_and_passes_on(stores: Stores):
    client = await (await stores(1)).client()
    async with asyncio.timeout(60), Session(client) as a, Session(client) as b:
        one, two = Election(a, b'/elections/e'), Election(b, b'/elections/e')
        assert await one.leader() is None
        first = await one.campaign(b'one')
        seen = two.observe()
        assert (await anext(seen)).value == b'one'
        await one.proclaim(b'one again')
        assert (await anext(seen)).value == b'one again'
        waiting = asyncio.ensure_future(two.campaign(b'two'))
        await one.resign()
        assert await waiting > first
        assert (await anext(seen)).value == b'two'
        await seen.aclose()
        with pytest.raises(LockLost):
            await one.proclaim(b'late')


async def test_a_barrier_holds_until_it_is_released(stores: Stores):
    client = await (await stores(1)).client()
    barrier = Barrier(client, b'/barrier')
    await barrier.wait()
    await barrier.hold()
    waiting = asyncio.ensure_future(barrier.wait())
    await client.get(b'/barrier')
    assert not waiting.done()
    await barrier.release()
    async with asyncio.timeout(60):
        await waiting


async def test_a_lock_and_a_barrier_that_were_taken_before_the_oldest_revision_can_be_waited_for(stores: Stores):
    client = await (await stores(1)).client()
    barrier = Barrier(client, b'/barrier')
    async with asyncio.timeout(60), Session(client) as first, Session(client) as second:
        lock = Lock(first, b'/locks/old')
        await lock.acquire()
        await barrier.hold()
        for n in range(5):
            await client.put(b'/other', b'%d' % n)
        await client.compact(await client.revision())
        waiting = [asyncio.ensure_future(barrier.wait()), asyncio.ensure_future(Lock(second, b'/locks/old').acquire())]
        while (await client.status())['watches'] < 2:
            await asyncio.sleep(0.01)
        assert not any(task.done() for task in waiting)
        await lock.release()
        await barrier.release()
        await asyncio.gather(*waiting)


async def test_a_waiter_whose_lease_ends_does_not_wait_for_the_holder(stores: Stores):
    client = await (await stores(1)).client()
    async with asyncio.timeout(60), Session(client) as first, Session(client) as second:
        await Lock(first, b'/locks/d').acquire()
        waiting = asyncio.ensure_future(Lock(second, b'/locks/d').acquire())
        while not (await client.status())['watches']:
            await asyncio.sleep(0.01)
        await client.lease_revoke(second.lease)
        second.lost.set()  # as the keeper does
        with pytest.raises(LockLost, match='while waiting'):
            await waiting
