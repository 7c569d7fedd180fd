"""Seats that are lent: how many a level asks for, and who gets how many. Pure.

Every level has its nominal seats. What it does not use of those that it may lend goes to levels that ask for more, in
proportion to what they ask for and within their own bounds, reckoned anew every few seconds.
Source: apiserver pkg/util/flowcontrol, KEP-1040 ("Dispatching with borrowing").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

ADJUSTMENT_S = 10.0
SMOOTHING = 0.977
"""How much of a lower demand is carried over for one adjustment (upstream's figure)."""
TARGET_MIN = 0.001
_STEPS = 100


class Demand:
    """Seats wanted over time, taken or waited for: average, deviation and highest since the last look."""

    __slots__ = ('_monotonic', '_since', '_squares', '_start', '_sum', 'average', 'deviation', 'high', 'highest',
                 'now', 'smoothed')  # fmt: skip

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._start = self._since = monotonic()
        self._sum = self._squares = 0.0
        self.now = self.highest = 0
        self.average = self.deviation = self.smoothed = 0.0
        self.high = 0
        """As the other figures: of the last whole period."""

    def note(self, seats: int, now: float = 0.0) -> None:
        """From now on so many are wanted; `now` is asked for when it is not given."""
        now = now or self._monotonic()
        took, was = now - self._since, self.now
        self._since = now
        self._sum += took * was
        self._squares += took * was * was
        self.now = seats
        self.highest = max(self.highest, seats)

    def look(self) -> None:
        """End the period: its figures are kept, the next one begins."""
        self.note(self.now)
        if (took := self._since - self._start) > 0:
            self.average = self._sum / took
            self.deviation = math.sqrt(max(0.0, self._squares / took - self.average**2))
        self.high, self.highest = self.highest, self.now
        self._start, self._sum, self._squares = self._since, 0.0, 0.0
        envelope = self.average + self.deviation
        self.smoothed = max(envelope, SMOOTHING * self.smoothed + (1 - SMOOTHING) * envelope)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a level must have, may have, and asks for, in seats."""

    lower: float
    upper: float
    target: float


def share_out(total: int, claims: Sequence[Claim]) -> tuple[list[float], float]:
    """(seats of each, the fraction of its target that a level within its bounds gets); they add up to `total`.

    When the bounds do not allow that, everybody gets the bound that is nearest.
    """
    targets = [max(c.target, TARGET_MIN) for c in claims]

    def at(fraction: float) -> list[float]:
        return [min(max(fraction * t, c.lower), c.upper) for t, c in zip(targets, claims, strict=True)]

    low = 0.0
    high = max((c.upper / t for t, c in zip(targets, claims, strict=True)), default=0.0)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if sum(at(middle)) < total:
            low = middle
        else:
            high = middle
    return at(high), high
