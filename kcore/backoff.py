"""Exponential back-off with jitter, as data: the caller sleeps."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass(slots=True)
class Backoff:
    """Delays `base_s`, `base_s × factor`, … up to `cap_s`, each stretched by up to `jitter` of itself."""

    base_s: float
    cap_s: float
    rng: random.Random
    factor: float = 2.0
    jitter: float = 0.1
    attempts: int = field(default=0, init=False)
    """Failures since the last `reset`."""

    def next(self) -> float:
        """Seconds to wait before the next attempt; counts one failure."""
        # The exponent is capped so that a long outage cannot overflow a float.
        delay = min(self.cap_s, self.base_s * self.factor ** min(self.attempts, 64))
        self.attempts += 1
        return delay * (1.0 + self.jitter * self.rng.random())

    def reset(self) -> None:
        self.attempts = 0
