"""Seeded histories of whole members and clients; `python -m tests.sim --only store` runs many more."""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import Any

import pytest

from tests.sim.kstore.history import NEVER
from tests.sim.kstore.store_world import FAULTS, NASTY, PORT, StoreWorld, simulate

FOUND_BUGS = {
    12: 'a status request during recovery broke its connection',
    36: 'a write was refused for want of space although an earlier try of it had been applied',
    1428: 'a second snapshot stream removed the files of one that was complete',
    1096: 'the judge of leases did not count the time without a majority to its end',
    252: 'the same, by way of a follower that had forwarded it before',
    631: 'the end of a lease was taken for a revision that an unanswered put had made',
    211168: 'a snapshot was sent as the state after entries that came out of the core with the request for it',
    91981: 'the judge of watches asked for what was committed after all had agreed, as the watches were closed',
}


@pytest.mark.sim
@pytest.mark.parametrize('start', range(0, 60, 10))
def test_no_history_breaks_a_promise(start: int) -> None:
    for seed in range(start, start + 10):
        try:
            simulate(seed)
        except Exception as e:
            e.add_note(f'seed {seed}: python -m tests.sim --only store --seeds 1 --start {seed}')
            raise


@pytest.mark.sim
@pytest.mark.parametrize('seed', FOUND_BUGS)
def test_a_seed_that_once_found_a_bug_stays_clean(seed: int) -> None:
    simulate(seed)


@pytest.mark.sim
@pytest.mark.parametrize('fault', [*FAULTS, *NASTY])
def test_each_fault_strikes_and_is_survived(fault: str) -> None:
    worlds = [simulate(seed, 5.0, members=3, faults=(fault,)) for seed in range(3)]
    assert any(w.done.get(fault) for w in worlds)


def test_a_store_history_replays_bit_for_bit_and_does_something() -> None:
    first, second = simulate(4), simulate(4)
    assert [str(op) for op in first.history.operations] == [str(op) for op in second.history.operations]
    assert first.world.clock.monotonic() == second.world.clock.monotonic()
    assert sum(op.end != NEVER for op in first.history.operations) > 100
    assert first.ledger.revision > 100
    assert sum(len(events) for run in first.history.watches for _, events in run.batches) > 100
    assert first.history.leases


def test_without_faults_nothing_is_uncertain() -> None:
    world: StoreWorld = simulate(3, 5.0, members=3, faults=())
    assert all(op.end != NEVER for op in world.history.operations)


def test_a_request_that_keeps_its_member_busy_for_longer_than_a_client_is_patient_is_answered_in_the_end() -> None:
    world = StoreWorld(2, members=1, faults=())
    world.deadline_s = 30.0

    async def main() -> None:
        loop, machine = asyncio.get_running_loop(), world.machines[0]
        world.start(machine)
        async with world.client() as client:
            await client.put(b'/a', b'1')
            assert machine.member is not None
            read = machine.member.store.range

            def slow(query: Any) -> Any:
                machine.host.pause()  # as a loop that computes for two seconds: no ping is answered either
                loop.call_later(2.0, machine.host.resume, context=Context())
                return read(query)

            machine.member.store.range = slow  # type: ignore[method-assign]
            reply = await client.get(b'/a')
            assert reply.kv is not None
            assert reply.kv.value == b'1'

    world.world.run(main())


def test_a_watch_does_not_wait_for_ever_at_a_leader_that_was_cut_off_from_the_others() -> None:
    world = StoreWorld(2, members=3, faults=())

    async def main() -> None:
        for machine in world.machines:
            world.start(machine)
        async with world.client() as watcher, world.client() as writer:
            await writer.put(b'/a', b'1')
            async with watcher.watch(b'/a', None) as stream:
                await asyncio.sleep(5.0)  # both have followed the leader
                leader = world.leader()
                assert leader is not None
                assert watcher.endpoint == (leader.host.name, PORT)
                for other in world.machines:
                    if other is not leader:
                        world.world.net.cut(leader.host.name, other.host.name)
                await writer.put(b'/a', b'2')
                async with asyncio.timeout(10.0):
                    batch = await anext(aiter(stream))
                assert batch.events[0].kv.value == b'2'
                assert watcher.endpoint != (leader.host.name, PORT)

    world.world.run(main())
