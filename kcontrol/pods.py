"""Creating and deleting many pods with slow start, and telling the owner's events about it.

Theory: creations go out in batches of 1, 2, 4, …; a batch with a failure is the last one, so that a quota or a broken
admission is met once and not five hundred times. Source: pkg/controller/replicaset/replica_set.go (slowStartBatch).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from kclient.errors import ApiError, Conflict, Forbidden, NotFound
from kclient.model import Obj
from kcontrol.controller import Ctx
from kcore.meta.gvk import PODS
from kcore.meta.objects import key_of, name_of

PARALLEL_MAX = 50
"""Requests in flight for one owner."""


class Failed(Exception):
    """Some writes went wrong; `reason` is that of the owner's ReplicaFailure condition."""

    def __init__(self, reason: str, cause: ApiError) -> None:
        super().__init__(str(cause))
        self.reason, self.cause = reason, cause


async def create_pods(c: Ctx, owner: Obj, pods: Sequence[Obj]) -> list[Obj]:
    """Create with slow start. Raises Failed after the batch in which a creation failed."""
    made: list[Obj] = []

    async def create(pod: Obj) -> None:
        made.append(await _create(c, owner, pod))

    size = 1
    rest = list(pods)
    while rest:
        batch, rest = rest[:size], rest[size:]
        errors = await _all([lambda p=p: create(p) for p in batch])  # type: ignore[misc]
        if errors:
            # A namespace that goes away takes the owner with it: nothing to report, nothing to retry.
            if all(e.has_cause('NamespaceTerminating') for e in errors):
                return made
            raise Failed('FailedCreate', errors[0])
        size = min(size * 2, PARALLEL_MAX)
    return made


async def _create(c: Ctx, owner: Obj, pod: Obj) -> Obj:
    try:
        made = await c.create(PODS, pod, owner=key_of(owner))
    except ApiError as e:
        if not (isinstance(e, Forbidden) and e.has_cause('NamespaceTerminating')):
            c.event(owner, 'Warning', 'FailedCreate', f'Error creating: {e}')
        raise
    c.event(owner, 'Normal', 'SuccessfulCreate', f'Created pod: {name_of(made)}')
    return made


async def delete_pods(c: Ctx, owner: Obj, pods: Sequence[Obj]) -> None:
    """Delete all. Raises Failed when a deletion failed; a pod that is gone already is a success."""
    errors: list[ApiError] = []
    for at in range(0, len(pods), PARALLEL_MAX):
        batch = pods[at : at + PARALLEL_MAX]
        errors += await _all([lambda p=p: _delete(c, owner, p) for p in batch])  # type: ignore[misc]
    if errors:
        raise Failed('FailedDelete', errors[0])


async def _delete(c: Ctx, owner: Obj, pod: Obj) -> None:
    try:
        await c.delete(PODS, pod, owner=key_of(owner))
    except (NotFound, Conflict):
        return
    except ApiError as e:
        c.event(owner, 'Warning', 'FailedDelete', f'Error deleting: {e}')
        raise
    c.event(owner, 'Normal', 'SuccessfulDelete', f'Deleted pod: {name_of(pod)}')


async def _all(calls: Sequence[Callable[[], Awaitable[None]]]) -> list[ApiError]:
    """Run together, wait for all; ApiErrors are returned, everything else is raised."""
    errors: list[ApiError] = []

    async def one(call: Callable[[], Awaitable[None]]) -> None:
        try:
            await call()
        except ApiError as e:
            errors.append(e)

    await asyncio.gather(*(one(call) for call in calls))
    return errors
