"""Seats that are lent: demand over time, and shares that keep their bounds and add up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapi.flow.demand import SMOOTHING, TARGET_MIN, Claim, Demand, share_out


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_demand_is_weighed_by_time_and_decays_slowly() -> None:
    clock = Clock()
    demand = Demand(clock)
    demand.note(10)
    clock.now = 2.5
    demand.note(0)
    clock.now = 10.0
    demand.look()
    assert (demand.high, demand.average) == (10, 2.5)
    assert demand.deviation == pytest.approx((10 * 10 * 0.25 - 2.5**2) ** 0.5)
    envelope = demand.average + demand.deviation
    assert demand.smoothed == pytest.approx(envelope)
    clock.now = 20.0
    demand.look()
    assert (demand.high, demand.average, demand.deviation) == (0, 0.0, 0.0)
    assert demand.smoothed == pytest.approx(SMOOTHING * envelope)


def test_what_is_still_wanted_counts_for_the_next_period() -> None:
    clock = Clock()
    demand = Demand(clock)
    demand.note(7)
    clock.now = 10.0
    demand.look()
    clock.now = 20.0
    demand.look()
    assert (demand.high, demand.average) == (7, 7.0)


def test_an_idle_level_lends_to_a_busy_one_and_no_more_than_it_may() -> None:
    busy, idle = Claim(50, 100, 100), Claim(30, 100, 30)
    seats, _ = share_out(100, [busy, idle])
    assert seats == [pytest.approx(70, abs=1), pytest.approx(30, abs=1)]
    seats, _ = share_out(100, [Claim(50, 60, 100), idle])
    assert seats[0] == pytest.approx(60, abs=0.1)


claims = st.builds(
    lambda lower, target, room: Claim(lower, lower + target + room, lower + target),
    st.floats(0, 100), st.floats(0, 100), st.floats(0, 100),
)  # fmt: skip


@given(st.lists(claims, min_size=1, max_size=8), st.floats(0, 1))
def test_shares_add_up_keep_their_bounds_and_are_in_proportion(levels: list[Claim], at: float) -> None:
    least, most = sum(c.lower for c in levels), sum(c.upper for c in levels)
    total = round(least + (most - least) * at)
    seats, fraction = share_out(total, levels)
    for claim, got in zip(levels, seats, strict=True):
        assert claim.lower <= got <= claim.upper
        if claim.lower < got < claim.upper:
            assert got == pytest.approx(fraction * max(claim.target, TARGET_MIN))
    if least <= total <= most:
        assert sum(seats) == pytest.approx(total, abs=0.01)
