"""Compare-and-swap on one key takes turns at the leader, so that only a swap that can win costs a log entry.

While a swap of a key is under way, further swaps of that key wait here. Once it is applied, one read round proves
that this member still leads; then those whose compare no longer holds are answered from the local state, and the
first whose compare holds is proposed. Without this, every loser costs a replicated, synced log entry only to be told
that it lost.

A retry never takes the short cut: its first run may be the very swap that made its compare fail.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from kstore.errors import StoreError
from kstore.fsm import StoreFsm
from kstore.proposals import Proposals, Ticket

HELD_MAX = 10_000
"""Swaps that may wait, over all keys; more are proposed at once."""


class Contention:
    """See the module's text. Only the leader's tickets come here."""

    def __init__(self, fsm: StoreFsm, proposals: Proposals) -> None:
        self._fsm = fsm
        self._proposals = proposals
        self._held: dict[bytes, deque[Ticket]] = {}
        self._count = 0

    def submit(self, ticket: Ticket) -> None:
        """Propose the ticket, perhaps after others of its key."""
        key = ticket.guard
        if key is None or ticket.uncertain or self._count >= HELD_MAX:
            self._proposals.propose(ticket)
        elif key in self._held:
            self._held[key].append(ticket)
            self._count += 1
        else:
            self._held[key] = deque()
            self._proposals.propose(ticket, self._after(key))

    def _after(self, key: bytes) -> Callable[[], None]:
        return lambda: self._next(key)

    def _next(self, key: bytes) -> None:
        """The swap under way has ended, whatever came of it."""
        if self._held[key]:
            self._proposals.read(lambda error: self._decide(key, error))
        else:
            del self._held[key]

    def _decide(self, key: bytes, error: StoreError | None) -> None:
        held = self._held[key]
        while held:
            ticket = held.popleft()
            self._count -= 1
            if error is not None:  # no leader here any more
                self._proposals.retry(ticket, uncertain=False)
                continue
            refusal = self._fsm.refusal(ticket.body)
            if refusal is None:
                self._proposals.propose(ticket, self._after(key))
                return
            self._proposals.finish(ticket, refusal)
        del self._held[key]
