"""The scheduling queue: active, backing off, or unschedulable until something relevant happens.

A pod that no node will take is not tried again and again: it waits until a `Happening` that its rejecting plugins
declared in `wakes`, and then still serves its back-off (1 s doubling to 10 s). Pods with scheduling gates wait outside.
Pure: time comes from the caller's clock. Source: KEP-4247 and kube-scheduler's three queues, without its per-plugin
hint functions (see docs/divergences.md).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from kcontrol.scheduler.framework import Happening
from kcontrol.scheduler.podinfo import PodInfo

BACKOFF_BASE_S = 1.0
BACKOFF_CAP_S = 10.0
UNSCHEDULABLE_MAX_S = 300.0
"""After this long an unschedulable pod is tried even if nothing relevant was seen: a net under missed wake-ups."""


class Place(Enum):
    ACTIVE = 'active'
    BACKOFF = 'backoff'
    UNSCHEDULABLE = 'unschedulable'
    GATED = 'gated'
    IN_FLIGHT = 'in flight'


@dataclass(slots=True)
class Entry:
    pod: PodInfo
    place: Place = Place.ACTIVE
    attempts: int = 0
    tried_at: float = 0.0
    rejected_by: frozenset[str] = frozenset()
    turn: int = 0
    """Increases with each change of place: heap items of an earlier turn are stale."""
    missed: set[Happening] = field(default_factory=set)
    """What happened while the pod was being tried."""


class SchedulingQueue:
    """Each pod is in exactly one place. `now` gives monotonic seconds."""

    def __init__(self, wakes: Mapping[str, frozenset[Happening]], now: Callable[[], float]) -> None:
        self._wakes, self._now = wakes, now
        self._entries: dict[str, Entry] = {}
        self._active: list[tuple[int, int, str]] = []
        self._backoff: list[tuple[float, int, str]] = []
        self._turns = 0
        self._in_flight: set[str] = set()

    def __len__(self) -> int:
        return len(self._entries)

    def place_of(self, uid: str) -> Place | None:
        entry = self._entries.get(uid)
        return entry.place if entry else None

    def counts(self) -> Mapping[Place, int]:
        found = dict.fromkeys(Place, 0)
        for entry in self._entries.values():
            found[entry.place] += 1
        return found

    def put(self, pod: PodInfo) -> None:
        """A new pod, or a new version of a waiting one. A change of the spec or labels is worth another try."""
        entry = self._entries.get(pod.uid)
        if entry is None:
            entry = self._entries[pod.uid] = Entry(pod)
            self._move(entry, Place.GATED if pod.gated else Place.ACTIVE)
            return
        old, entry.pod = entry.pod, pod
        if pod.gated:
            self._move(entry, Place.GATED)
        elif entry.place is Place.GATED:
            self._move(entry, Place.ACTIVE)
        elif _wants_changed(old, pod):
            if entry.place is Place.UNSCHEDULABLE:
                self._wake(entry)
            elif entry.place is Place.IN_FLIGHT:
                entry.missed.add(Happening.POD_UPDATE)
        if entry.place is Place.ACTIVE and old.priority != pod.priority:
            self._move(entry, Place.ACTIVE)

    def remove(self, uid: str) -> None:
        """Bound, deleted or finished; unknown ones are fine."""
        self._entries.pop(uid, None)
        self._in_flight.discard(uid)

    def pop(self) -> PodInfo | None:
        """The pod to try next: highest priority, then longest in line; None when none is ready."""
        self._release()
        while self._active:
            _, turn, uid = heapq.heappop(self._active)
            entry = self._entries.get(uid)
            if entry is None or entry.turn != turn or entry.place is not Place.ACTIVE:
                continue
            entry.place = Place.IN_FLIGHT
            entry.attempts += 1
            entry.tried_at = self._now()
            entry.missed.clear()
            self._in_flight.add(uid)
            return entry.pod
        return None

    def unfit(self, uid: str, plugins: frozenset[str]) -> None:
        """The pod in flight fits nowhere; `plugins` rejected it (empty: anything that happens may help)."""
        entry = self._landed(uid)
        if entry is None:
            return
        entry.rejected_by = plugins
        if any(self._relevant(entry, h) for h in entry.missed):
            self._move(entry, Place.BACKOFF)
        else:
            self._move(entry, Place.UNSCHEDULABLE)

    def retry(self, pod: PodInfo) -> None:
        """A pod whose attempt failed for a passing reason: again after its back-off."""
        entry = self._entries.setdefault(pod.uid, Entry(pod, tried_at=self._now(), attempts=1))
        entry.pod = pod
        self._in_flight.discard(pod.uid)
        self._move(entry, Place.GATED if pod.gated else Place.BACKOFF)

    def happened(self, what: Happening) -> None:
        """Wake the pods that `what` may help."""
        for uid in self._in_flight:
            self._entries[uid].missed.add(what)
        for entry in self._entries.values():
            if entry.place is Place.UNSCHEDULABLE and self._relevant(entry, what):
                self._wake(entry)

    def next_due(self) -> float | None:
        """When (monotonic seconds) `pop` may have something without further calls; None: never."""
        if self._active:
            return self._now()
        due = [self._backoff[0][0]] if self._backoff else []
        due += [e.tried_at + UNSCHEDULABLE_MAX_S for e in self._entries.values() if e.place is Place.UNSCHEDULABLE]
        return min(due, default=None)

    def _landed(self, uid: str) -> Entry | None:
        self._in_flight.discard(uid)
        return self._entries.get(uid)

    def _relevant(self, entry: Entry, what: Happening) -> bool:
        if what is Happening.POD_UPDATE or not entry.rejected_by:
            return True
        return any(what in self._wakes.get(name, ()) for name in entry.rejected_by)

    def _wake(self, entry: Entry) -> None:
        due = self._due(entry) > self._now()
        self._move(entry, Place.BACKOFF if due else Place.ACTIVE)

    def _due(self, entry: Entry) -> float:
        return entry.tried_at + min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2.0 ** min(entry.attempts - 1, 16))

    def _move(self, entry: Entry, place: Place) -> None:
        self._turns += 1
        entry.turn, entry.place = self._turns, place
        if place is Place.ACTIVE:
            heapq.heappush(self._active, (-entry.pod.priority, entry.turn, entry.pod.uid))
        elif place is Place.BACKOFF:
            heapq.heappush(self._backoff, (self._due(entry), entry.turn, entry.pod.uid))

    def _release(self) -> None:
        """Move what is due to the active heap."""
        now = self._now()
        while self._backoff and self._backoff[0][0] <= now:
            _, turn, uid = heapq.heappop(self._backoff)
            entry = self._entries.get(uid)
            if entry is not None and entry.turn == turn and entry.place is Place.BACKOFF:
                self._move(entry, Place.ACTIVE)
        if self._active:
            return
        for entry in self._entries.values():
            if entry.place is Place.UNSCHEDULABLE and now - entry.tried_at >= UNSCHEDULABLE_MAX_S:
                self._move(entry, Place.ACTIVE)


def _wants_changed(old: PodInfo, new: PodInfo) -> bool:
    """Not a mere change of status, such as the condition that this scheduler writes itself."""
    return old.labels != new.labels or old.obj.get('spec') != new.obj.get('spec')
