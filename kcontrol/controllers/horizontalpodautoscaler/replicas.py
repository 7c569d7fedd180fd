"""How many replicas one metric asks for. Pure. All amounts in thousandths of the metric's unit.

Theory: replicas × (measured ÷ target), but only when the ratio is outside the tolerance. Pods that cannot be judged
(no metric, not ready yet) are assumed to speak against the change, and no change may flip its direction through them.
Source: pkg/controller/podautoscaler/replica_calculator.go, metrics/utilization.go.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from kclient.model import Obj
from kcore.meta import quantity
from kcore.meta.objects import deleting, get_condition, is_pod_ready, name_of
from kcore.meta.times import parse_time

CPU_INITIALIZATION_S = 300.0
READINESS_DELAY_S = 30.0
TOLERANCE = 0.1


class NoMetric(Exception):
    """A metric that cannot be computed; the text says why."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A pod's measurement."""

    value: int
    at: datetime
    window_s: float


@dataclass(frozen=True, slots=True)
class Groups:
    ready: int
    unready: frozenset[str]
    missing: frozenset[str]
    ignored: frozenset[str]


@dataclass(frozen=True, slots=True)
class Tolerances:
    """How far the ratio may be from 1 without a change."""

    up: float = TOLERANCE
    down: float = TOLERANCE

    def hold(self, ratio: float) -> bool:
        return 1.0 - self.down <= ratio <= 1.0 + self.up


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a metric asks for, and its figures for the status."""

    replicas: int
    average: int
    utilization: int | None = None


def group(pods: Iterable[Obj], samples: Mapping[str, Sample], *, cpu: bool, now: datetime) -> Groups:
    ready = 0
    unready: set[str] = set()
    missing: set[str] = set()
    ignored: set[str] = set()
    for pod in pods:
        name, phase = name_of(pod), (pod.get('status') or {}).get('phase')
        if deleting(pod) or phase == 'Failed':
            ignored.add(name)
        elif phase == 'Pending':
            unready.add(name)
        elif name not in samples:
            missing.add(name)
        elif cpu and _warming_up(pod, samples[name], now):
            unready.add(name)
        else:
            ready += 1
    return Groups(ready, frozenset(unready), frozenset(missing), frozenset(ignored))


def _warming_up(pod: Obj, sample: Sample, now: datetime) -> bool:
    """Start-up burns cpu that says nothing about the load."""
    condition, started = get_condition(pod, 'Ready'), (pod.get('status') or {}).get('startTime')
    if condition is None or not started:
        return True
    start, changed = parse_time(started), parse_time(condition['lastTransitionTime'])
    if start + timedelta(seconds=CPU_INITIALIZATION_S) > now:
        return condition.get('status') == 'False' or sample.at < changed + timedelta(seconds=sample.window_s)
    return condition.get('status') == 'False' and start + timedelta(seconds=READINESS_DELAY_S) > changed


def requests_of(pod: Obj, resource: str, container: str = '') -> int:
    """What the pod, or one container, asks for. Raises NoMetric when a container asks for nothing."""
    total = 0
    spec = pod.get('spec') or {}
    sidecars = [c for c in spec.get('initContainers') or () if c.get('restartPolicy') == 'Always']
    for c in [*(spec.get('containers') or ()), *sidecars]:
        if container and c.get('name') != container:
            continue
        amount = ((c.get('resources') or {}).get('requests') or {}).get(resource)
        if amount is None:
            raise NoMetric(f'missing request for {resource} in container {c.get("name")} of Pod {name_of(pod)}')
        total += quantity.milli(amount)
    return total


Measure = Callable[[Mapping[str, int]], tuple[float, Proposal]]
"""Values by pod → (ratio to the target, figures)."""


def by_utilization(requests: Mapping[str, int], target: int) -> Measure:
    """target: percent of the requests."""

    def measure(values: Mapping[str, int]) -> tuple[float, Proposal]:
        total, asked = sum(values.values()), sum(requests[name] for name in values if name in requests)
        if not asked:
            raise NoMetric('no metrics returned matched known pods')
        utilization = total * 100 // asked
        return utilization / target, Proposal(0, total // len(values), utilization)

    return measure


def by_average(target: int) -> Measure:
    def measure(values: Mapping[str, int]) -> tuple[float, Proposal]:
        average = sum(values.values()) // len(values)
        return average / target, Proposal(0, average)

    return measure


def propose(
    current: int, groups: Groups, samples: Mapping[str, Sample], measure: Measure,
    *, assumed: Mapping[str, int], tolerances: Tolerances,
) -> Proposal:  # fmt: skip
    """assumed: what a pod without a metric is taken to use when the others speak for fewer. Raises NoMetric."""
    values = {n: s.value for n, s in samples.items() if n not in groups.ignored | groups.unready}
    if not values:
        raise NoMetric('did not receive metrics for targeted pods (pods might be unready)')
    ratio, figures = measure(values)
    counts_unready = bool(groups.unready) and ratio > 1.0
    if not counts_unready and not groups.missing:
        replicas = current if tolerances.hold(ratio) else math.ceil(ratio * groups.ready)
        return Proposal(replicas, figures.average, figures.utilization)
    if ratio < 1.0:
        values |= {n: assumed.get(n, 0) for n in groups.missing}
    elif ratio > 1.0:
        values |= dict.fromkeys(groups.missing, 0)
    if counts_unready:
        values |= dict.fromkeys(groups.unready, 0)
    again, _ = measure(values)
    replicas = math.ceil(again * len(values))
    flipped = (ratio < 1.0 < again) or (again < 1.0 < ratio)
    backwards = (again < 1.0 and replicas > current) or (again > 1.0 and replicas < current)
    if tolerances.hold(again) or flipped or backwards:
        replicas = current
    return Proposal(replicas, figures.average, figures.utilization)


def by_total(current: int, pods: Iterable[Obj], usage: int, target: int, tolerances: Tolerances) -> Proposal:
    """An object's or external metric against a `value`: the ratio scales the ready pods."""
    ratio = usage / target
    if current == 0:
        return Proposal(math.ceil(ratio), usage)
    if tolerances.hold(ratio):
        return Proposal(current, usage)
    ready = sum(is_pod_ready(p) and (p.get('status') or {}).get('phase') == 'Running' for p in pods)
    return Proposal(math.ceil(ratio * ready), usage)


def by_share(current: int, status_replicas: int, usage: int, target: int, tolerances: Tolerances) -> Proposal:
    """The same against an `averageValue`: each replica takes its share of the total."""
    ratio = usage / (target * status_replicas) if status_replicas else math.inf
    replicas = current if tolerances.hold(ratio) else math.ceil(usage / target)
    return Proposal(replicas, usage // status_replicas if status_replicas else usage)
