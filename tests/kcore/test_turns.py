"""A few have their turn at a time, and nobody waits for one that hangs."""

from __future__ import annotations

import asyncio

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
