"""From what the metrics ask for to what is done: stabilisation windows, rates, minimum and maximum. Pure.

Without `behavior` the older algorithm holds: up at most to twice as many (four from one), and never below the highest
recommendation of the last five minutes.
Source: pkg/controller/podautoscaler/horizontal.go (stabilizeRecommendation, convertDesiredReplicasWithRules, and their
namesakes with behaviors).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from kclient.model import Obj

DOWN_WINDOW_S = 300
UP_FACTOR, UP_LEAST = 2, 4
UP_POLICIES = (
    {'type': 'Percent', 'value': 100, 'periodSeconds': 15},
    {'type': 'Pods', 'value': 4, 'periodSeconds': 15},
)
DOWN_POLICIES = ({'type': 'Percent', 'value': 100, 'periodSeconds': 15},)
Verdict = tuple[str, str, str]
"""(status, reason, message) of a condition."""


@dataclass(slots=True)
class Past:
    """What is remembered of one autoscaler during a term of leadership."""

    recommendations: list[tuple[datetime, int]] = field(default_factory=list)
    ups: list[tuple[datetime, int]] = field(default_factory=list)
    """(when, replicas added)."""
    downs: list[tuple[datetime, int]] = field(default_factory=list)

    def begin(self, current: int, now: datetime) -> None:
        """What there is counts as recommended: somebody new to the job must not scale down at once."""
        if not self.recommendations:
            self.recommendations.append((now, current))

    def scaled(self, before: int, after: int, now: datetime, behavior: Obj) -> None:
        """Remember a change for as long as a policy asks for it."""
        if after > before:
            self.ups.append((now, after - before))
        else:
            self.downs.append((now, before - after))
        for events, side in ((self.ups, 'scaleUp'), (self.downs, 'scaleDown')):
            longest = max((int(p['periodSeconds']) for p in policies(behavior, side)), default=0)
            events[:] = [(at, n) for at, n in events if (now - at).total_seconds() <= longest]


def rules(behavior: Obj, side: str) -> Obj:
    return behavior.get(side) or {}


def policies(behavior: Obj, side: str) -> Sequence[Obj]:
    return rules(behavior, side).get('policies') or (UP_POLICIES if side == 'scaleUp' else DOWN_POLICIES)


def window_s(behavior: Obj, side: str) -> int:
    value = rules(behavior, side).get('stabilizationWindowSeconds')
    return int(value) if value is not None else (0 if side == 'scaleUp' else DOWN_WINDOW_S)


def stabilize(past: Past, behavior: Obj | None, current: int, desired: int, now: datetime) -> tuple[int, Verdict]:
    """Up only as far as the lowest, down only as far as the highest recommendation of the window."""
    plain, behavior = behavior is None, behavior or {}
    up_s, down_s = window_s(behavior, 'scaleUp'), window_s(behavior, 'scaleDown')
    ages = [((now - at).total_seconds(), n) for at, n in past.recommendations]
    lowest = min([desired, *(n for age, n in ages if age < up_s)])
    highest = max([desired, *(n for age, n in ages if age < down_s)])
    past.recommendations = [
        (at, n) for at, n in past.recommendations if (now - at).total_seconds() < max(up_s, down_s)
    ] + [(now, desired)]  # fmt: skip
    stable = highest if plain else min(max(current, lowest), highest)
    if stable == desired:
        return stable, ('True', 'ReadyForNewScale', 'recommended size matches current size')
    if plain or desired < current:
        text = 'recent recommendations were higher than current one, applying the highest recent recommendation'
        return stable, ('True', 'ScaleDownStabilized', text)
    text = 'recent recommendations were lower than current one, applying the lowest recent recommendation'
    return stable, ('True', 'ScaleUpStabilized', text)


def limit(past: Past, spec: Obj, current: int, desired: int, now: datetime) -> tuple[int, Verdict]:
    """Within the rates of the policies, and within minReplicas and maxReplicas."""
    behavior = spec.get('behavior')
    low, high = int(spec.get('minReplicas', 1)), int(spec['maxReplicas'])
    if desired > current:
        rate = max(current, _up_limit(past, behavior, current, now))
        if desired > min(high, rate):
            if rate < high:
                text = 'the desired replica count is increasing faster than the maximum scale rate'
                return rate, ('True', 'ScaleUpLimit', text)
            return high, ('True', 'TooManyReplicas', 'the desired replica count is more than the maximum replica count')
    elif desired < current:
        rate = min(current, _down_limit(past, behavior or {}, current, now))
        if desired < max(low, rate):
            if rate > low:
                text = 'the desired replica count is decreasing faster than the maximum scale rate'
                return rate, ('True', 'ScaleDownLimit', text)
            return low, ('True', 'TooFewReplicas', 'the desired replica count is less than the minimum replica count')
    return desired, ('False', 'DesiredWithinRange', 'the desired count is within the acceptable range')


def _recent(events: Iterable[tuple[datetime, int]], period_s: int, now: datetime) -> int:
    return sum(n for at, n in events if (now - at).total_seconds() < period_s)


def _up_limit(past: Past, behavior: Obj | None, current: int, now: datetime) -> int:
    if behavior is None:
        return max(UP_FACTOR * current, UP_LEAST)
    proposals: list[int] = []
    for policy in policies(behavior, 'scaleUp'):
        period, value = int(policy['periodSeconds']), int(policy['value'])
        start = current - _recent(past.ups, period, now) + _recent(past.downs, period, now)
        # Whole hundredths, so that 10 % of 10 is 1 and not 1.0000000000000002.
        proposals.append(start + value if policy['type'] == 'Pods' else -(-start * (100 + value) // 100))
    return _select(rules(behavior, 'scaleUp'), proposals, current, most=max, least=min)


def _down_limit(past: Past, behavior: Obj, current: int, now: datetime) -> int:
    proposals: list[int] = []
    for policy in policies(behavior, 'scaleDown'):
        period, value = int(policy['periodSeconds']), int(policy['value'])
        start = current - _recent(past.ups, period, now) + _recent(past.downs, period, now)
        proposals.append(start - value if policy['type'] == 'Pods' else math.trunc(start * (100 - value) / 100))
    return _select(rules(behavior, 'scaleDown'), proposals, current, most=min, least=max)


def _select(side: Obj, proposals: list[int], current: int, **choose: object) -> int:
    chosen = side.get('selectPolicy') or 'Max'
    if chosen == 'Disabled':
        return current
    pick = choose['least'] if chosen == 'Min' else choose['most']
    assert callable(pick)
    return int(pick(proposals))
