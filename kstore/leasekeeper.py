"""The leader's lease work: renewals in batches, checkpoints, expiry.

A renewal is answered only after a read round has proved that this member still leads, and expiry is proposed only after
one: a leader that was stalled or cut off neither keeps a lease alive nor ends one. Neither costs a log write, but for a
lease with a checkpoint on record, which is withdrawn first (see kstore.lease).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NoReturn

from kcore.env import Env
from kstore.errors import StoreError
from kstore.fsm import Command, StoreFsm, encode
from kstore.lease import LeaseClock
from kstore.node import Node
from kstore.proposals import Proposals, Ticket
from kstore.wire import Op, pack, success

LEASE_TICK_S = 0.1
"""Expiry is looked at no more often: a lease ends this much late at most, plus a commit."""
CHECKPOINT_S = 1.0
"""Between two looks at checkpoints. No lease is shorter, so that none can come up and end between two looks."""


class LeaseKeeper:
    """See the module's text."""

    def __init__(self, fsm: StoreFsm, node: Node, proposals: Proposals, env: Env) -> None:
        self._fsm = fsm
        self._node = node
        self._proposals = proposals
        self._clock = env.clock
        self._leases = LeaseClock(fsm.store.leases)
        self._leading = 0
        """The term that this member leads; `_term` once its clocks run, both 0 when it does not lead."""
        self._term = 0
        self._proposed = False
        fsm.on_granted = self._granted
        fsm.on_revoked = self._leases.forget

    def leadership(self, leader: int, term: int, member: int) -> None:
        """A change of leader."""
        if leader != member or self._leading != term:
            self._leases.demote()
            self._term, self._leading = 0, term if leader == member else 0
            if self._leading:
                self._start_clocks(term)

    def _start_clocks(self, term: int) -> None:
        """Once all that earlier leaders committed is applied here: the last of it may withdraw a checkpoint."""

        def ready(error: StoreError | None) -> None:
            if self._leading != term:
                return
            if error is not None:
                self._start_clocks(term)
                return
            self._term = term
            self._leases.promote(self._fsm.store.leases, self._clock.monotonic())

        self._proposals.read(ready)

    def serve(self, ticket: Ticket) -> None:
        """KEEPALIVE and LEASE_TTL at the leader."""

        def ready(error: StoreError | None) -> None:
            if error is not None or not self._term:
                self._proposals.retry(ticket, uncertain=False)
            elif ticket.op == Op.KEEPALIVE:
                self._renew(ticket)
            else:
                self._proposals.finish(ticket, success(pack(self.describe(ticket.body))))

        self._proposals.read(ready)

    def describe(self, lease_id: int) -> list[Any]:
        """`[lease, ttl, remaining, keys]`; ttl -1 for an unknown lease."""
        lease = self._fsm.store.leases.get(lease_id)
        if lease is None:
            return [lease_id, -1, 0.0, []]
        remaining = self._leases.remaining(lease_id, self._clock.monotonic())
        return [lease_id, lease.ttl_s, round(remaining, 3), sorted(lease.keys)]

    def _renew(self, ticket: Ticket) -> None:
        lease_id = ticket.body
        withdrawals = self._leases.needs_withdrawal([lease_id])
        if not withdrawals:
            self._answer(ticket)
            return

        def done(result: Any) -> None:
            if isinstance(result, bytes):
                self._renew(ticket)  # looks again: another checkpoint may be on its way behind the withdrawal
            else:
                self._proposals.retry(ticket, uncertain=False)

        self._node.propose(encode(0, 0, 0, False, Command.CHECKPOINT, withdrawals), done)

    def _answer(self, ticket: Ticket) -> None:
        ttl_s = self._leases.renew(ticket.body, self._clock.monotonic())
        self._proposals.finish(ticket, success(pack([ticket.body, ttl_s])))

    def _granted(self, lease_id: int) -> None:
        lease = self._fsm.store.leases.get(lease_id)
        if self._term and lease is not None:
            self._leases.granted(lease, self._clock.monotonic())

    async def run(self) -> NoReturn:
        """Expire and checkpoint, for ever; does nothing while another member leads."""
        checkpoint_at = 0.0
        while True:
            due = self._leases.next_deadline()
            until = checkpoint_at if due is None else min(due, checkpoint_at)
            await asyncio.sleep(max(LEASE_TICK_S, until - self._clock.monotonic()))
            now = self._clock.monotonic()
            look = now >= checkpoint_at
            if look:
                checkpoint_at = now + CHECKPOINT_S
            if not self._term or self._proposed:
                continue
            if self._leases.expired(now):
                self._proposed = True
                self._proposals.read(self._expire)
            elif look:
                self._checkpoint()

    def _expire(self, error: StoreError | None) -> None:
        due = self._leases.expired(self._clock.monotonic()) if error is None and self._term else []
        if due:
            self._propose(Command.EXPIRE, due)
        else:
            self._proposed = False

    def _checkpoint(self) -> None:
        due = self._leases.due_checkpoints(self._clock.monotonic())
        if due:
            self._proposed = True
            self._leases.on_the_way = {lease_id for lease_id, _ in due}
            self._propose(Command.CHECKPOINT, due)

    def _propose(self, command: Command, arguments: Sequence[Any]) -> None:
        def done(_: Any) -> None:
            self._leases.on_the_way = set()
            self._proposed = False  # applied, or leadership moved: either way look again

        self._node.propose(encode(0, 0, 0, False, command, arguments), done)
