"""What a range keeps and in which order, and quick looks into packed key-values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from kstore.errors import BadRequest
from kstore.model import KeyValue, RangeQuery, SortOrder, SortTarget
from kstore.wire import pack, unpack

_SORT: dict[int, Callable[[KeyValue], Any]] = {
    SortTarget.KEY: lambda kv: kv.key,
    SortTarget.VERSION: lambda kv: kv.version,
    SortTarget.CREATE: lambda kv: kv.create_revision,
    SortTarget.MOD: lambda kv: kv.mod_revision,
    SortTarget.VALUE: lambda kv: kv.value,
}


def key_of(kv: bytes) -> bytes:
    """The key of a packed key-value, without unpacking the rest."""
    kind = kv[1]  # after the array's head byte: bin8, bin16 or bin32
    if kind == 0xC4:
        return kv[3 : 3 + kv[2]]
    if kind == 0xC5:
        return kv[4 : 4 + int.from_bytes(kv[2:4], 'big')]
    return kv[6 : 6 + int.from_bytes(kv[2:6], 'big')]


def without_value(kv: bytes) -> bytes:
    raw = unpack(kv)
    raw[1] = b''
    return pack(raw)


def is_special(query: RangeQuery) -> bool:
    """Whether `apply` has anything to do: a sort other than by ascending key, or a filter."""
    return (
        query.sort_target != SortTarget.KEY
        or query.sort_order not in (SortOrder.NONE, SortOrder.ASCEND)
        or bool(query.min_mod or query.max_mod or query.min_create or query.max_create)
    )


def apply(query: RangeQuery, found: Iterable[tuple[bytes, bytes]]) -> tuple[int, list[bytes]]:
    """Number of rows before the filters, and the references of those kept, sorted.

    found:  a reference and a packed key-value for each row, by ascending key.
    Raises: BadRequest for an unknown target or order.
    """
    target, order = query.sort_target, query.sort_order
    if target not in _SORT or order not in (SortOrder.NONE, SortOrder.ASCEND, SortOrder.DESCEND):
        raise BadRequest('invalid sort option')
    total, rows = 0, []
    for reference, packed in found:
        total += 1
        kv = KeyValue(*unpack(packed))
        if _kept(query, kv):
            rows.append((kv, reference))
    measure = _SORT[target]
    rows.sort(key=lambda row: measure(row[0]), reverse=order == SortOrder.DESCEND)
    return total, [reference for _, reference in rows]


def _kept(query: RangeQuery, kv: KeyValue) -> bool:
    return (
        (not query.min_mod or kv.mod_revision >= query.min_mod)
        and (not query.max_mod or kv.mod_revision <= query.max_mod)
        and (not query.min_create or kv.create_revision >= query.min_create)
        and (not query.max_create or kv.create_revision <= query.max_create)
    )
