"""Changing a running cluster: members come and go, leadership moves, everything is backed up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kstore.client import StoreClient
from kstore.errors import BadRequest, Refused

Stores = Callable[..., Awaitable[Any]]


async def eventually(check: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await check():
            await asyncio.sleep(0.02)


async def until(client: StoreClient, field: str, holds: Callable[[Any], bool]) -> None:
    """Until the member we are connected to says so."""

    async def check() -> bool:
        return holds((await client.status())[field])

    await eventually(check)


async def promote(client: StoreClient, member: int) -> None:
    """As soon as the learner is in sync."""

    async def promoted() -> bool:
        try:
            await client.member_promote(member)
        except Refused:  # not in sync yet
            return False
        return True

    await eventually(promoted)


async def test_a_member_joins_as_a_learner_is_promoted_and_removed(stores: Stores):
    store = await stores(3)
    client = await store.client()
    for n in range(50):
        await client.put(b'/%d' % n, b'x')
    address = store.add(4)
    await client.member_add(4, address)
    await until(client, 'members', lambda members: members.get(4) == address)
    await until(client, 'learners', lambda learners: learners == [4])
    await store.start(4, join=True)
    await promote(client, 4)
    await until(client, 'voters', lambda voters: voters == [1, 2, 3, 4])
    joined = await store.client(endpoints=[store.endpoints[3]], follow_leader=False)
    assert (await joined.range(b'/', b'0', count_only=True)).count == 50
    leader = (await client.status())['leader']
    gone = next(m for m in (1, 2, 3) if m != leader)
    await client.member_remove(gone)
    await until(client, 'members', lambda members: gone not in members)
    await store.kill(gone)
    await client.put(b'/after', b'x')
    await store.kill(4)  # and comes back knowing whom there is
    await store.start(4, join=True)
    joined = await store.client(endpoints=[store.endpoints[3]], follow_leader=False)
    assert (await joined.get(b'/after')).kv is not None
    assert gone not in (await joined.status())['members']


async def test_a_removed_leader_leaves_its_address_to_its_successor(stores: Stores):
    store = await stores(3)
    first = await store.client()
    await until(first, 'leader', bool)
    leader = (await first.status())['leader']
    client = await store.client(endpoints=[e for m, e in enumerate(store.endpoints, 1) if m != leader])

    async def removed() -> bool:
        try:
            await client.member_remove(leader)
        except Refused:  # it leads until it has handed over
            return False
        return True

    await eventually(removed)
    await until(client, 'voters', lambda voters: leader not in voters)
    await client.member_add(4, store.addresses[leader])
    await until(client, 'members', lambda members: members.get(4) == store.addresses[leader] and leader not in members)


async def test_changes_that_make_no_sense_are_refused(stores: Stores):
    store = await stores(3)
    client = await store.client()
    with pytest.raises(Refused, match='3 is a member already'):
        await client.member_add(3, '127.0.0.1:1')
    with pytest.raises(Refused, match='another member has the address'):
        await client.member_add(4, store.addresses[1])
    with pytest.raises(BadRequest, match='HOST:PORT'):
        await client.member_add(4, 'nowhere')
    with pytest.raises(Refused, match='9 is no learner'):
        await client.member_promote(9)
    with pytest.raises(Refused, match='9 is no member'):
        await client.member_remove(9)
    with pytest.raises(Refused, match='no voter'):
        await client.move_leader(9)
    leader = (await client.status())['leader']
    others = [m for m in (1, 2, 3) if m != leader]
    await store.kill(others[0])
    at_leader = await store.client(endpoints=[store.endpoints[leader - 1]], follow_leader=False)
    await until(at_leader, 'active', lambda active: others[0] not in active)
    with pytest.raises(Refused, match='unhealthy cluster'):
        await client.member_remove(others[1])


async def test_leadership_moves_where_it_is_sent(stores: Stores):
    store = await stores(3)
    client = await store.client()
    await client.put(b'/a', b'1')
    leader = (await client.status())['leader']
    target = leader % 3 + 1
    await client.move_leader(target)
    await until(client, 'leader', lambda leader: leader == target)
    await client.put(b'/a', b'2')
