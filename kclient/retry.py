"""Changing an object that others change too.

Source: client-go util/retry (`RetryOnConflict` with its default of five attempts, 10 ms apart).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from kclient.api import Client
from kclient.errors import Conflict, NotFound, failure
from kclient.model import Obj
from kcore.backoff import Backoff
from kcore.env import Env
from kcore.meta.gvk import Resource

ATTEMPTS = 5
PAUSE_S = 0.01

T = TypeVar('T')


async def retry_on_conflict(env: Env, attempt: Callable[[], Awaitable[T]]) -> T:
    """What `attempt()` returns; while it raises Conflict it runs again, so it must read anew what it changes.

    Raises the Conflict of the last of ATTEMPTS, and at once whatever else `attempt` raises.
    """
    pause = Backoff(PAUSE_S, PAUSE_S, env.rng)
    for _ in range(ATTEMPTS - 1):
        try:
            return await attempt()
        except Conflict:
            await asyncio.sleep(pause.next())
    return await attempt()


async def change(
    client: Client, r: Resource, obj: Obj, make: Callable[[Obj], Obj | None], *, subresource: str | None = None
) -> Obj:
    """Merge the patch that `make(present object)` asks for into exactly the version that it saw; None: leave it be.

    Begins with `obj`, as a cache may have it; on a conflict it is read anew. Returns the object as it then is.
    Raises NotFound when it is gone or a namesake took its place, Conflict when it never stood still.
    """
    held: list[Obj] = [obj]

    async def attempt() -> Obj:
        if not held:
            held.append(await _same(client, r, obj))
        seen = held.pop()
        patch = make(seen)
        if patch is None:
            return seen
        meta = seen['metadata']
        pins = {'uid': meta['uid'], 'resourceVersion': meta['resourceVersion']}
        body = {**patch, 'metadata': {**(patch.get('metadata') or {}), **pins}}
        return await client.patch(r, meta['name'], body, meta.get('namespace'), subresource=subresource)

    return await retry_on_conflict(client.env, attempt)


async def _same(client: Client, r: Resource, obj: Obj) -> Obj:
    meta = obj['metadata']
    found = await client.get(r, meta['name'], meta.get('namespace'))
    if found['metadata']['uid'] != meta['uid']:
        raise NotFound(failure(404, 'NotFound', f'{r.plural} {meta["name"]!r} was replaced by another of its name'))
    return found
