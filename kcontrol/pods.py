"""Creating and deleting many pods with slow start, and telling the owner's events about it.

Theory: creations go out in batches of 1, 2, 4, …; a batch with a failure is the last one, so that a quota or a broken
admission is met once and not five hundred times. Source: pkg/controller/replicaset/replica_set.go (slowStartBatch).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from kclient.errors import AlreadyExists, ApiError, Conflict, Forbidden, NotFound
from kclient.model import Obj
from kcontrol.controller import Ctx
from kcore.meta.gvk import PODS
from kcore.meta.objects import key_of, name_of

PARALLEL_MAX = 50
"""Requests in flight for one owner."""


@dataclass(frozen=True, slots=True)
class Words:
    """Messages of the owner's events; `{name}` is the pod's, `{error}` what went wrong."""

    created: str = 'Created pod: {name}'
    not_created: str = 'Error creating: {error}'
    deleted: str = 'Deleted pod: {name}'
    not_deleted: str = 'Error deleting: {error}'
    expects_namesakes: bool = False
    """A pod of that name may still be there: no event."""


PLAIN = Words()


class Failed(Exception):
    """Some writes went wrong; `reason` is that of the owner's ReplicaFailure condition, `done` how many went right."""

    def __init__(self, reason: str, cause: ApiError, done: int = 0) -> None:
        super().__init__(str(cause))
        self.reason, self.cause, self.done = reason, cause, done


async def create_pods(c: Ctx, owner: Obj, pods: Sequence[Obj], words: Words = PLAIN) -> list[Obj]:
    """Create with slow start. Raises Failed after the batch in which a creation failed."""
    made: list[Obj] = []

    async def create(pod: Obj) -> None:
        made.append(await _create(c, owner, pod, words))

    size = 1
    rest = list(pods)
    while rest:
        batch, rest = rest[:size], rest[size:]
        errors = await _all([lambda p=p: create(p) for p in batch])  # type: ignore[misc]
        if errors:
            # A namespace that goes away takes the owner with it: nothing to report, nothing to retry.
            if all(e.has_cause('NamespaceTerminating') for e in errors):
                return made
            raise Failed('FailedCreate', errors[0], len(made))
        size = min(size * 2, PARALLEL_MAX)
    return made


async def _create(c: Ctx, owner: Obj, pod: Obj, words: Words) -> Obj:
    try:
        made = await c.create(PODS, pod, owner=key_of(owner))
    except ApiError as e:
        expected = isinstance(e, AlreadyExists) and words.expects_namesakes
        if not expected and not (isinstance(e, Forbidden) and e.has_cause('NamespaceTerminating')):
            name = pod['metadata'].get('name', '')
            c.event(owner, 'Warning', 'FailedCreate', words.not_created.format(name=name, error=e))
        raise
    c.event(owner, 'Normal', 'SuccessfulCreate', words.created.format(name=name_of(made)))
    return made


async def delete_pods(c: Ctx, owner: Obj, pods: Sequence[Obj], words: Words = PLAIN) -> None:
    """Delete all. Raises Failed when a deletion failed; a pod that is gone already is a success."""
    errors: list[ApiError] = []
    for at in range(0, len(pods), PARALLEL_MAX):
        batch = pods[at : at + PARALLEL_MAX]
        errors += await _all([lambda p=p: _delete(c, owner, p, words) for p in batch])  # type: ignore[misc]
    if errors:
        raise Failed('FailedDelete', errors[0])


async def _delete(c: Ctx, owner: Obj, pod: Obj, words: Words) -> None:
    try:
        await c.delete(PODS, pod, owner=key_of(owner))
    except (NotFound, Conflict):
        return
    except ApiError as e:
        c.event(owner, 'Warning', 'FailedDelete', words.not_deleted.format(name=name_of(pod), error=e))
        raise
    c.event(owner, 'Normal', 'SuccessfulDelete', words.deleted.format(name=name_of(pod)))


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
