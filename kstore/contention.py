"""Compare-and-swap on one key takes turns at the leader, so that only a swap that can win costs a log entry.

While a swap of a key is under way, further swaps of that key wait here, in a *line*. Meanwhile a read round proves that
this member led when they came; so once the swap is applied, those whose compare no longer holds can be answered from
the local state, and one whose compare holds is proposed. Without this, every loser costs a replicated, synced log entry
only to be told that it lost.

A loser usually comes back at once, with the revision it was told, and only one of those who come back can win. So the
losers are let go a few at a time, the longest waiting first: at each end of a swap, and when none of them comes back in
PACE_S. A line of any length is through after some dozens of such steps.

A retry never takes the short cut: its first run may be the very swap that made its compare fail.
"""

from __future__ import annotations

import asyncio
from collections import deque

from kstore.errors import StoreError
from kstore.fsm import StoreFsm
from kstore.proposals import Proposals, Ticket

HELD_MAX = 10_000
"""Swaps that may wait, over all keys; more are proposed at once."""
LET_GO = 1
"""Losers that are answered at a time, where few wait."""
LET_GO_SHARE = 16
"""And one more for each so many that wait."""
PACE_S = 0.002
"""How long those who were let go have to come back before the next are."""


class _Line:
    """The swaps of one key: one under way, the others waiting in order of arrival."""

    __slots__ = ('arrived', 'asking', 'busy', 'deciding', 'held', 'key', 'proven', 'timer')

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.held: deque[Ticket] = deque()
        self.busy = False
        """A swap is under way."""
        self.deciding = False
        self.asking = False
        """A read round is under way."""
        self.arrived = 0
        """Tickets that ever waited here."""
        self.proven = 0
        """So many of them came before a read round that is over: this member led then."""
        self.timer: asyncio.TimerHandle | None = None

    @property
    def ready(self) -> bool:
        """Whether the first one may be answered."""
        return self.arrived - len(self.held) < self.proven


class Contention:
    """See the module's text. Only the leader's tickets come here."""

    def __init__(self, fsm: StoreFsm, proposals: Proposals) -> None:
        self._fsm = fsm
        self._proposals = proposals
        self._loop = asyncio.get_running_loop()
        self._lines: dict[bytes, _Line] = {}
        self._count = 0

    def submit(self, ticket: Ticket) -> None:
        """Propose the ticket, perhaps after others of its key."""
        key = ticket.guard
        if key is None or ticket.uncertain or self._count >= HELD_MAX:
            self._proposals.propose(ticket)
            return
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = _Line(key)
        elif line.busy or self._fsm.refusal(ticket.body) is not None:
            line.held.append(ticket)
            line.arrived += 1
            self._count += 1
            self._ask(line)
            return
        self._swap(line, ticket)

    def _swap(self, line: _Line, ticket: Ticket) -> None:
        if line.timer is not None:
            line.timer.cancel()
            line.timer = None
        line.busy = True
        self._proposals.propose(ticket, lambda: self._swapped(line))

    def _swapped(self, line: _Line) -> None:
        """The swap under way has ended, whatever came of it."""
        line.busy = False
        self._decide(line)

    def _ask(self, line: _Line) -> None:
        """One read round at a time, for all who came before it."""
        if not line.asking:
            line.asking = True
            arrived = line.arrived
            self._proposals.read(lambda error: self._proved(line, arrived, error))

    def _proved(self, line: _Line, arrived: int, error: StoreError | None) -> None:
        line.asking = False
        if error is not None:  # no leader here any more
            held, line.held = line.held, deque()
            self._count -= len(held)
            for ticket in held:
                self._proposals.retry(ticket, uncertain=False)
        line.proven = arrived
        if line.arrived > arrived and line.held:
            self._ask(line)
        if line.timer is None:
            self._decide(line)

    def _paced(self, line: _Line) -> None:
        line.timer = None
        self._decide(line)

    def _decide(self, line: _Line) -> None:
        """Let some losers go, or the first who can win have its turn."""
        if line.deciding:
            return  # a proposal came to nothing at once
        line.deciding = True
        room = LET_GO + len(line.held) // LET_GO_SHARE
        while room and not line.busy and line.held and line.ready:
            ticket = line.held.popleft()
            self._count -= 1
            refusal = self._fsm.refusal(ticket.body)
            if refusal is None:
                self._swap(line, ticket)
            else:
                self._proposals.finish(ticket, refusal)
                room -= 1
        line.deciding = False
        if line.busy:
            return
        if line.held and line.ready:
            if line.timer is None:
                line.timer = self._loop.call_later(PACE_S, self._paced, line)
        elif not line.held and not line.asking and self._lines.get(line.key) is line:
            del self._lines[line.key]
