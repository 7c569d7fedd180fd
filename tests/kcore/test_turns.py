"""A few have their turn at a time, and nobody waits for one that hangs."""

from __future__ import annotations

import asyncio

from kcore.sim import World
from kcore.turns import Turns


async def test_one_after_the_other_starts():
    turns, inside, most = Turns(at_once=2, patience_s=60), 0, 0

    async def begin():
        nonlocal inside, most
        async with turns.turn():
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(begin() for _ in range(7)))
    assert most == 2


async def test_nobody_waits_for_ever_for_who_does_not_end():
    turns = Turns(at_once=1, patience_s=0.01)
    async with turns.turn(), turns.turn(), turns.turn():
        pass
    async with turns.turn():  # and what was given back is there
        assert turns._free.locked()
    assert not turns._free.locked()


def test_who_hangs_for_longer_than_one_is_patient_holds_up_nobody_who_comes_later():
    async def scenario() -> None:
        clock, turns, started = asyncio.get_running_loop().time, Turns(at_once=2, patience_s=1.0), 0

        async def hang() -> None:
            nonlocal started
            async with turns.turn():
                started += 1
                await asyncio.sleep(60)

        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(hang())
            await asyncio.sleep(1.0)
            assert started == 2
            came = clock()
            for _ in range(5):
                async with turns.turn():
                    assert clock() == came
        assert turns._free._value == 2, 'what was written off is not given back again'

    World(1).run(scenario())
