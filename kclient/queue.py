"""The work queue of a controller: three sets, so that a key is never worked on twice at once and no change is lost.

Theory: a key is *queued* (waiting), *dirty* (needs work) or *processing*. Adding a key that is being processed marks it
dirty; `done` queues it again. Source of the idea: client-go util/workqueue/queue.go.
`ThreeSets` and `Delays` are pure; `WorkQueue` gives them a clock and sleepers.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from kcore.env import Env

K = TypeVar('K', bound=Hashable)

RETRY_BASE_S = 0.005
RETRY_CAP_S = 60.0
"""Longest pause between retries of one key."""
OVERALL_PER_S = 10.0
OVERALL_BURST = 100
"""Rate-limited adds of all keys together: this many at once, then OVERALL_PER_S."""


class ThreeSets(Generic[K]):
    """Pure core: which keys wait, which need work, which are in work."""

    def __init__(self) -> None:
        self._queue: deque[K] = deque()
        self._dirty: set[K] = set()
        self._processing: set[K] = set()

    def __len__(self) -> int:
        """Keys that a worker could take now."""
        return len(self._queue)

    @property
    def idle(self) -> bool:
        return not self._dirty and not self._processing

    def add(self, key: K) -> bool:
        """True when the key became takeable."""
        if key in self._dirty:
            return False
        self._dirty.add(key)
        if key in self._processing:
            return False
        self._queue.append(key)
        return True

    def take(self) -> K | None:
        """The next key, now processing; None when nothing waits."""
        if not self._queue:
            return None
        key = self._queue.popleft()
        self._dirty.discard(key)
        self._processing.add(key)
        return key

    def done(self, key: K) -> bool:
        """True when the key was added meanwhile and is takeable again."""
        self._processing.discard(key)
        if key in self._dirty:
            self._queue.append(key)
            return True
        return False

    def snapshot(self) -> dict[str, list[str]]:
        """Contents for debugging."""
        return {
            'queued': [str(k) for k in self._queue],
            'dirty': sorted(str(k) for k in self._dirty),
            'processing': sorted(str(k) for k in self._processing),
        }


class Delays(Generic[K]):
    """Pure core: keys with a due time; of two times for one key the earlier counts."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}
        self._serial = 0

    def __len__(self) -> int:
        return len(self._due)

    def add(self, key: K, at: float) -> None:
        known = self._due.get(key)
        if known is not None and known <= at:
            return
        self._due[key] = at
        self._serial += 1
        heapq.heappush(self._heap, (at, self._serial, key))

    def next_at(self) -> float | None:
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)  # superseded by an earlier time
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> list[K]:
        """Remove and return what is due, in order of time."""
        keys: list[K] = []
        while (at := self.next_at()) is not None and at <= now:
            key = heapq.heappop(self._heap)[2]
            del self._due[key]
            keys.append(key)
        return keys


class WorkQueue(Generic[K]):
    """`get` → work → `done`. Safe for many workers on one event loop.

    Unbounded, since it holds each key once and keys name objects that exist.
    """

    def __init__(self, env: Env, *, base_s: float = RETRY_BASE_S, cap_s: float = RETRY_CAP_S) -> None:
        self._env, self._base_s, self._cap_s = env, base_s, cap_s
        self._sets: ThreeSets[K] = ThreeSets()
        self._delays: Delays[K] = Delays()
        self._failures: dict[K, int] = {}
        self._bucket_at = 0.0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._queued_at: dict[K, float] = {}
        self._taken_at: dict[K, float] = {}
        self.on_take: Callable[[float], None] = lambda waited_s: None
        """Called with the seconds that a key waited to be taken."""
        self.adds = 0
        """Keys that became takeable, ever."""
        self.retries = 0

    def __len__(self) -> int:
        return len(self._sets)

    @property
    def idle(self) -> bool:
        """Nothing queued, in work or delayed."""
        return self._sets.idle and not len(self._delays)

    @property
    def busy(self) -> bool:
        """Something is queued or in work (what is delayed does not count)."""
        return not self._sets.idle

    def add(self, key: K) -> None:
        if self._sets.add(key):
            self._became_takeable(key)

    def add_after(self, key: K, seconds: float) -> None:
        if seconds <= 0:
            self.add(key)
            return
        self._delays.add(key, self._env.clock.monotonic() + seconds)
        self._arm()

    def add_rate_limited(self, key: K, *, shared: bool = True) -> None:
        """Add after a pause that doubles with each failure of `key` since `forget`.

        shared: also wait for the bucket of all keys; False for a conflict, which says nothing about the server.
        """
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self.retries += 1
        own = min(self._cap_s, self._base_s * 2 ** min(failures, 40))
        self.add_after(key, max(own, self._overall()) if shared else own)

    def failures(self, key: K) -> int:
        """Failures of `key` since it was forgotten."""
        return self._failures.get(key, 0)

    def forget(self, key: K) -> None:
        self._failures.pop(key, None)

    async def get(self) -> K:
        """The next key; waits for one."""
        while True:
            key = self._sets.take()
            if key is not None:
                now = self._env.clock.monotonic()
                self._taken_at[key] = now
                self.on_take(now - self._queued_at.pop(key, now))
                return key
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
                elif len(self._sets):
                    self._wake()  # the wake-up was ours; pass it on
                raise

    def done(self, key: K) -> None:
        """Must follow every `get`."""
        self._taken_at.pop(key, None)
        if self._sets.done(key):
            self._became_takeable(key)

    def _became_takeable(self, key: K) -> None:
        self.adds += 1
        self._queued_at[key] = self._env.clock.monotonic()
        self._wake()

    def in_work_s(self) -> list[float]:
        """For how long each key that is being worked on has been so."""
        now = self._env.clock.monotonic()
        return [now - at for at in self._taken_at.values()]

    def snapshot(self) -> dict[str, object]:
        """Contents for debugging."""
        return {**self._sets.snapshot(), 'delayed': len(self._delays), 'failing': len(self._failures)}

    def close(self) -> None:
        """Stop the timer; the queue must not be used afterwards."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _overall(self) -> float:
        """Pause that the bucket shared by all keys asks for."""
        now = self._env.clock.monotonic()
        self._bucket_at = max(self._bucket_at, now - OVERALL_BURST / OVERALL_PER_S) + 1 / OVERALL_PER_S
        return max(0.0, self._bucket_at - now)

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _arm(self) -> None:
        at = self._delays.next_at()
        if at is None or (self._timer is not None and self._timer_at <= at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = asyncio.get_running_loop().call_later(max(0.0, at - self._env.clock.monotonic()), self._fire)

    def _fire(self) -> None:
        self._timer = None
        for key in self._delays.due(self._env.clock.monotonic()):
            self.add(key)
        self._arm()
