"""What a controller wrote and its cache has not shown yet.

Theory: a reconcile that works from a cache older than its own last writes would create or delete twice. Every object
version has a cluster-wide increasing revision, so "has the cache seen my write?" is a comparison: a created object is
seen when the cache holds it or is past its revision; a deletion is seen when the object is gone, replaced or marked.
Source of the problem: pkg/controller/controller_utils.go (counts of expected events). Differs: no event counting.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from kclient.model import Obj
from kcore.meta.objects import key_of

TIMEOUT_S = 300.0
"""An expectation that the cache never meets is dropped then: acting twice beats never acting again."""


class Cache(Protocol):
    """The part of an informer that expectations look at."""

    def get(self, key: str) -> Obj | None: ...


@dataclass(slots=True)
class _Expected:
    since: float
    created: dict[str, tuple[str, int]] = field(default_factory=dict)
    """uid → (key, revision)."""
    deleted: dict[str, str] = field(default_factory=dict)
    """uid → key."""


class Expectations:
    """Per owner key. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._expected: dict[str, _Expected] = {}
        self._written: dict[str, tuple[int, float]] = {}
        """Owner key → revision and time of the last write to the owner itself."""

    def __len__(self) -> int:
        return len(self._expected)

    def created(self, owner: str, obj: Obj, now: float) -> None:
        """Note an object as the server returned it."""
        meta = obj['metadata']
        self._of(owner, now).created[str(meta['uid'])] = (key_of(obj), int(meta['resourceVersion']))

    def deleted(self, owner: str, obj: Obj, now: float) -> None:
        """Note an object that the server agreed to delete."""
        self._of(owner, now).deleted[str(obj['metadata']['uid'])] = key_of(obj)

    def wrote(self, owner: str, obj: Obj, now: float) -> None:
        """Note the owner itself as the server returned it after a write."""
        self._written[owner] = int(obj['metadata']['resourceVersion']), now

    def shown(self, owner: str, cache: Cache, seen_revision: int, now: float) -> bool:
        """Whether the cache holds the owner as it was last written here, or something newer; forgets it then."""
        written = self._written.get(owner)
        if written is None:
            return True
        held = cache.get(owner)
        newest = max(seen_revision, int(held['metadata']['resourceVersion']) if held is not None else seen_revision)
        if held is not None and newest < written[0] and now - written[1] <= TIMEOUT_S:
            return False
        del self._written[owner]
        return True

    def satisfied(self, owner: str, cache: Cache, seen_revision: int, now: float) -> bool:
        """Whether the cache shows all that was written for `owner`; forgets what it shows."""
        expected = self._expected.get(owner)
        if expected is None or now - expected.since > TIMEOUT_S:
            self._expected.pop(owner, None)
            return True
        for uid, (key, revision) in [*expected.created.items()]:
            held = cache.get(key)
            if seen_revision >= revision or (held is not None and held['metadata'].get('uid') == uid):
                del expected.created[uid]
        for uid, key in [*expected.deleted.items()]:
            held = cache.get(key)
            if held is None or held['metadata'].get('uid') != uid or held['metadata'].get('deletionTimestamp'):
                del expected.deleted[uid]
        if expected.created or expected.deleted:
            return False
        del self._expected[owner]
        return True

    def _of(self, owner: str, now: float) -> _Expected:
        expected = self._expected.setdefault(owner, _Expected(now))
        expected.since = now
        return expected
