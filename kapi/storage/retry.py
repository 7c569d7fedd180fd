"""The optimistic loops of update and delete, shared by every driver: read, decide, write if unchanged, again.

A driver supplies three primitives: a fresh read, a conditional put and a conditional delete. Each conditional
primitive answers with the written revision, or None when the value had changed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from kapi.storage.base import CONFLICT_RETRIES_MAX, Change, Check, RevisionConflict, Versioned

Read = Callable[[str], Awaitable[Versioned]]
PutIf = Callable[[Versioned, bytes], Awaitable[int | None]]
DeleteIf = Callable[[Versioned], Awaitable[int | None]]


async def update_loop(key: str, change: Change, origin: Versioned | None, read: Read, put_if: PutIf) -> Versioned:
    """Raises KeyMissing (from `read`), RevisionConflict, and whatever `change` raises on a fresh value."""
    current, fresh = (origin, False) if origin is not None else (await read(key), True)
    for _ in range(CONFLICT_RETRIES_MAX):
        try:
            value = await change(current)
        except Exception:
            if fresh:
                raise
            # A refusal founded on a stale value proves nothing; unless the value was current after all.
            latest = await read(key)
            if latest.rv == current.rv:
                raise
            current, fresh = latest, True
            continue
        if value == current.value:
            if fresh:
                return current
            latest = await read(key)
            if latest.rv == current.rv:
                return current
            current, fresh = latest, True
            continue
        rv = await put_if(current, value)
        if rv is not None:
            return Versioned(key, value, rv)
        current, fresh = await read(key), True
    raise RevisionConflict(f'{key} kept changing')


async def delete_loop(
    key: str, check: Check | None, origin: Versioned | None, read: Read, delete_if: DeleteIf
) -> Versioned:
    """Raises KeyMissing (from `read`), RevisionConflict, and whatever `check` raises on a fresh value."""
    current, fresh = (origin, False) if origin is not None else (await read(key), True)
    for _ in range(CONFLICT_RETRIES_MAX):
        try:
            if check is not None:
                check(current)
        except Exception:
            if fresh:
                raise
            current, fresh = await read(key), True
            continue
        rv = await delete_if(current)
        if rv is not None:
            return Versioned(key, current.value, rv)
        current, fresh = await read(key), True
    raise RevisionConflict(f'{key} kept changing')
