"""Compaction that nobody asked for, in virtual time: by age and by count."""

from __future__ import annotations

import asyncio
from typing import Any

from kstore.mvcc.store import Store
from tests.sim.kstore.store_world import StoreWorld


def run(seconds: int, per_second: int, **options: Any) -> tuple[Store, list[int]]:
    """One member under steady writes; returns its store and its revision at each second."""
    world = StoreWorld(2, members=1, faults=())
    world.options |= options
    revisions: list[int] = []
    stores: list[Store] = []

    async def main() -> None:
        world.start(world.machines[0])
        async with world.client() as client:
            for second in range(seconds):
                await asyncio.gather(*(client.put(b'/k%d' % n, b'%d' % second) for n in range(per_second)))
                revisions.append(await client.revision())
                await asyncio.sleep(1.0)
            member = world.machines[0].member
            assert member is not None
            stores.append(member.store)

    world.world.run(main())
    return stores[0], revisions


def test_revisions_older_than_the_age_are_compacted_and_younger_ones_are_not() -> None:
    store, revisions = run(110, 40, compact_age_s=40)
    assert revisions[30] < store.compacted <= revisions[-40]


def test_only_so_many_revisions_are_kept() -> None:
    store, revisions = run(45, 10, compact_age_s=0, compact_count=100)
    assert revisions[-1] - 350 < store.compacted <= revisions[-1] - 100


def test_without_age_and_count_everything_is_kept() -> None:
    store, _ = run(30, 50, compact_age_s=0, compact_count=0)
    assert store.compacted == 0
