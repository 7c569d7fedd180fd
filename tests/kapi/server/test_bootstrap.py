"""The first objects, when several servers make them at once."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from kapi.storage.urls import open_storage


async def test_servers_that_start_together_on_an_empty_store_all_come_up(serve: Any, env: Any) -> None:
    for _ in range(3):
        storage = open_storage('memory://', env)
        async with contextlib.AsyncExitStack() as stack:
            worlds = await asyncio.gather(*(stack.enter_async_context(serve(storage)) for _ in range(3)))
            admin = await worlds[0].user('admin', 'system:masters')
            services = (await admin.get('/api/v1/services')).json['items']
            assert [s['metadata']['name'] for s in services] == ['kubernetes']
