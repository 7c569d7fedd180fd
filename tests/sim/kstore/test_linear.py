"""The checker of orders, on histories known to be good and known to be bad."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kstore.errors import LeaseNotFound
from tests.sim.kstore import linear
from tests.sim.kstore.history import NEVER, Operation

A, B = b'a', b'b'


def op(call: int, end: int, kind: str, *arguments: Any, result: Any = None) -> Operation:
    return Operation('c', kind, arguments, call, end, result)


def put(call: int, end: int, key: bytes, value: bytes, revision: int, *, lease: int = 0) -> Operation:
    return op(call, end, 'put', key, value, lease, result=revision)


def get(call: int, end: int, key: bytes, revision: int, version: Any) -> Operation:
    return op(call, end, 'get', key, 0, result=(revision, version))


ONE = (b'1', 2, 2, 1, 0)
TWO = (b'2', 2, 3, 2, 0)

GOOD = {
    'nothing happened': [],
    'one after the other': [put(1, 2, A, b'1', 2), get(3, 4, A, 2, ONE)],
    'a read beside a write may see the old state': [put(1, 4, A, b'1', 2), get(2, 3, A, 1, None)],
    'a read beside a write may see the new state': [put(1, 4, A, b'1', 2), get(2, 3, A, 2, ONE)],
    'writes beside each other come in either order': [
        put(1, 5, A, b'2', 3), put(2, 4, A, b'1', 2), get(6, 7, A, 3, TWO),
    ],
    'a write of unknown outcome may be seen': [op(1, NEVER, 'put', A, b'1', 0), get(5, 6, A, 2, ONE)],
    'a write of unknown outcome may never be seen': [op(1, NEVER, 'put', A, b'1', 0), get(5, 6, A, 1, None)],
    'a write of unknown outcome may come late': [
        op(1, NEVER, 'put', A, b'1', 0), get(5, 6, A, 1, None), get(7, 8, A, 2, ONE),
    ],
    'one swap of two wins': [
        op(1, 4, 'cas', A, 0, b'1', result=(2, True, None)), op(2, 3, 'cas', A, 0, b'x', result=(2, False, ONE)),
    ],
    'a deletion of nothing changes nothing': [op(1, 2, 'delete', A, result=(1, 0)), put(3, 4, A, b'1', 2)],
    'the end of a lease takes its keys': [
        put(1, 2, A, b'1', 2, lease=7), op(0, 5, 'end', 7, 3, result=3), get(6, 7, A, 3, None),
    ],
    'a put on a lease that has ended is refused': [
        op(0, 2, 'end', 7, 1, result=1), op(3, 4, 'put', A, b'1', 7, result=LeaseNotFound('gone')),
    ],
    'a transaction writes at one revision': [
        op(1, 2, 'txn', ((A, 0),), (('put', A, b'1'), ('put', B, b'1')), result=(2, True)),
        get(3, 4, A, 2, ONE), get(5, 6, B, 2, ONE),
    ],
}  # fmt: skip

BAD = {
    'a stale read': [put(1, 2, A, b'1', 2), get(3, 4, A, 1, None)],
    'a lost write': [put(1, 2, A, b'1', 2), put(3, 4, A, b'2', 2)],
    'a value from nowhere': [get(1, 2, A, 1, ONE)],
    'a read back in time': [
        put(1, 9, A, b'1', 2), get(2, 3, A, 2, ONE), get(4, 5, A, 1, None),
    ],
    'an unknown write that was seen and vanished': [
        op(1, NEVER, 'put', A, b'1', 0), get(2, 3, A, 2, ONE), get(4, 5, A, 2, None),
    ],
    'a write applied twice': [put(1, 2, A, b'1', 2), get(3, 4, A, 3, (b'1', 2, 3, 2, 0))],
    'two swaps that both win': [
        op(1, 4, 'cas', A, 0, b'1', result=(2, True, None)), op(2, 3, 'cas', A, 0, b'2', result=(3, True, None)),
    ],
    'a swap that loses to nobody': [op(1, 2, 'cas', A, 0, b'1', result=(1, False, None))],
    'a transaction seen in half': [
        op(1, 2, 'txn', (), (('put', A, b'1'), ('put', B, b'1')), result=(2, True)), get(3, 4, B, 2, None),
    ],
    'a key that outlives its lease': [
        put(1, 2, A, b'1', 2, lease=7), op(0, 5, 'end', 7, 3, result=3), get(6, 7, A, 3, (b'1', 2, 2, 1, 7)),
    ],
    'a put on an ended lease': [op(0, 2, 'end', 7, 1, result=1), put(3, 4, A, b'1', 2, lease=7)],
    'a live lease that is refused': [op(1, 2, 'put', A, b'1', 7, result=LeaseNotFound('gone'))],
    'a revocation without an end': [op(1, 2, 'gone', 7, result=True)],
    'an unknown write at another revision than it was seen at': [
        Operation('c', 'put', (A, b'1', 0), 1, NEVER, None, hint=3), get(2, 3, A, 2, ONE),
    ],
}  # fmt: skip


@pytest.mark.parametrize('name', GOOD)
def test_a_good_history_has_an_order(name: str) -> None:
    verdict = linear.check(GOOD[name])
    assert verdict.order is not None, str(verdict)


@pytest.mark.parametrize('name', BAD)
def test_a_bad_history_has_none(name: str) -> None:
    verdict = linear.check(BAD[name])
    assert verdict.order is None
    assert 'no order explains it' in str(verdict)


def explained(ops: list[Operation]) -> bool:
    """By trying every order of every selection of the unknown operations."""
    certain = [o for o in ops if o.end != NEVER]
    open_ = [o for o in ops if o.end == NEVER]
    for chosen in range(1 << len(open_)):
        some = certain + [o for i, o in enumerate(open_) if chosen >> i & 1]
        for order in permutations(some):
            if any(b.end < a.call for i, a in enumerate(order) for b in order[i + 1 :]):
                continue
            state: linear.State | None = linear.State()
            for o in order:
                state = state and linear.step(state, o)
            if state is not None:
                return True
    return False


@st.composite
def histories(draw: Any) -> list[Operation]:
    """Up to five operations with plausible and less plausible answers.

    They begin at even moments and end at odd ones: one counter numbers both, so that no two are ever the same.
    """
    ops = []
    for n in range(draw(st.integers(1, 5))):
        call = 2 * (draw(st.integers(0, 6)) * 10 + n)
        end = NEVER if draw(st.integers(0, 3)) == 0 else call + 2 * draw(st.integers(0, 30)) + 1
        revision = draw(st.integers(1, 4))
        kind = draw(st.sampled_from(['put', 'get', 'delete']))
        if kind == 'put':
            ops.append(put(call, end, A, b'%d' % n, revision))
        elif kind == 'delete':
            ops.append(op(call, end, 'delete', A, result=(revision, draw(st.integers(0, 1)))))
        elif end != NEVER:
            value = b'%d' % draw(st.integers(0, 4))
            version = draw(st.sampled_from([None, (value, revision, revision, 1, 0), (value, 2, revision, 2, 0)]))
            ops.append(get(call, end, A, revision, version))
    return ops


@settings(max_examples=150, deadline=None)
@given(histories())
def test_the_search_agrees_with_trying_every_order(ops: list[Operation]) -> None:
    assert (linear.check(ops).order is not None) == explained(ops)
