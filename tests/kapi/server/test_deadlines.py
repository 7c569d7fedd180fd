"""Deadlines of many requests on one timer."""

from __future__ import annotations

import asyncio

import pytest

from kapi.server.deadlines import Deadlines


async def held(deadlines: Deadlines, limit_s: float) -> None:
    async with asyncio.timeout(None) as timeout:
        deadlines.add(timeout, limit_s)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            deadlines.drop(timeout)


async def test_a_deadline_strikes_its_own_request_whatever_the_order_they_came_in() -> None:
    deadlines = Deadlines()
    loop = asyncio.get_running_loop()
    long = loop.create_task(held(deadlines, 3_600))
    short = [loop.create_task(held(deadlines, limit)) for limit in (0.02, 0.01, 0.03)]
    await asyncio.wait(short)
    for task in short:
        with pytest.raises(TimeoutError):
            task.result()
    assert not long.done()
    long.cancel()
    await asyncio.wait([long])
    deadlines.close()


async def test_a_request_that_has_ended_is_not_struck() -> None:
    deadlines = Deadlines()
    async with asyncio.timeout(None) as ended:
        deadlines.add(ended, 0.01)
        deadlines.drop(ended)
        with pytest.raises(TimeoutError):
            await held(deadlines, 0.02)
    assert not ended.expired()
    deadlines.close()
