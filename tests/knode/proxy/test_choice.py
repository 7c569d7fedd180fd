"""Which backend a client gets."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from knode.proxy import choice
from knode.proxy.choice import TRIES_MAX, Choice
from knode.proxy.model import Backend

BACKENDS = tuple(Backend(f'127.64.1.{n}', 8080, 'n1') for n in range(2, 8))
CLIENTS = tuple(f'127.64.9.{n}' for n in range(2, 200))


def first(found: list[Backend]) -> Backend:
    return found[0]


@given(st.integers(1, 6), st.integers(1, 5))
def test_without_affinity_backends_take_turns(count, rounds):
    picks = Choice()
    got = Counter(first(picks.order(BACKENDS[:count], 'c', 0, 0.0)) for _ in range(count * rounds))
    assert {*got.values()} == {rounds}
    assert len(got) == count


def test_a_connection_tries_different_backends_and_not_too_many():
    order = Choice().order(BACKENDS, 'c', 0, 0.0)
    assert len(order) == len({*order}) == TRIES_MAX
    assert Choice().order((), 'c', 0, 0.0) == []


def test_a_client_keeps_its_backend_until_it_is_silent_too_long_or_the_backend_goes():
    picks = Choice()
    picks.keep('c', BACKENDS[4], 100.0)
    assert first(picks.order(BACKENDS, 'c', 10, 109.9)) == BACKENDS[4]
    picks.keep('c', BACKENDS[4], 109.9)
    assert first(picks.order(BACKENDS[::-1], 'c', 10, 119.8)) == BACKENDS[4]
    assert first(picks.order(BACKENDS[:4], 'c', 10, 111.0)) in BACKENDS[:4]
    strange = next(b for b in BACKENDS if b != first(Choice().order(BACKENDS, 'c', 10, 0.0)))
    picks.keep('c', strange, 100.0)
    assert first(picks.order(BACKENDS, 'c', 10, 110.0)) != strange
    picks.forget()
    assert first(picks.order(BACKENDS, 'c', 10, 110.0)) == first(Choice().order(BACKENDS, 'c', 10, 0.0))


def test_a_proxy_that_knows_nobody_sends_each_client_where_another_one_does_and_moves_only_those_of_a_lost_backend():
    here, there = Choice(), Choice()
    before = {c: first(here.order(BACKENDS, c, 10, 0.0)) for c in CLIENTS}
    assert before == {c: first(there.order(BACKENDS, c, 10, 0.0)) for c in CLIENTS}
    assert {*before.values()} == {*BACKENDS}
    after = {c: first(there.order(BACKENDS[1:], c, 10, 0.0)) for c in CLIENTS}
    assert all(after[c] == b for c, b in before.items() if b != BACKENDS[0])


def test_the_client_seen_longest_ago_is_forgotten_first(monkeypatch):
    monkeypatch.setattr(choice, 'CLIENTS_MAX', 2)
    picks = Choice()
    for client in ('a', 'b', 'a', 'c'):
        picks.keep(client, BACKENDS[0], 0.0)
    assert [*picks._clients] == ['a', 'c']
