"""From a request to a result: propose here, forward to the leader, or wait for one; reads wait for their index.

Every write carries its client's request id, so a proposal whose fate is unknown (leadership lost, link down) is
simply tried again, marked as a retry: the state machine answers the second run with the result of the first. A request
waits at most until its deadline, then fails with NoLeader or Timeout.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from kcore.env import Env
from kstore.errors import NoLeader, NoSpace, NotLeader, Overloaded, StoreError, Timeout
from kstore.node import Node
from kstore.peers import Peers
from kstore.raft.errors import LeadershipLost, LogFull
from kstore.wire import Op, failure, pack, unpack

INFLIGHT_MAX = 20_000
"""Requests under way at one member; one more is refused as Overloaded."""
ORDINARY_INFLIGHT_MAX = 18_000
"""The same for ordinary requests: the rest is the lane of whatever keeps leases alive and of operators."""
SWEEP_S = 0.05
"""How often deadlines are looked at, and waiting requests tried again, while there are any."""

Respond = Callable[[bytes], None]
"""Takes a packed result, once."""


@dataclass(eq=False, slots=True)
class Ticket:
    """One request that needs the leader."""

    op: int
    body: Any
    respond: Respond
    deadline: float
    guard: bytes | None = None
    """Key of a compare-and-swap: see kstore.contention."""
    uncertain: bool = False
    """A former try may have been applied."""


@dataclass(eq=False, slots=True)
class Reader:
    ready: Callable[[StoreError | None], None]
    deadline: float


class Proposals:
    """See the module's text. `serve` is what the leader does with an operation, given to `Ticket`s that land here."""

    def __init__(self, node: Node, peers: Peers, env: Env, member: int, timeout_s: float) -> None:
        self._node = node
        self._peers = peers
        self._clock = env.clock
        self._member = member
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._waiting: list[Ticket] = []
        self._forwarded: dict[int, tuple[int, Ticket]] = {}
        self._next_id = 1
        self._readers: list[Reader] = []
        self._unfinished = asyncio.Event()
        """Something waits here or at the leader."""
        self._read_scheduled = False
        self._reading = False
        self.inflight = 0
        self.failed = self.failed_reads = 0
        """Requests and linearizable reads that were given up, for metrics."""
        self.lead: Callable[[Ticket], None] = self.propose
        """Does a ticket at the leader."""

    # -- writes --------------------------------------------------------------------------------------------------

    def submit(self, op: int, body: Any, respond: Respond, guard: bytes | None = None) -> None:
        """Do `op` at the leader, wherever it is. Raises Overloaded."""
        if self.inflight >= _most(op):
            raise Overloaded(f'more than {_most(op)} requests under way')
        self.inflight += 1
        self._route(Ticket(op, body, respond, self._clock.monotonic() + self._timeout_s, guard))

    def finish(self, ticket: Ticket, result: bytes) -> None:
        self.inflight -= 1
        ticket.respond(result)

    def retry(self, ticket: Ticket, *, uncertain: bool) -> None:
        """The try came to nothing (or its fate is unknown): again at the next leader, or at the next sweep."""
        if uncertain and ticket.op == Op.WRITE and not ticket.uncertain:
            ticket.uncertain = True
            ticket.body = as_retry(ticket.body)
        self._wait(ticket)

    def _route(self, ticket: Ticket) -> None:
        node = self._node
        if node.is_leader:
            self.lead(ticket)
            return
        leader = node.leader_id
        if leader and leader != self._member:
            number = self._next_id
            self._next_id += 1
            if self._peers.forward(leader, [number, ticket.op, ticket.body, ticket.guard]):
                self._forwarded[number] = (leader, ticket)
                self._unfinished.set()
                return
        self._wait(ticket)

    def _wait(self, ticket: Ticket) -> None:
        self._waiting.append(ticket)
        self._unfinished.set()

    def propose(self, ticket: Ticket, after: Callable[[], None] = lambda: None) -> None:
        """Replicate the ticket's command; `after` is called when its fate here is known."""

        def done(result: Any) -> None:
            if isinstance(result, bytes):
                self.finish(ticket, result)
            elif isinstance(result, LogFull) and not _may_be_applied(ticket):
                self.finish(ticket, failure(NoSpace(str(result))))
            else:
                self.retry(ticket, uncertain=isinstance(result, LeadershipLost))
            after()

        self._node.propose(ticket.body, done)

    def serve(self, peer: int, item: Sequence[Any]) -> None:
        """A request `[id, op, body, guard]` that `peer` forwarded because it takes this member for the leader."""
        number, op, body, guard = item

        def respond(result: bytes) -> None:
            self._peers.answer(peer, [number, result])

        if not self._node.is_leader or self.inflight >= _most(op):
            error = NotLeader('leadership has moved') if not self._node.is_leader else Overloaded('too many requests')
            respond(failure(error))
            return
        self.inflight += 1
        self.lead(Ticket(op, body, respond, self._clock.monotonic() + self._timeout_s, guard))

    def answered(self, number: int, result: bytes) -> None:
        """The leader's answer to a forwarded request; a late one for a request tried elsewhere is dropped."""
        found = self._forwarded.pop(number, None)
        if found is None:
            return
        if result and result[0] == NotLeader.code:
            self.retry(found[1], uncertain=False)
        else:
            self.finish(found[1], result)

    def lost(self, peer: int) -> None:
        """The link to `peer` broke: what was forwarded there has an unknown fate."""
        gone = [number for number, (target, _) in self._forwarded.items() if target == peer]
        for number in gone:
            self.retry(self._forwarded.pop(number)[1], uncertain=True)

    # -- reads ---------------------------------------------------------------------------------------------------

    def read(self, ready: Callable[[StoreError | None], None]) -> None:
        """Call `ready(None)` once the local state has everything acknowledged before now, or `ready(error)`."""
        self._readers.append(Reader(ready, self._clock.monotonic() + self._timeout_s))
        self._unfinished.set()
        if not self._read_scheduled and not self._reading:
            self._read_scheduled = True
            self._loop.call_soon(self._start_round)

    def _start_round(self) -> None:
        self._read_scheduled = False
        if self._reading or not self._readers:
            return
        self._reading = True
        batch, self._readers = self._readers, []

        def done(result: Any) -> None:
            self._reading = False
            if isinstance(result, int):
                for reader in batch:
                    reader.ready(None)
            else:  # no leader, or leadership moved: the next sweep asks again
                self._readers = batch + self._readers
                return
            if self._readers:
                self._start_round()

        self._node.read_index(done)

    # -- time ----------------------------------------------------------------------------------------------------

    async def run(self) -> NoReturn:
        """Sweep, for ever; at rest while nothing waits."""
        while True:
            await self._unfinished.wait()
            await asyncio.sleep(SWEEP_S)
            if not (self._waiting or self._forwarded or self._readers):
                self._unfinished.clear()
            self.sweep()

    def sweep(self) -> None:
        """Try waiting requests again and fail the overdue; every SWEEP_S and at each change of leader."""
        now = self._clock.monotonic()
        waiting, self._waiting = self._waiting, []
        for ticket in waiting:
            if ticket.deadline <= now:
                self.finish(ticket, failure(self._overdue(ticket)))
            else:
                self._route(ticket)
        late = [number for number, (_, ticket) in self._forwarded.items() if ticket.deadline <= now]
        for number in late:
            ticket = self._forwarded.pop(number)[1]
            self.failed += 1
            self.finish(ticket, failure(Timeout('the leader did not answer in time')))
        overdue = [r for r in self._readers if r.deadline <= now]
        if overdue:
            self._readers = [r for r in self._readers if r.deadline > now]
            self.failed_reads += len(overdue)
            for reader in overdue:
                reader.ready(NoLeader('no leader confirmed the read in time'))
        self._start_round()

    def _overdue(self, ticket: Ticket) -> StoreError:
        self.failed += 1
        if ticket.uncertain:
            return Timeout('the write was not confirmed in time; retrying the same request is safe')
        return NoLeader('no leader was elected in time')


def _most(op: int) -> int:
    return ORDINARY_INFLIGHT_MAX if op == Op.WRITE else INFLIGHT_MAX


def _may_be_applied(ticket: Ticket) -> bool:
    """A try before this one, here or by way of another member, may have been applied: no refusal is certain."""
    return ticket.uncertain or bool(unpack(ticket.body)[3])


def as_retry(command: bytes) -> bytes:
    """The same command, marked as one whose first try may have been applied."""
    parts = unpack(command)
    parts[3] = True
    return pack(parts)
