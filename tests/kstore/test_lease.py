"""Deadlines on a clock that the test moves."""

from __future__ import annotations

from kstore.lease import LeaseBook, LeaseClock


def clock_with(*ttls: int) -> tuple[LeaseBook, LeaseClock]:
    book = LeaseBook()
    for number, ttl_s in enumerate(ttls, 1):
        book.grant(number, ttl_s)
    clock = LeaseClock(book)
    clock.promote(book, 100.0)
    return book, clock


def test_a_lease_expires_at_its_deadline_and_not_before():
    _, clock = clock_with(10, 20)
    assert clock.expired(109.9) == []
    assert clock.expired(110.0) == [1]
    assert clock.expired(110.0) == [1], 'it stays due until the log says that it ended'
    clock.forget(1)
    assert clock.expired(119.0) == []
    assert clock.next_deadline() == 120.0


def test_a_renewal_starts_the_ttl_again_but_never_after_the_deadline():
    _, clock = clock_with(10)
    assert clock.renew(1, 109.0) == 10
    assert clock.remaining(1, 110.0) == 9.0
    assert clock.expired(118.0) == []
    assert clock.renew(1, 119.0) == 0
    assert clock.expired(119.0) == [1]
    assert clock.renew(99, 0.0) == 0


def test_a_new_leader_goes_on_from_the_last_checkpoint():
    book, clock = clock_with(100)
    assert clock.due_checkpoints(105.0) == []
    assert clock.due_checkpoints(130.5) == [(1, 70)]
    lease = book.get(1)
    assert lease is not None
    lease.remaining_s = 70
    assert clock.due_checkpoints(131.0) == []
    successor = LeaseClock(book)
    successor.promote(book, 1000.0)
    assert successor.remaining(1, 1000.0) == 70.0


def test_a_renewal_of_a_checkpointed_lease_must_withdraw_the_checkpoint():
    book, clock = clock_with(100, 100)
    lease = book.get(2)
    assert lease is not None
    lease.remaining_s = 40
    assert clock.needs_withdrawal([1, 2, 3]) == [(2, 100)]


def test_many_renewals_do_not_grow_the_heap():
    _, clock = clock_with(10)
    for n in range(10_000):
        clock.renew(1, 100.0 + n / 1000)
    assert len(clock._heap) < 100
    assert clock.remaining(1, 110.0) > 9.0


def test_a_demoted_leader_expires_nothing():
    _, clock = clock_with(1)
    clock.demote()
    assert clock.expired(1e9) == []
    assert clock.remaining(1, 0.0) == -1.0
