"""Compare, then do one of two lists of operations: every write of the store goes through here, at one revision each.

Whatever can fail is checked before anything is written; a transaction is applied whole or not at all. Operations run in
order, reads see the writes before them, and all writes of a transaction share one revision (their order is the
sub-revision). Source: etcd server/etcdserver/txn; differs: no nesting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from kstore.engine.layers import Table
from kstore.errors import BadRequest, KeyNotFound, LeaseNotFound, TooLarge
from kstore.model import NO_END, Do, PutFlag, RangeQuery, Relation, Target
from kstore.mvcc.store import Change, Place, Store, pack_array
from kstore.wire import pack

TXN_OPS_MAX = 128
"""Operations of a branch, and compares, of one transaction."""
KEY_BYTES_MAX = 480
"""Longest key (the engine's own limit is 511, and lease records prefix the key)."""
VALUE_BYTES_MAX = 1536 * 1024
INT_MAX = (1 << 63) - 1
_NIL = b'\xc0'


class Put(NamedTuple):
    key: bytes
    value: bytes
    lease: int
    flags: int


class Delete(NamedTuple):
    key: bytes
    end: bytes | None
    flags: int


class Compare(NamedTuple):
    key: bytes
    end: bytes | None
    target: int
    relation: int
    operand: int | bytes


Operation = Put | Delete | RangeQuery


def check_key(key: object, name: str = 'key') -> bytes:
    """Raises BadRequest, TooLarge."""
    if type(key) is not bytes or not key:
        raise BadRequest(f'{name} is not provided')
    if len(key) > KEY_BYTES_MAX:
        raise TooLarge(f'{name} of {len(key)} bytes is over the limit of {KEY_BYTES_MAX}')
    return key


def check_end(end: object) -> bytes | None:
    if end is None or (type(end) is bytes and end):
        return end
    raise BadRequest('range end must be bytes, or nil for a single key')


def check_int(value: object, name: str) -> int:
    """Raises BadRequest unless 0 <= value < 2^63."""
    if type(value) is not int or not 0 <= value <= INT_MAX:
        raise BadRequest(f'{name} must be an integer from 0 to 2^63-1')
    return value


def parse_put(key: object, value: object = b'', lease: object = 0, flags: object = 0) -> Put:
    """Raises BadRequest, TooLarge."""
    if type(value) is not bytes:
        raise BadRequest('value must be bytes')
    if len(value) > VALUE_BYTES_MAX:
        raise TooLarge(f'value of {len(value)} bytes is over the limit of {VALUE_BYTES_MAX}')
    put = Put(check_key(key), value, check_int(lease, 'lease'), check_int(flags, 'flags'))
    if put.flags:
        if put.flags & PutFlag.IGNORE_VALUE and value:
            raise BadRequest('value is provided')
        if put.flags & PutFlag.IGNORE_LEASE and lease:
            raise BadRequest('lease is provided')
    return put


def parse_delete(key: object, end: object = None, flags: object = 0) -> Delete:
    return Delete(check_key(key), check_end(end), check_int(flags, 'flags'))


def parse_range(raw: Sequence[Any]) -> RangeQuery:
    """Raises BadRequest; trailing fields may be left out."""
    if not 1 <= len(raw) <= len(RangeQuery._fields):
        raise BadRequest('malformed range')
    for name, value in zip(RangeQuery._fields[2:], raw[2:], strict=False):
        if type(value) is not int:
            raise BadRequest(f'{name} must be an integer')
    check_key(raw[0])
    check_end(raw[1] if len(raw) > 1 else None)
    return RangeQuery(*raw)


def parse_operations(raw: object) -> list[Operation]:
    """Raises BadRequest, TooLarge."""
    if not isinstance(raw, list):
        raise BadRequest('operations must be a list')
    if len(raw) > TXN_OPS_MAX:
        raise TooLarge(f'too many operations in txn request: {len(raw)}, the limit is {TXN_OPS_MAX}')
    operations: list[Operation] = []
    for item in raw:
        if not isinstance(item, list) or not 2 <= len(item) <= 12:
            raise BadRequest('malformed operation')
        if item[0] == Do.PUT and len(item) <= 5:
            operations.append(parse_put(*item[1:]))
        elif item[0] == Do.DELETE and len(item) <= 4:
            operations.append(parse_delete(*item[1:]))
        elif item[0] == Do.RANGE:
            operations.append(parse_range(item[1:]))
        else:
            raise BadRequest('unknown operation')
    _check_duplicates(operations)
    return operations


def _check_duplicates(operations: Sequence[Operation]) -> None:
    """A key is put at most once, and not both put and deleted."""
    puts = [op.key for op in operations if isinstance(op, Put)]
    known = set(puts)
    if len(known) < len(puts):
        raise BadRequest('duplicate key given in txn request')
    for op in operations:
        if not isinstance(op, Delete):
            continue
        if op.key in known if op.end is None else any(op.key <= k and (op.end == NO_END or k < op.end) for k in known):
            raise BadRequest('duplicate key given in txn request')


def parse_compares(raw: object) -> list[Compare]:
    """Raises BadRequest, TooLarge."""
    if not isinstance(raw, list):
        raise BadRequest('compares must be a list')
    if len(raw) > TXN_OPS_MAX:
        raise TooLarge(f'too many operations in txn request: {len(raw)} compares, the limit is {TXN_OPS_MAX}')
    compares = []
    for item in raw:
        if not isinstance(item, list) or len(item) != 5:
            raise BadRequest('malformed compare')
        key, end, target, relation, operand = item
        if target not in _MEASURE or relation not in _RELATION:
            raise BadRequest('unknown compare target or relation')
        if type(operand) is not (bytes if target == Target.VALUE else int):
            raise BadRequest('compare operand has the wrong type')
        compares.append(Compare(check_key(key), check_end(end), target, relation, operand))
    return compares


_ABSENT = Place(0, 0, 0, 0, 0)
_MEASURE: dict[int, Callable[[Place], int]] = {
    Target.VERSION: lambda p: p.version,
    Target.CREATE: lambda p: p.create,
    Target.MOD: lambda p: p.mod,
    Target.VALUE: lambda p: 0,  # looked up in the log, see _holds
    Target.LEASE: lambda p: p.lease,
}
_RELATION: dict[int, Callable[[Any, Any], bool]] = {
    Relation.EQUAL: lambda a, b: bool(a == b),
    Relation.GREATER: lambda a, b: bool(a > b),
    Relation.LESS: lambda a, b: bool(a < b),
    Relation.NOT_EQUAL: lambda a, b: bool(a != b),
}


def holds(store: Store, compare: Compare) -> bool:
    """Whether every key of the compare's range satisfies it; a missing single key counts as all zeros, and never
    satisfies a compare of its value. An empty range holds, except for the value."""
    if compare.end is None:
        place = store.place(compare.key)
        if place is None and compare.target == Target.VALUE:
            return False
        return _holds(store, compare, compare.key, place or _ABSENT)
    found = list(store.places(compare.key, compare.end))
    if not found:
        return compare.target != Target.VALUE and _holds(store, compare, compare.key, _ABSENT)
    return all(_holds(store, compare, key, place) for key, place in found)


def _holds(store: Store, compare: Compare, key: bytes, place: Place) -> bool:
    if compare.target == Target.VALUE:
        return _RELATION[compare.relation](value_of(store, key), compare.operand)
    return _RELATION[compare.relation](_MEASURE[compare.target](place), compare.operand)


def value_of(store: Store, key: bytes) -> bytes:
    from kstore.wire import unpack  # noqa: PLC0415 — rare path

    kv = store.current(key)
    return b'' if kv is None else unpack(kv)[1]


def check_operations(store: Store, operations: Sequence[Operation]) -> None:
    """Everything that could refuse an operation, before any is done.

    Raises LeaseNotFound, KeyNotFound, Compacted, FutureRevision.
    """
    for op in operations:
        if isinstance(op, Put):
            if op.lease and op.lease not in store.leases:
                raise LeaseNotFound(f'lease {op.lease} not found')
            needs_key = op.flags and op.flags & (PutFlag.IGNORE_VALUE | PutFlag.IGNORE_LEASE)
            if needs_key and store.engine.get(Table.KEYS, op.key) is None:
                raise KeyNotFound('key not found')
        elif isinstance(op, RangeQuery):
            store.check_revision(op.revision)


def run(store: Store, operations: Sequence[Operation], changes: list[Change]) -> list[bytes]:
    """Do checked operations at the next revision; one packed result each. The revision moves iff something changed."""
    revision, first = store.revision + 1, len(changes)
    results = []
    for op in operations:
        if isinstance(op, Put):
            results.append(_put(store, op, revision, changes, first))
        elif isinstance(op, Delete):
            results.append(_delete(store, op, revision, changes, first))
        else:
            results.append(store.range(op, written=len(changes) > first).encode())
    if len(changes) > first:
        store.revision = revision
    return results


def _put(store: Store, op: Put, revision: int, changes: list[Change], first: int) -> bytes:
    value, lease = op.value, op.lease
    previous = _NIL
    if op.flags:
        if op.flags & PutFlag.PREV_KV:
            previous = store.current(op.key) or _NIL
        if op.flags & PutFlag.IGNORE_VALUE:
            value = value_of(store, op.key)
        if op.flags & PutFlag.IGNORE_LEASE:
            place = store.place(op.key)
            lease = place.lease if place else 0
    changes.append(store.put(op.key, value, lease, revision, len(changes) - first))
    return b'\x92' + pack(revision) + previous


def _delete(store: Store, op: Delete, revision: int, changes: list[Change], first: int) -> bytes:
    previous = []
    deleted = 0
    for key in store.keys(op.key, op.end):
        if op.flags & PutFlag.PREV_KV:
            previous.append(store.current(key) or _NIL)
        change = store.delete(key, revision, len(changes) - first)
        if change is not None:
            changes.append(change)
            deleted += 1
    return b'\x93' + pack(revision if deleted else store.revision) + pack(deleted) + pack_array(previous)
