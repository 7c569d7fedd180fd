"""The leader's lease work, against a log that the test lets run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from kcore.sim import World
from kstore.engine.layers import Engine
from kstore.engine.memory import MemoryBackend
from kstore.fsm import Command, StoreFsm, encode
from kstore.leasekeeper import CHECKPOINT_S, LEASE_TICK_S, LeaseKeeper
from kstore.proposals import Ticket
from kstore.raft.messages import Entry, EntryKind
from kstore.wire import Op, split_result, unpack

ME, LEASE, TTL_S = 1, 7, 12


class Log:
    """Node and proposals at once: what is proposed waits until the test commits it, and so do reads."""

    def __init__(self, fsm: StoreFsm) -> None:
        self._fsm = fsm
        self.proposed: list[tuple[bytes, Callable[[Any], None]]] = []
        self.reads: list[Callable[[Any], None]] = []
        self.answers: list[Any] = []

    def propose(self, data: bytes, done: Callable[[Any], None]) -> None:
        self.proposed.append((data, done))

    def read(self, ready: Callable[[Any], None]) -> None:
        self.reads.append(ready)

    def finish(self, ticket: Ticket, result: bytes) -> None:
        self.answers.append(split_result(result)[1])

    def commit(self, data: bytes) -> Any:
        return self._fsm.apply([Entry(1, self._fsm.applied_index + 1, EntryKind.NORMAL, data)])[0]

    def commit_next(self) -> list[Any]:
        """Apply the oldest proposal; returns what it was."""
        data, done = self.proposed.pop(0)
        done(self.commit(data))
        command: list[Any] = unpack(data)[4:]
        return command

    def confirm(self) -> None:
        reads, self.reads = self.reads, []
        for ready in reads:
            ready(None)


class Stage:
    """A keeper that leads, and one lease of which a little time has passed."""

    def __init__(self) -> None:
        self.world = World(1)
        self.fsm = StoreFsm(Engine(MemoryBackend()))
        self.log = Log(self.fsm)
        env = self.world.host('10.0.0.1').env
        self.keeper = LeaseKeeper(self.fsm, self.log, self.log, env)  # type: ignore[arg-type]

    def lead(self, term: int) -> None:
        self.keeper.leadership(ME, term, ME)

    def renew(self) -> None:
        self.keeper.serve(Ticket(Op.KEEPALIVE, LEASE, lambda _: None, 0.0))
        self.log.confirm()

    def remaining(self) -> float:
        return float(self.keeper.describe(LEASE)[2])

    def run(self, main: Callable[[], Any]) -> None:
        async def all_of_it() -> None:
            running = asyncio.create_task(self.keeper.run())
            await main()
            running.cancel()

        self.world.run(all_of_it())


def grant() -> bytes:
    return encode(0, 0, 0, False, Command.GRANT, LEASE, TTL_S)


def test_a_renewal_withdraws_a_checkpoint_that_is_still_on_its_way():
    stage = Stage()

    async def main() -> None:
        log = stage.log
        stage.lead(3)
        log.confirm()
        log.commit(grant())
        await asyncio.sleep(6.5)
        assert len(log.proposed) == 1, 'the checkpoint of what is left'
        stage.renew()
        assert log.answers == [], 'a leader that came now would count from the checkpoint'
        assert log.commit_next() == [Command.CHECKPOINT, [[LEASE, 7]]]
        assert log.answers == []
        assert log.commit_next() == [Command.CHECKPOINT, [[LEASE, TTL_S]]]
        assert log.answers == [[LEASE, TTL_S]]
        assert stage.fsm.store.leases.get(LEASE).remaining_s == TTL_S  # type: ignore[union-attr]

    stage.run(main)


def test_a_checkpoint_behind_a_withdrawal_is_withdrawn_too():
    stage = Stage()

    async def main() -> None:
        log = stage.log
        stage.lead(3)
        log.confirm()
        log.commit(grant())
        await asyncio.sleep(6.5)
        log.commit_next()
        stage.renew()
        await asyncio.sleep(5.2)  # the withdrawal is slow, and meanwhile the next checkpoint is due
        assert len(log.proposed) == 2
        assert log.commit_next() == [Command.CHECKPOINT, [[LEASE, TTL_S]]]
        assert log.answers == []
        log.commit_next()
        log.commit_next()
        assert log.answers == [[LEASE, TTL_S]]
        assert stage.fsm.store.leases.get(LEASE).remaining_s == TTL_S  # type: ignore[union-attr]

    stage.run(main)


def test_a_new_leader_counts_from_what_its_predecessors_last_entries_say():
    stage = Stage()

    async def main() -> None:
        log = stage.log
        log.commit(grant())
        log.commit(encode(0, 0, 0, False, Command.CHECKPOINT, [[LEASE, 2]]))
        stage.lead(4)
        await asyncio.sleep(1.0)
        log.commit(encode(0, 0, 0, False, Command.CHECKPOINT, [[LEASE, TTL_S]]))  # withdrawn by the one before
        log.confirm()
        await asyncio.sleep(5.0)
        assert not log.proposed, 'two seconds would be over'
        assert stage.remaining() == TTL_S - 5.0

    stage.run(main)


def test_a_leader_that_is_deposed_before_it_may_read_starts_no_clock():
    stage = Stage()

    async def main() -> None:
        log = stage.log
        log.commit(grant())
        stage.lead(4)
        stage.keeper.leadership(2, 5, ME)
        log.confirm()
        await asyncio.sleep(TTL_S + 1.0)
        assert not log.proposed
        stage.lead(6)
        log.confirm()
        assert stage.remaining() == TTL_S

    stage.run(main)


def test_nobody_looks_for_leases_to_end_before_one_is_due():
    stage, ttl_s = Stage(), 4  # too short for a checkpoint
    looks: list[float] = []
    expired = stage.keeper._leases.expired

    def look(now: float) -> list[int]:
        looks.append(now)
        return expired(now)

    stage.keeper._leases.expired = look  # type: ignore[method-assign]

    async def main() -> None:
        stage.lead(3)
        stage.log.confirm()
        stage.log.commit(encode(0, 0, 0, False, Command.GRANT, LEASE, ttl_s))
        await asyncio.sleep(ttl_s - 0.1)
        assert len(looks) <= ttl_s / CHECKPOINT_S + 1, 'no oftener than at checkpoints'
        assert not stage.log.reads
        await asyncio.sleep(0.1 + LEASE_TICK_S)
        assert stage.log.reads, 'the leader asks whether it still leads, and then ends the lease'

    stage.run(main)


def test_a_lease_that_is_granted_between_two_looks_does_not_end_late():
    stage = Stage()

    async def main() -> None:
        stage.lead(3)
        stage.log.confirm()
        await asyncio.sleep(3.5)
        stage.log.commit(encode(0, 0, 0, False, Command.GRANT, LEASE, 1))
        await asyncio.sleep(0.9)
        assert not stage.log.reads
        await asyncio.sleep(0.1 + LEASE_TICK_S)
        assert stage.log.reads

    stage.run(main)
