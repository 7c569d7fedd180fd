"""How long something took, counted in buckets: cheap enough for the path of every write."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

BOUNDS_S = tuple(0.001 * 2**n for n in range(14))
"""Upper bounds of the buckets, 1 ms to 8.2 s: those of etcd's histograms of its disk."""


class Durations:
    """A histogram."""

    __slots__ = ('_counts', 'total_s')

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self.total_s = 0.0

    def add(self, seconds: float) -> None:
        self._counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.total_s += seconds

    def cumulative(self) -> Iterator[tuple[str, float]]:
        """(upper bound, how many took no longer), as Prometheus wants it; the last bound is infinite."""
        total = 0
        for bound, count in zip((*map(str, BOUNDS_S), '+Inf'), self._counts, strict=True):
            total += count
            yield bound, float(total)
