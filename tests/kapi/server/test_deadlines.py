"""Deadlines of many requests on one timer."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

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


@pytest.mark.parametrize('user', [True, False])
async def test_a_body_that_never_comes_whole_ends_with_the_request(serve: Any, authority: Any, user: bool) -> None:
    """Also for somebody unknown, who is refused before anybody reads it."""
    async with serve(request_timeout_s=0.3) as world, asyncio.timeout(20):
        tls = ssl.create_default_context(cafile=str(authority.directory / 'ca.crt'))
        if user:
            tls.load_cert_chain(*authority.issue('slow', 'admin', 'system:masters'))
        reader, writer = await asyncio.open_connection('localhost', int(world.base.rpartition(':')[2]), ssl=tls)
        writer.write(
            b'POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n'
            b'Content-Length: 100\r\n\r\n{'
        )
        assert (await reader.readline()).split()[1] == (b'504' if user else b'403')
        writer.close()
