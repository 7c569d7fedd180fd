"""A histogram in the making: plain numbers, cheap enough for the path of every write and request."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate


class Buckets:
    """Counts values by the least of the ascending `bounds` that they do not exceed; put in form when asked for."""

    __slots__ = ('_bounds', '_counts', 'total')

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        """Sum of the values."""

    def add_least(self, value: float) -> None:
        """One that is known to belong to the first bucket."""
        self._counts[0] += 1
        self.total += value

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def form(self) -> list[tuple[str, float]]:
        """(upper bound, number of values up to it), as Prometheus wants it; the last bound is infinite."""
        names = [*(f'{b:g}' for b in self._bounds), '+Inf']
        return list(zip(names, accumulate(self._counts), strict=True))
