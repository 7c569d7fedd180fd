"""The store against the better of the etcds here: every figure that has a target, and whether it is met.

`python -m bench store --vs etcd` takes about ten minutes and ends with a table in Markdown on standard error. All sides
run in turn on the same machine, so only the ratios say something about the stores; run it on a quiet machine.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from typing import NamedTuple

from bench.common import Result, Settings

PARTS = ('put', 'get', 'watch', 'cas', 'lease', 'failover')
FAILOVER = 'kill -9 leader, 20 trials'


class Goal(NamedTuple):
    """`ratio` is ours divided by etcd's: at least for rates, at most for times and sizes (or `most` itself)."""

    bench: str
    case: str
    metric: str
    ratio: float = 0.0
    most: float = 0.0

    @property
    def lower_is_better(self) -> bool:
        return self.metric.endswith(('_ms', '_mb'))

    @property
    def text(self) -> str:
        if self.most:
            return f'≤ {self.most:g}'
        return f'{"≤" if self.lower_is_better else "≥"} {self.ratio:g}×'

    def met(self, value: float, peer: float | None) -> bool | None:
        """None: there is nothing to compare with."""
        if self.most:
            return value <= self.most
        if not peer:
            return None
        return value <= self.ratio * peer if self.lower_is_better else value >= self.ratio * peer


GOALS = (
    Goal('put', '1 clients', 'ops_per_s', 1),
    Goal('put', '100 clients', 'ops_per_s', 1),
    Goal('put', '100 clients', 'p99_ms', 1),
    Goal('put', '1000 clients', 'ops_per_s', 1),
    Goal('get', '100 clients', 'ops_per_s', 1.5),
    Goal('get-serializable', '100 clients', 'ops_per_s', 1.5),
    Goal('watch', '1 watchers', 'events_per_s', 1),
    Goal('watch', '100 watchers', 'events_per_s', 5),
    Goal('watch', '100 watchers', 'p99_ms', 1),
    Goal('watch', '100 watchers, 16 writers', 'events_per_s', 5),
    Goal('watch', '1000 watchers', 'events_per_s', 5),
    Goal('watch', '1000 watchers', 'p99_ms', 1),
    Goal('watch', '1000 watchers, 16 writers', 'events_per_s', 5),
    Goal('cas', '16 contenders', 'wins_per_s', 4),
    Goal('lease', '100 clients', 'ops_per_s', 1),
    Goal('failover', FAILOVER, 'median_ms', most=500),
    Goal('put', '100000 keys', 'rss_mb', 1),
    Goal('put', '100000 keys', 'disk_mb', 1),
)


def run(settings: Settings) -> None:
    results: list[Result] = []
    chosen = replace(settings, cases=frozenset((g.bench, g.case) for g in GOALS), results=results)
    for part in PARTS:
        importlib.import_module(f'bench.{part}').run(chosen)
    print('\n'.join(['', *table(results)]), file=sys.stderr)


def table(results: list[Result]) -> list[str]:
    """Lines of Markdown, one a goal that was measured."""
    by_case = {(r.bench, r.case): r for r in results}
    lines = ['| work | figure | target | Kubeling | etcd | ratio | met |', '|---|---|---|---|---|---|---|']
    for goal in GOALS:
        result = by_case.get((goal.bench, goal.case))
        if result is None or goal.metric not in result.figures.values:
            continue
        value = result.figures.median(goal.metric)
        name, figures = result.peer if result.peer is not None else ('', None)
        peer = figures.median(goal.metric) if figures is not None and goal.metric in figures.values else None
        verdict = {True: 'yes', False: '**no**', None: '–'}[goal.met(value, peer)]
        theirs, ratio = (f'{peer:,.1f} ({name})', f'{value / peer:.2f}') if peer else ('–', '–')
        work = f'{goal.bench}, {goal.case}'
        lines.append(f'| {work} | {goal.metric} | {goal.text} | {value:,.1f} | {theirs} | {ratio} | {verdict} |')
    return lines
