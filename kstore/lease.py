"""Lease bookkeeping: who expires when, and what is deleted then.

Two halves. `LeaseBook` is replicated state: which leases exist, their TTL, the remaining time last checkpointed, and
the keys that hang on each; it knows no clock. `LeaseClock` lives on the leader only: deadlines by the monotonic clock,
one heap, renewals lazy (stale heap items are skipped). A new leader starts each lease at its checkpointed remaining
time, so a change of leader may lengthen a lease by at most the time since its last checkpoint, and never shortens it.
A renewal is not replicated, except that a lease which has a checkpoint on record, or on its way there, must first have
it withdrawn: else a later leader would count from the old, shorter figure.

Source: etcd server/lease/lessor.go; differs: etcd restarts TTLs in full unless checkpoints are switched on.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

TTL_S_MIN = 1
TTL_S_MAX = 9_000_000_000
LEASES_MAX = 100_000
"""Live leases; a grant beyond it is refused."""
EXPIRE_BATCH_MAX = 256
"""Leases ended by one log entry."""
CHECKPOINT_BATCH_MAX = 1_024
CHECKPOINT_S_MIN = 5.0
"""A lease is checkpointed when this much of its time, or a tenth of its TTL if that is longer, has passed."""


@dataclass(slots=True)
class Lease:
    id: int
    ttl_s: int
    remaining_s: int
    """By the last checkpoint; `ttl_s` without one."""
    keys: set[bytes] = field(default_factory=set)


class LeaseBook:
    """The replicated half."""

    def __init__(self) -> None:
        self._leases: dict[int, Lease] = {}

    def __len__(self) -> int:
        return len(self._leases)

    def __contains__(self, lease_id: int) -> bool:
        return lease_id in self._leases

    def get(self, lease_id: int) -> Lease | None:
        return self._leases.get(lease_id)

    def all(self) -> Iterable[Lease]:
        return self._leases.values()

    def grant(self, lease_id: int, ttl_s: int, remaining_s: int = 0) -> Lease:
        lease = self._leases[lease_id] = Lease(lease_id, ttl_s, remaining_s or ttl_s)
        return lease

    def revoke(self, lease_id: int) -> Lease | None:
        return self._leases.pop(lease_id, None)

    def attach(self, key: bytes, lease_id: int) -> bool:
        """Whether the key was not attached before. An unknown lease attaches nothing."""
        lease = self._leases.get(lease_id)
        if lease is None or key in lease.keys:
            return False
        lease.keys.add(key)
        return True

    def detach(self, key: bytes, lease_id: int) -> None:
        lease = self._leases.get(lease_id)
        if lease is not None:
            lease.keys.discard(key)


class LeaseClock:
    """The leader's half. `now` is `Env.clock.monotonic()` everywhere."""

    def __init__(self, book: LeaseBook) -> None:
        self._book = book
        self._deadlines: dict[int, float] = {}
        self._heap: list[tuple[float, int]] = []
        self.on_the_way: set[int] = set()
        """Leases whose checkpoint is proposed and not yet on record."""

    def promote(self, book: LeaseBook, now: float) -> None:
        """This member leads now: every lease has its remaining time ahead of it."""
        self._book = book
        self._deadlines = {lease.id: now + lease.remaining_s for lease in book.all()}
        self._heap = [(deadline, lease_id) for lease_id, deadline in self._deadlines.items()]
        heapq.heapify(self._heap)

    def demote(self) -> None:
        self._deadlines = {}
        self._heap = []

    def granted(self, lease: Lease, now: float) -> None:
        self._set(lease.id, now + lease.ttl_s)

    def forget(self, lease_id: int) -> None:
        self._deadlines.pop(lease_id, None)

    def renew(self, lease_id: int, now: float) -> int:
        """Push the deadline to `now` + TTL and return the TTL; 0 for a lease that is unknown or past its deadline.

        The deadline never moves backwards.
        """
        lease = self._book.get(lease_id)
        deadline = self._deadlines.get(lease_id)
        if lease is None or deadline is None or deadline <= now:
            return 0
        self._set(lease_id, max(deadline, now + lease.ttl_s))
        return lease.ttl_s

    def remaining(self, lease_id: int, now: float) -> float:
        """Seconds, not below 0; -1 for an unknown lease."""
        deadline = self._deadlines.get(lease_id)
        return -1.0 if deadline is None else max(0.0, deadline - now)

    def expired(self, now: float) -> list[int]:
        """Up to EXPIRE_BATCH_MAX leases past their deadline. They stay until `forget`: expiry is a log entry."""
        due: list[int] = []
        keep: list[tuple[float, int]] = []
        while self._heap and self._heap[0][0] <= now and len(due) < EXPIRE_BATCH_MAX:
            deadline, lease_id = heapq.heappop(self._heap)
            if self._deadlines.get(lease_id) == deadline:
                due.append(lease_id)
                keep.append((deadline, lease_id))
        for item in keep:
            heapq.heappush(self._heap, item)
        return due

    def next_deadline(self) -> float | None:
        while self._heap and self._deadlines.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def due_checkpoints(self, now: float) -> list[tuple[int, int]]:
        """`(lease, remaining seconds rounded up)` for leases whose recorded remaining time is too old."""
        due = []
        for lease_id, deadline in self._deadlines.items():
            lease = self._book.get(lease_id)
            if lease is None:
                continue
            left = int(max(0.0, deadline - now)) + 1
            if lease.remaining_s - left >= max(CHECKPOINT_S_MIN, lease.ttl_s / 10):
                due.append((lease_id, left))
                if len(due) == CHECKPOINT_BATCH_MAX:
                    break
        return due

    def needs_withdrawal(self, lease_ids: Sequence[int]) -> list[tuple[int, int]]:
        """Of these, the leases whose checkpoint must be withdrawn before a renewal is answered, as `(lease, TTL)`."""
        found = [lease for lease in map(self._book.get, lease_ids) if lease is not None]
        return [(e.id, e.ttl_s) for e in found if e.remaining_s < e.ttl_s or e.id in self.on_the_way]

    def _set(self, lease_id: int, deadline: float) -> None:
        self._deadlines[lease_id] = deadline
        heapq.heappush(self._heap, (deadline, lease_id))
        if len(self._heap) > 64 + 4 * len(self._deadlines):  # renewals left too many stale items behind
            self._heap = [(d, i) for i, d in self._deadlines.items()]
            heapq.heapify(self._heap)
