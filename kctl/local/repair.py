"""`kctl cluster replace store-N`: a new member in the place of one whose data are damaged or lost.

A member that lost what it promised must not come back under its old id: it might vote twice, or miss what it helped to
commit. So its place gets a new Raft id and an empty directory: the others remove the old id, take the new one in as a
learner, send it a snapshot, and promote it once it has caught up. Every step looks at the present state first, so that
the command can be given again after any interruption.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable

import psutil

from kcore.env import Env
from kctl.local.cluster import exclusive, supervisors
from kctl.local.components import Plan, name_of
from kctl.local.layout import ClusterError, Layout, join
from kctl.local.progress import Progress
from kctl.local.supervisor import running
from kstore.client import StoreClient
from kstore.errors import Refused, StoreError

ASK_TIMEOUT_S = 10.0
CATCH_UP_TIMEOUT_S = 300.0
"""A snapshot of a large store, read and written by one machine."""
POLL_S = 0.1


async def replace_member(layout: Layout, who: str, env: Env, progress: Progress) -> str:
    """Returns a sentence for the person. Raises ClusterError."""
    number = _number(layout, who)
    if not supervisors(layout, env):
        raise ClusterError('the cluster does not run; start it first: the other members bring the new one up to date.')
    others = [layout.address('store', n) for n in range(1, layout.stores + 1) if n != number]
    tls = Plan(layout, env).store_identity().client
    async with StoreClient(others, env, tls=tls, deadline_s=ASK_TIMEOUT_S) as client:
        try:
            await client.revision()
            before = layout.store_data(number)
            layout = await _exchange(client, layout, number, env)
            _restart(layout, who, env)
            await progress.wait(f'{who} catches up', _promoted(client, layout, number), timeout_s=CATCH_UP_TIMEOUT_S)
        except StoreError as e:
            raise ClusterError(f'the other members cannot replace {who}: {e}') from e
        except TimeoutError as e:
            raise ClusterError(f'{who} did not catch up in time; see {layout.log(who)}, then give this again.') from e
    kept = f' What it had before is kept in {before}.' if before != layout.store_data(number) else ''
    return f'{who} is member {layout.member(number)} now.{kept}'


def _number(layout: Layout, who: str) -> int:
    found = re.fullmatch(r'store-(\d+)', who)
    number = int(found[1]) if found else 0
    if not 1 <= number <= layout.stores:
        names = ', '.join(name_of('store', n) for n in range(1, layout.stores + 1))
        raise ClusterError(f'{who} is no member of the store; there are {names}.')
    if layout.stores == 1:
        raise ClusterError('a store of one member has nobody to copy from; restore a backup (kstore snapshot restore).')
    return number


async def _exchange(client: StoreClient, layout: Layout, number: int, env: Env) -> Layout:
    """The layout with the place's new id, which the others know as a learner and the disk remembers."""
    status = await client.status()
    voters, learners = set(status['voters']), set(status['learners'])
    mine = layout.member(number)
    if mine in voters or mine == number:  # else an earlier replacement was interrupted, and goes on
        with exclusive(layout, env):
            layout = layout.with_member(number, 1 + max(*voters, *learners, *layout.members, layout.stores))
            layout.save(env)
    address = join(layout.address('store', number))
    for member in voters | learners:
        if status['members'][member] == address and member != layout.member(number):
            await _agreed(client.member_remove, member)
    if layout.member(number) not in learners:
        await _agreed(client.member_add, layout.member(number), address)
    return layout


async def _agreed(change: Callable[..., Awaitable[None]], *words: int | str) -> None:
    """A leader that is to be removed refuses while it hands over, as does one that is busy with another change."""
    try:
        async with asyncio.timeout(ASK_TIMEOUT_S):
            while True:
                try:
                    return await change(*words)
                except Refused as e:
                    refusal = e
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise refusal from None


def _restart(layout: Layout, who: str, env: Env) -> None:
    """End the old one, if it runs; its supervisor starts the new one in its place."""
    process = running(layout, who, env)
    if process is not None:
        with contextlib.suppress(psutil.Error):
            process.kill()


async def _promoted(client: StoreClient, layout: Layout, number: int) -> None:
    member = layout.member(number)
    while member not in (await client.status())['voters']:
        with contextlib.suppress(StoreError):  # refused while it has not caught up
            await client.member_promote(member)
        await asyncio.sleep(POLL_S)
