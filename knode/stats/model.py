"""Readings, and the rates between them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

NS = 1_000_000_000
WINDOW_MIN_S = 1.0
"""A rate over less would be noise: the kernel counts CPU time in hundredths of a second."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters at one moment, as they were found."""

    at: datetime
    monotonic_s: float
    cpu_ns: int
    memory_bytes: int
    processes: int = 0


@dataclass(frozen=True, slots=True)
class Use:
    """A reading with its rate."""

    at: datetime
    cpu_ns: int
    """Since the beginning; never less than before."""
    memory_bytes: int
    processes: int
    nano_cores: int | None = None
    """None until there are two readings."""
    window_s: float = 0.0
    """What `nano_cores` is the average of."""


class Meter:
    """One counter over time. CPU time of processes that ended unseen is not taken back from the total."""

    def __init__(self, begun_s: float | None = None) -> None:
        """begun_s:  monotonic second at which the counter was zero; None: unknown."""
        self._last = None if begun_s is None else (begun_s, 0)
        self._raw_ns = self._lost_ns = 0
        self._rate: tuple[int | None, float] = (None, 0.0)

    def add(self, reading: Reading) -> Use:
        self._lost_ns += max(0, self._raw_ns - reading.cpu_ns)
        self._raw_ns = reading.cpu_ns
        total = self._lost_ns + reading.cpu_ns
        window = reading.monotonic_s - self._last[0] if self._last else 0.0
        if self._last is None:
            self._last = (reading.monotonic_s, total)
        elif window >= WINDOW_MIN_S:
            self._rate = (int((total - self._last[1]) / window), window)
            self._last = (reading.monotonic_s, total)
        return Use(reading.at, total, reading.memory_bytes, reading.processes, *self._rate)


@dataclass(frozen=True, slots=True)
class ContainerUse:
    id: str
    name: str
    image: str
    started_ns: int
    use: Use


@dataclass(frozen=True, slots=True)
class PodUse:
    namespace: str
    name: str
    uid: str
    start_time: str
    containers: Sequence[ContainerUse]
    use: Use
    """Its containers together, with those that have ended."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything, from one pass."""

    node: Use
    agent: Use
    pods: Sequence[PodUse] = ()


def together(uses: Sequence[Use], at: datetime, retired_ns: int = 0) -> Use:
    """The sum. It has a rate as soon as one part has."""
    rates = [u.nano_cores for u in uses if u.nano_cores is not None]
    return Use(
        at, retired_ns + sum(u.cpu_ns for u in uses), sum(u.memory_bytes for u in uses),
        sum(u.processes for u in uses), sum(rates) if rates else None, max((u.window_s for u in uses), default=0.0),
    )  # fmt: skip
