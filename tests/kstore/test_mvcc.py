"""Revisions over keys against a slow model that keeps every state there ever was."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kstore.engine.layers import Engine, Table
from kstore.engine.memory import Image, MemoryBackend
from kstore.errors import BadRequest, Compacted, FutureRevision, KeyNotFound, LeaseNotFound, TooLarge
from kstore.model import NO_END, KeyValue, PutFlag, RangeFlag, RangeQuery, Relation, SortOrder, SortTarget, Target
from kstore.mvcc import store as store_module
from kstore.mvcc import txn
from kstore.mvcc.store import Change, Store
from kstore.wire import ITEMS_MAX, unpack

KEYS = [b'a', b'b', b'ba', b'c', b'd']
State = dict[bytes, tuple[bytes, int, int, int]]  # value, create, mod, version


def put(store: Store, key: bytes, value: bytes = b'v', lease: int = 0, flags: int = 0) -> tuple[Any, list[Change]]:
    changes: list[Change] = []
    operation = txn.parse_put(key, value, lease, int(flags))
    txn.check_operations(store, [operation])
    return unpack(txn.run(store, [operation], changes)[0]), changes


def delete(store: Store, key: bytes, end: bytes | None = None) -> tuple[Any, list[Change]]:
    changes: list[Change] = []
    return unpack(txn.run(store, [txn.parse_delete(key, end, 1)], changes)[0]), changes


def read(store: Store, key: bytes, end: bytes | None = None, **more: Any) -> Any:
    return store.range(RangeQuery(key, end, **more))


def kvs(store: Store, key: bytes, end: bytes | None = None, **more: Any) -> list[KeyValue]:
    return [KeyValue(*unpack(kv)) for kv in read(store, key, end, **more).kvs]


steps = st.lists(
    st.one_of(
        st.tuples(st.just('put'), st.sampled_from(KEYS), st.binary(max_size=3)),
        st.tuples(st.just('delete'), st.sampled_from(KEYS), st.sampled_from([None, *KEYS, NO_END])),
        st.tuples(st.just('compact'), st.integers(0, 30), st.none()),
        st.tuples(st.just('flush'), st.none(), st.none()),
        st.tuples(st.just('sweep'), st.none(), st.none()),
        st.tuples(st.just('restart'), st.none(), st.none()),
    ),
    max_size=40,
)


class Model:
    """Every state by revision."""

    def __init__(self) -> None:
        self.states: dict[int, State] = {1: {}}
        self.events: list[tuple[int, bytes, bool]] = []
        self.revision = 1
        self.compacted = 0

    def put(self, key: bytes, value: bytes) -> None:
        state = dict(self.states[self.revision])
        self.revision += 1
        old = state.get(key)
        state[key] = (value, old[1] if old else self.revision, self.revision, old[3] + 1 if old else 1)
        self.states[self.revision] = state
        self.events.append((self.revision, key, True))

    def delete(self, key: bytes, end: bytes | None) -> int:
        state = dict(self.states[self.revision])
        doomed = [k for k in sorted(state) if (k == key if end is None else key <= k and (end == NO_END or k < end))]
        if doomed:
            self.revision += 1
            for k in doomed:
                del state[k]
                self.events.append((self.revision, k, False))
            self.states[self.revision] = state
        return len(doomed)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_any_history_reads_like_the_model_at_every_retained_revision(history: list[tuple[str, Any, Any]]):
    image = Image()
    store, model = Store(Engine(MemoryBackend(image))), Model()
    for what, one, two in history:
        if what == 'put':
            model.put(one, two)
            put(store, one, two)
        elif what == 'delete':
            assert delete(store, one, two)[0][1] == model.delete(one, two)
        elif what == 'compact' and model.compacted < one <= model.revision:
            model.compacted = one
            store.compact(one)
        elif what == 'sweep':
            while store.sweeping:
                store.sweep()
        elif what in ('flush', 'restart'):
            store.save()
            asyncio.run(store.engine.flush(1))
            if what == 'restart':
                store = Store(Engine(MemoryBackend(image)))
    assert store.revision == model.revision
    for revision in range(1, model.revision + 1):
        if revision < model.compacted:
            with pytest.raises(Compacted):
                read(store, b'a', NO_END, revision=revision)
            continue
        found = {kv.key: (kv.value, *kv[2:5]) for kv in kvs(store, b'a', NO_END, revision=revision)}
        assert found == model.states[revision]
        assert read(store, b'a', NO_END, revision=revision).total == len(found)
    first = max(model.compacted, 1)
    seen = [(c.revision, c.key, c.is_put) for c in store.history(first, store.revision + 1)]
    assert seen == [e for e in model.events if e[0] >= first]


@settings(max_examples=60, deadline=None)
@given(steps)
def test_a_previous_version_is_the_one_before_or_absent_when_compacted(history: list[tuple[str, Any, Any]]):
    store, model = Store(Engine(MemoryBackend())), Model()
    for what, one, two in history:
        if what == 'put':
            model.put(one, two)
            put(store, one, two)
        elif what == 'delete':
            model.delete(one, two)
            delete(store, one, two)
        elif what == 'compact' and model.compacted < one <= model.revision:
            model.compacted = one
            store.compact(one)
            while store.sweeping:
                store.sweep()
    for change in store.history(model.compacted + 1, store.revision + 1):
        previous = store.previous(change)
        before = model.states[change.revision - 1].get(change.key)
        assert (previous is None) == (before is None)
        assert previous is None or unpack(previous)[1] == before[0]


def test_compaction_leaves_only_what_can_still_be_read(store: Store):
    for n in range(50):
        put(store, b'k', b'%d' % n)
    put(store, b'gone')
    delete(store, b'gone')
    put(store, b'end')
    store.compact(store.revision)
    while store.sweeping:
        store.sweep()
    assert len(list(store.engine.scan(Table.LOG))) == 2  # `k` and `end`
    assert list(store.engine.scan(Table.DEAD)) == []


def test_a_delete_at_the_compacted_revision_is_still_in_the_history(store: Store):
    put(store, b'k')
    delete(store, b'k')
    store.compact(3)
    while store.sweeping:
        store.sweep()
    assert [(c.revision, c.is_put) for c in store.history(3, 4)] == [(3, False)]
    put(store, b'x')
    store.compact(4)
    while store.sweeping:
        store.sweep()
    assert [c.key for c in store.history(1, 5)] == [b'x']


def test_an_empty_store_is_at_revision_one_and_a_delete_of_nothing_changes_nothing(store: Store):
    assert store.revision == 1
    assert delete(store, b'nothing')[0] == [1, 0, []]
    assert store.revision == 1
    with pytest.raises(FutureRevision):
        read(store, b'a', revision=2)


def test_compaction_of_the_past_or_the_future_is_refused(store: Store):
    put(store, b'a')
    store.compact(2)
    with pytest.raises(Compacted):
        store.compact(2)
    with pytest.raises(FutureRevision):
        store.compact(3)
    assert kvs(store, b'a', revision=2)


def test_limit_more_and_count(store: Store):
    for n in range(10):
        put(store, b'k%d' % n, b'x')
    result = read(store, b'k', b'l', limit=4)
    assert (len(result.kvs), result.more, result.total, result.cut) == (4, True, 10, False)
    result = read(store, b'k', b'l', limit=10)
    assert (len(result.kvs), result.more) == (10, False)
    assert read(store, b'k', b'l', flags=RangeFlag.COUNT_ONLY).kvs == []
    assert [kv.value for kv in kvs(store, b'k3', flags=RangeFlag.KEYS_ONLY)] == [b'']


def test_pages_of_one_revision_say_how_many_keys_are_left_and_look_only_at_their_own(store: Store, monkeypatch: Any):
    for n in range(50):
        put(store, b'k%02d' % n, b'x')
    at, first, looked = store.revision, b'k', 0

    def counted(query: RangeQuery, inner: Any) -> Any:
        nonlocal looked
        for log_key in inner(query):
            looked += 1
            yield log_key

    for name in ('_now', '_past'):
        monkeypatch.setattr(store, name, partial(counted, inner=getattr(store, name)))
    seen: list[bytes] = []
    while True:
        looked = 0
        page = read(store, first, b'l', limit=8, revision=at if seen else 0)
        assert looked <= 9 or not seen
        assert page.total == 50 - len(seen)
        seen += [KeyValue(*unpack(kv)).key for kv in page.kvs]
        if not page.more:
            break
        first = seen[-1] + b'\x00'
        delete(store, seen[-1])  # the past does not change
        put(store, b'k%03d' % len(seen))
    assert seen == [b'k%02d' % n for n in range(50)]


def test_a_page_within_a_transaction_counts_what_the_transaction_wrote(store: Store):
    put(store, b'k1')
    put(store, b'k2')
    at = store.revision
    operations = [txn.parse_put(b'k3', b'', 0, 0), RangeQuery(b'k', b'l', limit=1), RangeQuery(b'k', b'l', revision=at)]
    results = [unpack(r) for r in txn.run(store, operations, [])]
    assert (results[1][1], results[1][2]) == (3, True)
    assert results[2][1] == 2, 'a revision is what it was before the transaction'
    rest = RangeQuery(b'k1\x00', b'l', limit=1)
    assert (
        read(store, rest.key, rest.end, limit=1).total,
        read(store, rest.key, rest.end, limit=1, revision=at).total,
    ) == (2, 1)


def test_an_answer_has_fewer_keys_than_a_frame_may_have_items(store: Store, monkeypatch: Any):
    assert store_module.RANGE_KEYS_MAX < ITEMS_MAX
    monkeypatch.setattr(store_module, 'RANGE_KEYS_MAX', 3)
    for n in range(5):
        put(store, b'k%d' % n)
    result = read(store, b'k', b'l')
    assert (len(result.kvs), result.more, result.cut, result.total) == (3, True, True, 5)


def test_an_answer_over_the_byte_limit_is_cut_and_says_so(store: Store):
    for n in range(10):
        put(store, b'k%d' % n, b'x' * 1000)
    result = store.range(RangeQuery(b'k', b'l'), bytes_max=2500)
    assert (len(result.kvs), result.more, result.cut, result.total) == (3, True, True, 10)


def test_sorting_and_filters(store: Store):
    for n, key in enumerate([b'b', b'c', b'a']):
        put(store, key, b'%d' % (9 - n))
    put(store, b'c', b'0')
    order = [kv.key for kv in kvs(store, b'a', b'z', sort_target=SortTarget.MOD, sort_order=SortOrder.DESCEND)]
    assert order == [b'c', b'a', b'b']
    assert [kv.key for kv in kvs(store, b'a', b'z', sort_target=SortTarget.VALUE)] == [b'c', b'a', b'b']
    result = read(store, b'a', b'z', min_mod=4, limit=1, sort_target=SortTarget.CREATE)
    assert (len(result.kvs), result.more, result.total) == (1, True, 3)
    with pytest.raises(BadRequest, match='sort'):
        read(store, b'a', b'z', sort_target=9)


def transact(store: Store, compares: list[Any], success: list[Any], failure: list[Any]) -> tuple[bool, list[Any]]:
    conditions = txn.parse_compares(compares)
    branches = txn.parse_operations(failure), txn.parse_operations(success)
    good = all(txn.holds(store, c) for c in conditions)
    txn.check_operations(store, branches[good])
    return good, [unpack(r) for r in txn.run(store, branches[good], [])]


def test_a_transaction_writes_at_one_revision_and_reads_its_own_writes(store: Store):
    good, results = transact(store, [], [[1, b'a', b'1'], [3, b'a'], [1, b'b', b'2'], [2, b'zz']], [])
    assert good
    assert store.revision == 2
    assert results[1][3][0] == [b'a', b'1', 2, 2, 1, 0]
    assert [kv.mod_revision for kv in kvs(store, b'a', b'z')] == [2, 2]


def test_a_transaction_that_only_reads_keeps_the_revision(store: Store):
    transact(store, [], [[3, b'a'], [2, b'a']], [])
    assert store.revision == 1


@pytest.mark.parametrize(
    ('target', 'relation', 'operand', 'holds'),
    [
        (Target.VERSION, Relation.EQUAL, 2, True),
        (Target.VERSION, Relation.GREATER, 2, False),
        (Target.CREATE, Relation.LESS, 3, True),
        (Target.MOD, Relation.NOT_EQUAL, 3, False),
        (Target.VALUE, Relation.EQUAL, b'2', True),
        (Target.VALUE, Relation.LESS, b'2', False),
        (Target.LEASE, Relation.EQUAL, 0, True),
    ],
)
def test_compares(store: Store, target: Target, relation: Relation, operand: Any, holds: bool):
    put(store, b'a', b'1')
    put(store, b'a', b'2')
    assert transact(store, [[b'a', None, int(target), int(relation), operand]], [], [])[0] is holds


def test_a_missing_key_compares_as_zero_but_never_by_value(store: Store):
    assert transact(store, [[b'no', None, int(Target.MOD), 0, 0]], [], [])[0]
    assert transact(store, [[b'no', None, int(Target.VERSION), 1, 0]], [], [])[0] is False
    for relation in Relation:
        assert transact(store, [[b'no', None, int(Target.VALUE), int(relation), b'x']], [], [])[0] is False


def test_a_compare_of_a_range_holds_only_for_all_its_keys(store: Store):
    put(store, b'a1')
    put(store, b'a2')
    put(store, b'a2')
    assert transact(store, [[b'a', b'b', int(Target.VERSION), int(Relation.GREATER), 0]], [], [])[0]
    assert not transact(store, [[b'a', b'b', int(Target.VERSION), int(Relation.EQUAL), 1]], [], [])[0]


def test_a_transaction_is_refused_before_anything_is_written(store: Store):
    with pytest.raises(LeaseNotFound):
        transact(store, [], [[1, b'a', b'1'], [1, b'b', b'1', 77]], [])
    with pytest.raises(FutureRevision):
        transact(store, [], [[1, b'a', b'1'], [3, b'b', None, 0, 99]], [])
    with pytest.raises(KeyNotFound):
        transact(store, [], [[1, b'a', b'1'], [1, b'b', b'', 0, int(PutFlag.IGNORE_VALUE)]], [])
    with pytest.raises(BadRequest, match='duplicate key'):
        transact(store, [], [[1, b'a', b'1'], [1, b'a', b'2']], [])
    with pytest.raises(BadRequest, match='duplicate key'):
        transact(store, [], [[1, b'b', b'1'], [2, b'a', b'c']], [])
    with pytest.raises(TooLarge, match='too many operations'):
        transact(store, [], [[3, b'a']] * 129, [])
    assert store.revision == 1
    assert kvs(store, b'a', NO_END) == []


@pytest.mark.parametrize(
    'operation',
    [[1], [1, b''], [1, 'text', b''], [1, b'a', 'text'], [1, b'a', b'', -1], [9, b'a'], 'x', [3], [3, b'a', None, 'x']],
)
def test_malformed_operations_are_bad_requests(operation: Any):
    with pytest.raises(BadRequest):
        txn.parse_operations([operation])


def test_sizes_over_the_limit_are_refused():
    with pytest.raises(TooLarge, match='key of 481 bytes'):
        txn.parse_put(b'k' * 481)
    with pytest.raises(TooLarge, match='value'):
        txn.parse_put(b'k', b'v' * (txn.VALUE_BYTES_MAX + 1))


def test_a_put_can_keep_value_or_lease_and_return_what_was(store: Store):
    store.leases.grant(5, 10)
    put(store, b'a', b'1', lease=5)
    result, _ = put(store, b'a', b'', lease=5, flags=PutFlag.IGNORE_VALUE | PutFlag.PREV_KV)
    assert result[1][1] == b'1'
    assert kvs(store, b'a')[0][1:] == (b'1', 2, 3, 2, 5)
    put(store, b'a', b'3')
    lease = store.leases.get(5)
    assert lease is not None
    assert lease.keys == set(), 'a put without lease detaches the old one'
