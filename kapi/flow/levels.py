"""One priority level at run time: seats, and queues for those that find none. Sans-IO but for the futures that wait.

What finds no seat, or no place in the present turn, waits in one of the level's queues, which flows share by shuffle
sharding: each flow is dealt a hand of queues and takes the shortest, so a flood fills its own hand and leaves room in
the queues of others. Flows take turns, those of whom nothing waited first, however many queues they fill. A request as
wide as n seats takes n of them, and its flow is passed over n - 1 times.
Source: apiserver pkg/util/flowcontrol, KEP-1040.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from kapi.errors import TooManyRequests
from kapi.flow.demand import Demand
from kapi.flow.turns import Round, Turns

QUEUE_WAIT_S_MAX = 15.0
"""A request that found no seat by then gets 429 (a quarter of the request deadline, as upstream)."""
RETRY_AFTER_S = 1
HANDS_MAX = 4_096
"""Flows whose queues are remembered; beyond it they are dealt anew, with the same result."""


@dataclass(slots=True, eq=False)
class Waiting:
    """A request in a queue."""

    flow: str
    width: int
    seat: asyncio.Future[None]
    queue: int
    since: float


Queue = deque[Waiting]


@dataclass(slots=True, eq=False)
class Flow:
    """What waits of one flow, in all its queues, in the order in which it came."""

    requests: deque[Waiting] = field(default_factory=deque)
    owed: int = 0
    """Turns to let pass, because the last request was wide."""


@dataclass(slots=True, eq=False)
class Level:
    """Seats and queues. `limit` seats are its own for now; `nominal` is what its shares come to."""

    name: str
    turns: Turns
    demand: Demand
    uid: str = ''
    exempt: bool = False
    nominal: int = 1
    lower: int = 1
    upper: int = 1
    limit: int = 1
    width_max: int = 1
    """The widest that a request may be."""
    queue_count: int = 0
    queues: dict[int, Queue] = field(default_factory=dict)
    """Those with somebody in them."""
    hand: int = 8
    length_max: int = 50
    busy: int = 0
    """Seats taken."""
    executing: int = 0
    waiting: int = 0
    """Requests in all queues together."""
    waiting_seats: int = 0
    _flows: dict[str, Flow] = field(default_factory=dict)
    _round: Round[str] = field(default_factory=Round)

    def enter(self, flow: str, width: int, now: float) -> bool:
        """Take seats at once, if they and a place in this turn are free. Raises Refused: no, and no queues."""
        if not self.exempt:
            if not self.queue_count:
                if not self._fits(width):
                    raise Refused('concurrency-limit')
            elif not self._fits(width) or not self._may_begin(flow):
                return False
        self._seat(width, now)
        return True

    def _fits(self, width: int) -> bool:
        """A request wider than the level is let in alone."""
        return self.busy + width <= self.limit or not self.busy

    def _may_begin(self, flow: str) -> bool:
        if not self.waiting:
            return self.turns.take()
        # A newcomer passes those that wait for their turn, never those that wait for a seat.
        if flow in self._round or not self.ready() or not self.turns.take(newcomer=True):
            return False
        self._round.served(flow)
        return True

    async def wait(self, flow: str, width: int, now: float) -> None:
        """Take seats when they are free and it is this request's turn. Raises Refused."""
        index, length = self._shortest(flow)
        if length >= self.length_max:
            raise Refused('queue-full')
        request = Waiting(flow, width, asyncio.get_running_loop().create_future(), index, now)
        self.queues.setdefault(index, Queue()).append(request)
        self._flows.setdefault(flow, Flow()).requests.append(request)
        self._round.join(flow)
        self.waiting += 1
        self.waiting_seats += width
        self.demand.note(self.busy + self.waiting_seats, now)
        if self.ready():
            self.turns.join(self)
        try:
            async with asyncio.timeout(None) as limit:
                self.turns.deadlines.add(limit, QUEUE_WAIT_S_MAX)
                try:
                    await request.seat
                finally:
                    self.turns.deadlines.drop(limit)
        except BaseException as e:
            if request.seat.done() and not request.seat.cancelled():
                self.leave(width)  # given a seat and gone at the same moment
            elif request in self.queues.get(index, ()):
                self._flows[flow].requests.remove(request)
                self._gone(request)
                self._forget()
                self.demand.note(self.busy + self.waiting_seats)
            if isinstance(e, TimeoutError):
                raise Refused('time-out') from None
            raise

    def leave(self, width: int, now: float = 0.0) -> None:
        """Give the seats back."""
        self.busy -= width
        self.executing -= 1
        self.demand.note(self.busy + self.waiting_seats, now)
        if self.ready():
            self.turns.join(self)

    def begin(self) -> bool:
        """Let the next request in turn begin, if there is a seat; whether one did."""
        flow = self._next() if self.waiting else None
        if flow is None or not self._fits(flow.requests[0].width):
            return False
        request = flow.requests.popleft()
        self._gone(request)
        flow.owed = request.width - 1
        self._round.served(request.flow)
        self._seat(request.width)
        request.seat.set_result(None)
        self._forget()
        return True

    def ready(self) -> bool:
        """Whether a request waits and has a seat."""
        if not self.waiting or self.exempt:
            return False
        if self.busy + self.width_max <= self.limit:
            return True  # whoever it is
        flow = self._next()
        return flow is not None and self._fits(flow.requests[0].width)

    def _next(self) -> Flow | None:
        """The flow whose turn it is, with a request at its head that nobody has given up."""
        while self._round:
            name = self._round.first()
            flow = self._flows.get(name)
            while flow is not None and flow.requests and flow.requests[0].seat.done():
                self._gone(flow.requests.popleft())
            if flow is None or not flow.requests:
                self._flows.pop(name, None)
                self._round.drop(name)
            elif flow.owed:
                flow.owed -= 1
                self._round.served(name)
            else:
                return flow
        return None

    def _seat(self, width: int, now: float = 0.0) -> None:
        self.busy += width
        self.executing += 1
        self.demand.note(self.busy + self.waiting_seats, now)

    def _gone(self, request: Waiting) -> None:
        queue = self.queues[request.queue]
        queue.remove(request)
        if not queue:
            del self.queues[request.queue]
        self.waiting -= 1
        self.waiting_seats -= request.width

    def _forget(self) -> None:
        """Who was new and who was not matters only while somebody waits."""
        if not self.waiting:
            self._round.clear()
            self._flows.clear()

    def _shortest(self, flow: str) -> tuple[int, int]:
        """(index, length) of the queue of `flow` with the fewest requests."""
        lengths = ((i, len(self.queues.get(i, ()))) for i in dealt(flow, self.queue_count, self.hand))
        return min(lengths, key=lambda found: found[1])

    def requests(self) -> Iterator[tuple[int, int, Waiting]]:
        """(queue, place in it, request) of all that wait."""
        for index, queue in sorted(self.queues.items()):
            for place, request in enumerate(queue):
                yield index, place, request


class Refused(TooManyRequests):
    """The level is full. `reason` as in upstream's figures; the client is not told."""

    def __init__(self, reason: str) -> None:
        super().__init__('Too many requests, please try again later.', retry_after_s=RETRY_AFTER_S)
        self.reason = reason


@lru_cache(HANDS_MAX)
def dealt(flow: str, queues: int, hand: int) -> tuple[int, ...]:
    """The queues of a flow: `hand` different ones of `queues`, always the same for the same flow."""
    value = int.from_bytes(hashlib.blake2b(flow.encode(), digest_size=16).digest())
    found: list[int] = []
    for dealt_before in range(min(hand, queues)):
        value, card = divmod(value, queues - dealt_before)
        for other in sorted(found):  # the card is counted among those that are left
            card += other <= card
        found.append(card)
    return tuple(found)
