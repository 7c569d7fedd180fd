"""The checkers of watches, leases and reads of the past, on records known to be wrong."""

from __future__ import annotations

from typing import Any

import pytest

from kstore.model import Event, KeyValue
from tests.sim.kstore import judges
from tests.sim.kstore.history import NEVER, History, LeaseRun, Operation, WatchRun
from tests.sim.kstore.ledger import Ended, Ledger
from tests.sim.kstore.raft_world import Violation

K = b'/k/1'


def shown(revision: int, *, prev: int = 0, deleted: bool = False, key: bytes = K) -> Event:
    """The event of `ledger()` at `revision`, with the version of revision `prev` before it."""
    before = KeyValue(key, b'%d' % prev, 2, prev, prev - 1, 0) if prev else None
    if deleted:
        return Event('delete', KeyValue(key, b'', 0, revision, 0, 0), before)
    return Event('put', KeyValue(key, b'%d' % revision, 2, revision, revision - 1, 0), before)


def ledger() -> Ledger:
    """Puts at 2, 3, 4, a deletion at 5; revision 3 has a second key."""
    found = Ledger(lambda: 0, lambda: 0.0)
    for r in (2, 3, 4):
        found.events[r] = ((True, K, (b'%d' % r, 2, r, r - 1, 0)),)
    found.events[3] += ((True, b'/k/2', (b'3', 2, 3, 2, 0)),)
    found.events[5] = ((False, K, None),)
    found.revision = 5
    return found


def watch(*batches: tuple[int, tuple[Event, ...]], progress: bool = True, closed: bool = True) -> History:
    run = WatchRun('w', b'/', b'0', 2, opened=1, first=2, progress=progress, closed=closed, batches=list(batches))
    return History(watches=[run])


SECOND = shown(3, key=b'/k/2')
WHOLE = (
    (3, (shown(2), shown(3, prev=2), SECOND)),
    (4, (shown(4, prev=3),)),
    (5, (shown(5, prev=4, deleted=True),)),
)


def test_a_whole_watch_is_accepted() -> None:
    judges.watch_guarantees(watch(*WHOLE, closed=False), ledger())
    judges.previous_values(watch(*WHOLE), ledger(), 0)


@pytest.mark.parametrize(
    ('what', 'batches'),
    [
        ('complete', (WHOLE[0], WHOLE[2])),
        ('complete', ((2, (shown(2),)), (4, (shown(4, prev=3),)))),
        ('unique', (WHOLE[0], WHOLE[0])),
        ('unique', (WHOLE[0], WHOLE[1], WHOLE[0])),
        ('complete', ((3, (shown(2), shown(3, prev=2))), (3, (SECOND,)))),
        ('ordered', ((3, (shown(3, prev=2), SECOND, shown(2))),)),
        ('complete', ((4, (shown(2), shown(3, prev=2), SECOND)),)),
        ('complete', ((3, ()), WHOLE[1])),
        ('bookmark', (WHOLE[0], WHOLE[1], (2, ()))),
        ('complete', ((3, (shown(2), shown(3, prev=2), shown(3, prev=2))),)),
    ],
)
def test_a_broken_watch_is_found(what: str, batches: Any) -> None:
    with pytest.raises(Violation, match=r'complete|unique|ordered|bookmark') as caught:
        judges.watch_guarantees(watch(*batches), ledger())
    assert what in str(caught.value)


def test_an_open_watch_must_see_the_end() -> None:
    with pytest.raises(Violation, match='missing'):
        judges.watch_guarantees(watch(*WHOLE[:2], closed=False), ledger())


def test_progress_that_nobody_asked_for_is_found() -> None:
    with pytest.raises(Violation, match='nobody asked'):
        judges.watch_guarantees(watch(WHOLE[0], (3, ()), progress=False), ledger())


def test_a_wrong_or_missing_previous_value_is_found_unless_compacted() -> None:
    wrong = watch(WHOLE[0], (4, (shown(4, prev=2),)))
    missing = watch(WHOLE[0], (4, (shown(4),)))
    for history in (wrong, missing):
        with pytest.raises(Violation, match='prev-value'):
            judges.previous_values(history, ledger(), 3)
    judges.previous_values(missing, ledger(), 4)


def test_a_read_of_the_past_must_be_what_was() -> None:
    judges.glimpses(History(glimpses=[(K, 3, (b'3', 2, 3, 2, 0)), (K, 5, None)]), ledger())
    with pytest.raises(Violation, match='read'):
        judges.glimpses(History(glimpses=[(K, 4, (b'3', 2, 3, 2, 0))]), ledger())


def lease(ended_at: float | None, *confirmed: tuple[float, float]) -> tuple[History, Ledger]:
    run = LeaseRun(7, 10, confirmed[0][0], list(confirmed), last_asked=confirmed[-1][1])
    book = Ledger(lambda: 0, lambda: 0.0)
    if ended_at is not None:
        book.ended[7] = Ended(2, 1, ended_at)
    return History(leases={7: run}), book


def test_a_lease_that_ends_too_early_is_found() -> None:
    judges.lease_safety(*lease(20.2, (0, 0.1), (10, 10.1)), [], judges.Dark(), 30)
    with pytest.raises(Violation, match='but ended'):
        judges.lease_safety(*lease(19.9, (0, 0.1), (10, 10.1)), [], judges.Dark(), 30)


@pytest.mark.parametrize('ended_at', [13.0, None])
def test_a_lease_that_lives_too_long_is_found(ended_at: float | None) -> None:
    with pytest.raises(Violation, match='lives'):
        judges.lease_safety(*lease(ended_at, (0, 0.1)), [], judges.Dark(), 30)
    judges.lease_safety(*lease(ended_at, (0, 0.1)), [5.0, 12.0, 18.0, 24.0], judges.Dark(), 30)


def test_changes_of_leader_in_quick_succession_lengthen_a_lease_by_little() -> None:
    with pytest.raises(Violation, match='3 changes'):
        judges.lease_safety(*lease(None, (0, 0.1)), [1.0, 2.0, 3.0], judges.Dark(), 30)


def test_a_leader_that_gives_a_lease_more_than_was_on_record_of_it_is_found() -> None:
    history, book = lease(13.5, (0, 0.1))
    book.checkpoints[7] = [(5.0, 5)]
    judges.lease_safety(history, book, [8.0], judges.Dark(), 30)
    history, book = lease(15.5, (0, 0.1))
    book.checkpoints[7] = [(5.0, 5)]
    with pytest.raises(Violation, match='had 5 s on record'):
        judges.lease_safety(history, book, [8.0], judges.Dark(), 30)
    judges.lease_safety(history, book, [8.0], judges.Dark([9.0]), 30)
    judges.lease_safety(history, book, [8.0], judges.Dark(always_s=1.0), 30)
    with pytest.raises(Violation, match='on record'):
        judges.lease_safety(history, book, [8.0], judges.Dark([7.0, 16.5]), 30)
    book.checkpoints[7] += [(8.1, 10)]  # withdrawn: the renewal was under way
    judges.lease_safety(history, book, [8.0], judges.Dark(), 30)


def test_members_that_differ_and_events_that_do_not_add_up_are_found() -> None:
    book = ledger()
    whole = {'KEYS': [(b'/k/2', b'')], 'revision': 5}
    judges.states_agree({1: whole, 2: dict(whole)}, book)
    with pytest.raises(Violation, match='hash'):
        judges.states_agree({1: whole, 2: whole | {'revision': 6}}, book)
    with pytest.raises(Violation, match='state'):
        judges.states_agree({1: whole | {'KEYS': []}}, book)
    del book.events[4]
    with pytest.raises(Violation, match='revision'):
        judges.states_agree({1: whole}, book)


def test_the_end_of_a_lease_is_not_taken_for_what_a_write_without_an_answer_did() -> None:
    """The put at revision 3 took the key from lease 7 before that ended, which then deleted nothing."""
    found = Ledger(lambda: 0, lambda: 0.0)
    found.events[2] = ((True, K, (b'a', 2, 2, 1, 7)),)
    found.events[3] = ((True, K, (b'b', 2, 3, 2, 0)),)
    found.revision = 3
    found.ended[7] = Ended(revision=3, moment=6, at_s=1.0)
    history = History(operations=[
        Operation('c', 'put', (K, b'a', 7), 1, 2, 2),
        Operation('c', 'put', (K, b'b', 0), 3, NEVER, None),
        Operation('c', 'get', (K, 0), 7, 8, (3, (b'b', 2, 3, 2, 0))),
    ])  # fmt: skip
    judges.events_follow(judges.linearizability(history, found), found)
    del history.operations[2]  # nobody read the key: the answers alone would allow the end to delete it
    judges.events_follow(judges.linearizability(history, found), found)
