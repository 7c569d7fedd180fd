"""Seeded histories of bare cores under crashes, partitions, loss and membership changes; see the world's docstring."""

from __future__ import annotations

import pytest

from tests.sim.kstore.raft_world import RaftWorld, simulate

FOUND_BUGS = {
    831: 'a member elected after its removal must append its own no-op although it is handing over already',
    2541: 'a leader that stepped down on its removal left a voter that could neither win nor be helped',
    3825: 'the judge of pre-votes blamed a member for a hand-over that had begun before it was cut off',
}


@pytest.mark.parametrize('start', range(0, 200, 25))
def test_no_history_breaks_an_invariant(start: int) -> None:
    for seed in range(start, start + 25):
        try:
            simulate(seed)
        except Exception as e:
            e.add_note(f'seed {seed}')
            raise


@pytest.mark.parametrize('seed', FOUND_BUGS)
def test_a_seed_that_once_found_a_bug_stays_clean(seed: int) -> None:
    simulate(seed)


def test_a_seed_replays_bit_for_bit() -> None:
    assert simulate(7).checks == simulate(7).checks


def test_the_histories_are_worth_checking() -> None:
    """Something commits, leaders change, snapshots and membership changes happen."""
    worlds: list[RaftWorld] = [simulate(seed) for seed in range(20)]
    assert sum(w.checks.commit for w in worlds) > 400
    assert sum(len(w.checks.leaders) for w in worlds) > 60
    assert any(m.core.log.offset for w in worlds for m in w.members.values())
    assert any(m.core.conf != worlds[0].members[1].core.conf for w in worlds for m in w.members.values())
