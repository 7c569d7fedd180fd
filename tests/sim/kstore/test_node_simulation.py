"""Seeded histories of whole nodes; `python -m tests.sim` runs many more."""

from __future__ import annotations

import pytest

from tests.sim.kstore.node_world import simulate


@pytest.mark.sim
@pytest.mark.parametrize('seed', range(12))
def test_nothing_acknowledged_is_lost_and_no_read_is_stale(seed: int) -> None:
    simulate(seed)


def test_a_node_history_replays_bit_for_bit_and_does_something() -> None:
    first, second = simulate(1, seconds=8), simulate(1, seconds=8)
    assert first.sequence == second.sequence
    assert first.world.clock.monotonic() == second.world.clock.monotonic()
    assert len(first.acked) > 30
    assert first.reads > 30
