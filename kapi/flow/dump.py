"""`/debug/api_priority_and_fairness/dump_*`: who has seats and who waits, as columns for people. Pure.

Source: apiserver pkg/util/flowcontrol/apf_controller_debug.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from kapi.flow.levels import Level

PREFIX = '/debug/api_priority_and_fairness/'
CELL_MIN = 8
QUEUES_SHOWN_MAX = 1_000
"""Of a level with more of them only those are shown in which somebody waits."""
Row = Sequence[str]
LEVELS = ('PriorityLevelName', 'ActiveQueues', 'IsIdle', 'IsQuiescing', 'WaitingRequests', 'ExecutingRequests',
          'DispatchedRequests', 'RejectedRequests', 'TimedoutRequests', 'CancelledRequests')  # fmt: skip
QUEUES = ('PriorityLevelName', 'Index', 'PendingRequests', 'ExecutingRequests', 'SeatsInUse', 'NextDispatchR',
          'InitialSeatsSum', 'MaxSeatsSum', 'TotalWorkSum')  # fmt: skip
REQUESTS = ('PriorityLevelName', 'FlowSchemaName', 'QueueIndex', 'RequestIndexInQueue', 'FlowDistingsher',
            'ArriveTime', 'InitialSeats', 'FinalSeats', 'AdditionalLatency')  # fmt: skip
NONE = '<none>'
Counts = Mapping[str, Mapping[str, int]]
"""Level → `dispatched` or the reason of refusals → number."""


def levels(all_levels: Iterable[Level], counts: Counts) -> Iterator[Row]:
    yield LEVELS
    for lv in all_levels:
        of = counts.get(lv.name, {})
        refused = of.get('queue-full', 0) + of.get('concurrency-limit', 0)
        numbers = (lv.waiting, lv.executing, of.get('dispatched', 0), refused, of.get('time-out', 0),
                   of.get('cancelled', 0))  # fmt: skip
        if lv.exempt:
            yield (lv.name, *[NONE] * 5, *(str(n) for n in numbers[2:]))
        else:
            idle = str(not lv.waiting and not lv.executing).lower()
            yield (lv.name, str(len(lv.queues)), idle, 'false', *(str(n) for n in numbers))


def queues(all_levels: Iterable[Level]) -> Iterator[Row]:
    """Seats belong to levels here, so what executes is not told by queue."""
    yield QUEUES
    for lv in all_levels:
        if lv.exempt:
            yield (lv.name, *[NONE] * (len(QUEUES) - 1))
        shown = range(lv.queue_count) if lv.queue_count <= QUEUES_SHOWN_MAX else sorted(lv.queues)
        for index in shown:
            queue = lv.queues.get(index, ())
            seats = str(sum(r.width for r in queue))
            widest = str(max((r.width for r in queue), default=0))
            yield (lv.name, str(index), str(len(queue)), NONE, NONE, NONE, seats, widest, NONE)


def requests(all_levels: Iterable[Level], arrived: Callable[[float], str]) -> Iterator[Row]:
    """`arrived`: a moment of the monotonic clock as a date."""
    yield REQUESTS
    for lv in all_levels:
        for index, place, r in lv.requests():
            schema, _, flow = r.flow.partition('/')
            yield (lv.name, schema, str(index), str(place), flow, arrived(r.since), str(r.width), '0', '0s')


def table(rows: Iterable[Row]) -> str:
    """Cells with commas and padded, as a tab writer does it."""
    text = [[*(f'{c},' for c in row[:-1]), row[-1]] for row in rows]
    widths = [max(CELL_MIN, *(len(c) + 1 for c in column)) for column in zip(*text, strict=True)]
    return ''.join(''.join(c.ljust(w) for c, w in zip(row[:-1], widths, strict=False)) + row[-1] + '\n' for row in text)
