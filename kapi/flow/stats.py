"""Figures of priority and fairness under upstream's names, counted in plain numbers and put in form when asked for.

Source: apiserver pkg/util/flowcontrol/metrics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from kapi.flow.levels import Level
from kcore.buckets import Buckets

WAIT_BUCKETS_S = (0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0)
WIDTH_BUCKETS = (1.0, 2.0, 4.0, 10.0)
PREFIX = 'apiserver_flowcontrol_'
LEVEL = 'priority_level'
BY_SCHEMA = (LEVEL, 'flow_schema')


@dataclass(slots=True, eq=False)
class Stats:
    """What happened to the requests of one FlowSchema at one level."""

    schema: str
    level: str
    dispatched: int = 0
    unaccommodated: int = 0
    """Of those dispatched: had to wait."""
    refused: Counter[str] = field(default_factory=Counter)
    """By reason."""
    waiting: int = 0
    waiting_seats: int = 0
    executing: int = 0
    executing_seats: int = 0
    waits: Buckets = field(default_factory=lambda: Buckets(WAIT_BUCKETS_S))
    """Of those dispatched, in seconds."""
    lost_waits: Buckets = field(default_factory=lambda: Buckets(WAIT_BUCKETS_S))
    """Of those refused."""
    executions: Buckets = field(default_factory=lambda: Buckets(WAIT_BUCKETS_S))
    widths: Buckets = field(default_factory=lambda: Buckets(WIDTH_BUCKETS))


_Number = Callable[[Stats], float]
_LEVEL_GAUGES: tuple[tuple[str, str, Callable[[Level], float]], ...] = (
    ('nominal_limit_seats', 'Seats by the shares of the level.', lambda lv: lv.nominal),
    ('lower_limit_seats', 'Seats that are never lent.', lambda lv: lv.lower),
    ('upper_limit_seats', 'Seats with all that may be borrowed.', lambda lv: lv.upper),
    ('current_limit_seats', 'Seats for now.', lambda lv: lv.limit),
    ('demand_seats_high_watermark', 'Most seats wanted in the last period.', lambda lv: lv.demand.high),
    ('demand_seats_average', 'Average of seats wanted in the last period.', lambda lv: lv.demand.average),
    ('demand_seats_stdev', 'Deviation of seats wanted in the last period.', lambda lv: lv.demand.deviation),
    ('demand_seats_smoothed', 'Seats wanted, smoothed.', lambda lv: lv.demand.smoothed),
)
_GAUGES: tuple[tuple[str, str, _Number], ...] = (
    ('current_inqueue_requests', 'Requests that wait in queues.', lambda s: s.waiting),
    ('current_inqueue_seats', 'Seats they will take.', lambda s: s.waiting_seats),
    ('current_executing_requests', 'Requests that have their seats.', lambda s: s.executing),
    ('current_executing_seats', 'Seats taken.', lambda s: s.executing_seats),
)
_COUNTERS: tuple[tuple[str, str, _Number], ...] = (
    ('dispatched_requests', 'Requests that began.', lambda s: s.dispatched),
    ('request_dispatch_no_accommodation', 'Requests that began after they had waited.', lambda s: s.unaccommodated),
)
_HISTOGRAMS: tuple[tuple[str, str, tuple[str, ...], Callable[[Stats], Buckets]], ...] = (
    ('request_wait_duration_seconds', 'Time in queues.', ('execute', 'true'), lambda s: s.waits),
    ('request_wait_duration_seconds', 'Time in queues.', ('execute', 'false'), lambda s: s.lost_waits),
    ('request_execution_seconds', 'Time from the seat to the end.', ('type', 'regular'), lambda s: s.executions),
    ('work_estimated_seats', 'Seats that requests were reckoned to take.', (), lambda s: s.widths),
)


class Source(Protocol):
    fair_fraction: float
    levels: dict[str, Level]
    stats: dict[tuple[str, str], Stats]


class FlowCollector(Collector):
    """Reads the figures when Prometheus asks."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def describe(self) -> Iterable[Metric]:
        return ()  # nothing to compare names with before the first request

    def collect(self) -> Iterator[Metric]:
        for name, text, of_level in _LEVEL_GAUGES:
            gauge = GaugeMetricFamily(PREFIX + name, text, labels=[LEVEL])
            for level in self._source.levels.values():
                gauge.add_metric([level.name], of_level(level))
            yield gauge
        for name, text, number in _GAUGES:
            gauge = GaugeMetricFamily(PREFIX + name, text, labels=BY_SCHEMA)
            for s in self._source.stats.values():
                gauge.add_metric([s.level, s.schema], number(s))
            yield gauge
        for name, text, number in _COUNTERS:
            counter = CounterMetricFamily(PREFIX + name, text, labels=BY_SCHEMA)
            for s in self._source.stats.values():
                counter.add_metric([s.level, s.schema], number(s))
            yield counter
        yield GaugeMetricFamily(
            f'{PREFIX}seat_fair_frac', 'Share of its target that a level gets.', self._source.fair_fraction
        )
        yield self._refused()
        yield from self._histograms()

    def _refused(self) -> Metric:
        refused = CounterMetricFamily(
            f'{PREFIX}rejected_requests', 'Requests refused with 429.', labels=(*BY_SCHEMA, 'reason')
        )
        for s in self._source.stats.values():
            for reason, count in s.refused.items():
                refused.add_metric([s.level, s.schema, reason], count)
        return refused

    def _histograms(self) -> Iterator[Metric]:
        families: dict[str, HistogramMetricFamily] = {}
        for name, text, label, buckets in _HISTOGRAMS:
            family = families.get(name)
            if family is None:
                labels = (*BY_SCHEMA, *label[:1])
                family = families[name] = HistogramMetricFamily(PREFIX + name, text, labels=labels)
            for s in self._source.stats.values():
                found = buckets(s)
                family.add_metric([s.level, s.schema, *label[1:]], found.form(), found.total)
        yield from families.values()
