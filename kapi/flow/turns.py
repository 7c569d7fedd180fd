"""Turns of the event loop: what a server of one thread shares out is its thread, a bit of it a turn.

Seats bound what waits for the store at once; they do not keep a flood of quick reads from filling the thread. So what
is to begin takes a place in the present turn of the loop. There is one, so that whoever comes meanwhile waits for no
more than one request of another, and one beside it for a newcomer, somebody of whom nothing waited. A turn in which
changes went out to many watchers has more places: they lengthen it little, and as watchers are told once a turn of
whatever has changed, the changes that several requests make cost hardly more than those of one. A flow that has been
alone for a while has more as well: each turn costs something, and nobody is there to be kept waiting.

Priority levels stand in line for places, and so do refusals, new connections and parts of long answers: telling a
client that it may not costs as much as most requests, a handshake more, and a list what its length makes of it. Nobody
must get round the line by being refused, by coming anew, or by asking for all at once.

Reading a request, to know whose it is, costs a third of serving it. A connection is remembered by the flow of its last
request, and of one flow few are read in a turn; the bytes of the others wait, flows taking turns here too.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from kapi.server.deadlines import Deadlines

PLACES, PLACES_BESIDE_WATCHERS = 1, 4
"""How many may begin in a turn, each some tenths of a millisecond of work; and when many watchers are told in it."""
READS_OF_FLOW = 2
"""Requests of one flow that are read in a turn as they come, more than usually begin in it."""
READS_HELD = 2
"""And of those that had to wait for that, of all flows, besides."""
MANY_WATCHERS = 50
"""Telling them costs more than four requests of the usual kind."""
PLACES_ALONE, COMPANY_TURNS = 4, 300
"""How many when all requests of so many turns, a tenth of a second or so, were of one flow: there is nobody to wait."""
NEWCOMERS = 1
"""How many newcomers may begin in it besides."""

T = TypeVar('T')


class Round(Generic[T]):
    """Who is next: newcomers first, then the others one after another.

    One that was served stays among the others until its turn shows that it wants nothing more, so coming back again
    and again does not make a newcomer. Source: the idea of new and old flows in FQ-CoDel, RFC 8290.
    """

    __slots__ = ('_new', '_old')

    def __init__(self) -> None:
        self._new: dict[T, None] = {}
        self._old: dict[T, None] = {}

    def __bool__(self) -> bool:
        return bool(self._new or self._old)

    def __contains__(self, item: T) -> bool:
        return item in self._new or item in self._old

    def join(self, item: T) -> None:
        """Wants something; whoever stands in the line already keeps the place."""
        if item not in self._old:
            self._new.setdefault(item)

    def first(self) -> T:
        """Raises StopIteration when nobody is there."""
        return next(iter(self._new or self._old))

    def served(self, item: T) -> None:
        """Goes behind all others."""
        self.drop(item)
        self._old[item] = None

    def drop(self, item: T) -> None:
        self._new.pop(item, None)
        self._old.pop(item, None)

    def clear(self) -> None:
        self._new.clear()
        self._old.clear()


class Standing(Protocol):
    """What stands in line for places."""

    def begin(self) -> bool:
        """Let one of those that wait begin; whether one did."""

    def ready(self) -> bool:
        """Whether another one could."""


class Turns:
    """Places of the present turn, and who stands in line for those of the next."""

    def __init__(self, told: Callable[[], int]) -> None:
        """`told`: how many watchers were told of a change, since the start."""
        self.deadlines = Deadlines()
        self.refusals, self.arrivals, self.pieces = Line(self), Line(self), Line(self)
        """Clients to be told that they may not; connections to be let in; parts of long answers to be made or sent."""
        self.reads = Reads(self)
        self._told, self._told_before = told, told()
        self._flow, self._company = '', COMPANY_TURNS
        """Whose the last request was, and for how many turns others are still reckoned with."""
        self._places, self._newcomers = PLACES, NEWCOMERS
        self._line: Round[Standing] = Round()
        self._open = False
        """Whether something has begun in this turn, or wants to in the next."""

    def take(self, *, newcomer: bool = False) -> bool:
        """Take a place in this turn, if there is one."""
        if self._places and not self._line:
            self._places -= 1
        elif newcomer and self._newcomers:
            self._newcomers -= 1
        else:
            return False
        self.soon()
        return True

    def comes(self, flow: str) -> None:
        """A request of `flow` has come; '' for what is nobody's yet, or a part of an answer."""
        if flow != self._flow:
            self._flow, self._company = flow, COMPANY_TURNS

    def join(self, standing: Standing) -> None:
        """`standing` has one that waits and could begin."""
        self._line.join(standing)
        self.soon()

    def soon(self) -> None:
        """Be called when the next turn begins."""
        if not self._open:
            self._open = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        """The next turn begins."""
        self._open = False
        self.reads.next()
        places = self._shared_out()
        self._places, self._newcomers = places, NEWCOMERS
        line = self._line
        while self._places and line:
            standing = line.first()
            if not standing.ready():
                line.drop(standing)
                continue
            if standing.begin():
                self._places -= 1
            line.served(standing)
        if line or self._places < places:
            self.soon()

    def _shared_out(self) -> int:
        """Places of the turn that begins."""
        told, before = self._told(), self._told_before
        self._told_before = told
        if not self._company:
            return PLACES_ALONE
        self._company -= 1
        return PLACES_BESIDE_WATCHERS if told - before >= MANY_WATCHERS else PLACES


class Line:
    """What needs no seat and waits for its turn in the order in which it came."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def turn(self) -> None:
        """Wait for a place in a turn."""
        self._turns.comes('')
        if not self._waiting and self._turns.take():
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._turns.join(self)
        await turn

    def begin(self) -> bool:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # else it was given up
                turn.set_result(None)
                return True
        return False

    def ready(self) -> bool:
        return bool(self._waiting)


class Reader(Protocol):
    """A connection with bytes that wait."""

    def read(self) -> None: ...


class Reads:
    """How much of each flow was read in this turn, and what waits to be read."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._read: dict[str, int] = {}
        self._held: dict[str, deque[Reader]] = {}
        self._round: Round[str] = Round()

    def may(self, flow: str) -> bool:
        """Whether one more request of `flow` may be read in this turn; counts it."""
        count = self._read.get(flow, 0)
        if count >= READS_OF_FLOW or flow in self._held:
            return False
        self._read[flow] = count + 1
        self._turns.soon()
        return True

    def hold(self, flow: str, reader: Reader) -> None:
        """Let it read when its flow has its turn."""
        self._held.setdefault(flow, deque()).append(reader)
        self._round.join(flow)
        self._turns.soon()

    def next(self) -> None:
        """A turn begins."""
        self._read.clear()
        for _ in range(READS_HELD):
            if not self._round:
                return
            flow = self._round.first()
            held = self._held[flow]
            reader = held.popleft()
            if held:
                self._round.served(flow)
            else:
                del self._held[flow]
                self._round.drop(flow)
            reader.read()
        if self._round:
            self._turns.soon()
