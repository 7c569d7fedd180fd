"""Keys with revisions: reads at any retained revision, and the two writes everything else is made of.

One record per written version, under (revision, sub-revision) in `Table.LOG`; it names the version before it, so the
versions of a key form a chain from `Table.KEYS` (or `Table.DEAD`, for a deleted key) into the past. A read at an old
revision follows the chain, a watch reads the log in order, and compaction forgets what a newer version up to the
compacted revision has replaced: it only looks at records written since the compaction before.

The stored key-value is already in wire form, `[key, value, create, mod, version, lease]`: reads glue bytes.
Semantics: etcd's, see api/etcdserverpb/rpc.proto and server/storage/mvcc there.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import islice
from struct import Struct
from typing import NamedTuple

from kstore.engine.layers import Engine, Table
from kstore.errors import Compacted, FutureRevision, Stopped
from kstore.lease import LeaseBook
from kstore.model import NO_END, RangeFlag, RangeQuery
from kstore.mvcc import select
from kstore.wire import pack

RANGE_BYTES_MAX = 4 * 1024 * 1024
"""Bytes of key-values in one answer; a longer one is cut there, and the client fetches on at the same revision."""
RANGE_KEYS_MAX = 100_000
"""Key-values in one answer, likewise; fewer than a frame may have items (`wire.ITEMS_MAX`)."""
PAGES_REMEMBERED = 1_000
"""Lists under way of which the number of remaining keys is known."""
COMPACT_STEP_RECORDS = 512
"""Log records looked at in one slice of a compaction."""

_PLACE = Struct('>QQIQQ')
_LOG_KEY = Struct('>QI')
_U64 = Struct('>Q')
_NOWHERE = bytes(12)
_HEAD = 13  # of a log record: the log key of the version before (12), then 1 for a put, 0 for a delete


class Place(NamedTuple):
    """Where a key's newest version is, and all of it but the value."""

    create: int
    mod: int
    sub: int
    version: int
    lease: int


class Change(NamedTuple):
    """One applied write, as watches see it."""

    revision: int
    key: bytes
    record: bytes
    """Log record: `prev` reference, kind, key-value."""

    @property
    def is_put(self) -> bool:
        return self.record[12] == 1


class RangeResult(NamedTuple):
    revision: int
    total: int
    more: bool
    kvs: list[bytes]
    """Packed key-values."""
    cut: bool
    """RANGE_BYTES_MAX, not the limit, ended the list."""

    def encode(self) -> bytes:
        head = pack(self.revision) + pack(self.total) + pack(self.more)
        return b'\x95' + head + pack_array(self.kvs) + pack(self.cut)


def pack_array(items: list[bytes]) -> bytes:
    """A msgpack array of packed items."""
    n = len(items)
    head = (
        bytes([0x90 | n]) if n < 16 else b'\xdc' + n.to_bytes(2, 'big') if n < 65536 else b'\xdd' + n.to_bytes(4, 'big')
    )
    return head + b''.join(items)


class Store:
    """The versions of all keys; see the module's text. Writes belong to a transaction, see `kstore.mvcc.txn`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.leases = LeaseBook()
        self.load()

    def load(self) -> None:
        """Read the counters and leases again, after a start or a restored snapshot."""
        self.revision = self._counter(b'revision', 1)
        """Of the newest write; an empty store is at 1."""
        self.compacted = self._counter(b'compacted', 0)
        """Reads below this revision fail."""
        self._rest: dict[tuple[bytes, bytes | None, int], int] = {}
        """Key and end of a page to come, and its revision → keys from there on: see `_remember`."""
        self._swept = self._counter(b'swept', 0)
        self._swept_for = self._swept
        self.leases = LeaseBook()
        for raw, ttl in self.engine.scan(Table.LEASES):
            lease_id = int.from_bytes(raw, 'big')
            self.leases.grant(lease_id, int.from_bytes(ttl[:8], 'big'), int.from_bytes(ttl[8:], 'big'))
        for raw, _ in self.engine.scan(Table.LEASED):
            self.leases.attach(raw[8:], int.from_bytes(raw[:8], 'big'))
        self.whole = True
        """False while a snapshot replaces the tables: what can be read then is no state at all."""

    def save(self) -> None:
        """Put the counters into the engine; before a flush and before a view."""
        for name, value in ((b'revision', self.revision), (b'compacted', self.compacted), (b'swept', self._swept)):
            self.engine.put(Table.META, name, _U64.pack(value))

    def _counter(self, name: bytes, default: int) -> int:
        raw = self.engine.get(Table.META, name)
        return default if raw is None else int(_U64.unpack(raw)[0])

    # -- reads ---------------------------------------------------------------------------------------------------

    def place(self, key: bytes) -> Place | None:
        raw = self.engine.get(Table.KEYS, key)
        return None if raw is None else Place._make(_PLACE.unpack(raw))

    def current(self, key: bytes) -> bytes | None:
        """The packed newest version, None when the key does not exist."""
        raw = self.engine.get(Table.KEYS, key)
        return None if raw is None else self._record(raw[8:20])[_HEAD:]

    def check_whole(self) -> None:
        """Raises Stopped, which sends a client to another member."""
        if not self.whole:
            raise Stopped('this member is taking over a snapshot')

    def check_revision(self, revision: int) -> None:
        """Raises FutureRevision, Compacted, Stopped."""
        self.check_whole()
        if revision > self.revision:
            raise FutureRevision(f'revision {revision} is in the future: the store is at {self.revision}')
        if 0 < revision < self.compacted:
            raise Compacted(f'revision {revision} has been compacted', self.compacted)

    def range(self, query: RangeQuery, bytes_max: int = RANGE_BYTES_MAX, *, written: bool = False) -> RangeResult:
        """Raises FutureRevision, Compacted; BadRequest for an unknown sort.

        written: from within a transaction that has already written something, at the revision after the present one.
        """
        self.check_revision(query.revision)
        past = 0 < query.revision < self.revision + written
        if query.end is None and not past and not select.is_special(query):
            return self._one(query)
        found = self._past(query) if past else self._now(query)
        if query.flags & RangeFlag.COUNT_ONLY and not select.is_special(query):
            return RangeResult(self.revision, sum(1 for _ in found), False, [], False)
        if not select.is_special(query):
            return self._listed(query, found, bytes_max, 0 if written else query.revision or self.revision)
        total, kept = select.apply(query, ((log_key, self._record(log_key)[_HEAD:]) for log_key in found))
        if query.flags & RangeFlag.COUNT_ONLY:
            return RangeResult(self.revision, total, False, [], False)
        return self._listed(query, iter(kept), bytes_max, 0)._replace(total=total)

    def _listed(self, query: RangeQuery, found: Iterator[bytes], bytes_max: int, at: int) -> RangeResult:
        """at: the revision that `found` is true at, by which the number of keys may be known already; 0: it is not."""
        kvs: list[bytes] = []
        size = 0
        keys_only, limit = query.flags & RangeFlag.KEYS_ONLY, query.limit if query.limit > 0 else 1 << 62
        kv = b''
        for log_key in found:
            if len(kvs) >= limit or size >= bytes_max or len(kvs) == RANGE_KEYS_MAX:
                break
            kv = self._record(log_key)[_HEAD:]
            kvs.append(select.without_value(kv) if keys_only else kv)
            size += len(kv)
        else:
            return RangeResult(self.revision, len(kvs), False, kvs, False)
        rest = self._rest.get((query.key, query.end, at))
        total = len(kvs) + 1 + sum(1 for _ in found) if rest is None else rest
        if at and kv:
            self._remember((select.key_of(kv) + b'\0', query.end, at), total - len(kvs))
        return RangeResult(self.revision, total, True, kvs, len(kvs) < limit)

    def _remember(self, page: tuple[bytes, bytes | None, int], rest: int) -> None:
        """So many keys are left for whoever asks for the page that follows: a list in pages counts them only once."""
        self._rest[page] = rest
        if len(self._rest) > PAGES_REMEMBERED:
            del self._rest[next(iter(self._rest))]

    def _one(self, query: RangeQuery) -> RangeResult:
        kv = self.current(query.key)
        if kv is None:
            return RangeResult(self.revision, 0, False, [], False)
        if query.flags & RangeFlag.COUNT_ONLY:
            return RangeResult(self.revision, 1, False, [], False)
        return RangeResult(
            self.revision, 1, False, [select.without_value(kv) if query.flags & RangeFlag.KEYS_ONLY else kv], False
        )

    def page(self, start: bytes, revision: int, limit: int) -> list[bytes]:
        """At most `limit` packed key-values from `start` on, at `revision`. Raises FutureRevision, Compacted."""
        self.check_revision(revision)
        query = RangeQuery(start, NO_END, revision=revision)
        found = self._past(query) if revision < self.revision else self._now(query)
        return [self._record(log_key)[_HEAD:] for log_key in islice(found, limit)]

    def keys(self, key: bytes, end: bytes | None) -> list[bytes]:
        """Existing keys of a range, ascending."""
        if end is None:
            return [key] if self.engine.get(Table.KEYS, key) is not None else []
        return [k for k, _ in self.engine.scan(Table.KEYS, key, None if end == NO_END else end)]

    def places(self, key: bytes, end: bytes | None) -> Iterator[tuple[bytes, Place]]:
        for k, raw in self._raw_places(Table.KEYS, key, end):
            yield k, Place._make(_PLACE.unpack(raw))

    def _raw_places(self, table: Table, key: bytes, end: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        if end is None:
            raw = self.engine.get(table, key)
            return iter(() if raw is None else ((key, raw),))
        return self.engine.scan(table, key, None if end == NO_END else end)

    def _now(self, query: RangeQuery) -> Iterator[bytes]:
        """Log keys of the newest versions."""
        return (raw[8:20] for _, raw in self._raw_places(Table.KEYS, query.key, query.end))

    def _past(self, query: RangeQuery) -> Iterator[bytes]:
        """Log keys of the versions at an old revision."""
        limit = _U64.pack(query.revision)
        live = self._raw_places(Table.KEYS, query.key, query.end)
        dead = self._raw_places(Table.DEAD, query.key, query.end)
        for _, raw in heapq.merge(live, dead):
            log_key = raw[8:20]
            while log_key[:8] > limit:
                record = self.engine.get(Table.LOG, log_key)
                log_key = _NOWHERE if record is None else record[:12]
            if log_key != _NOWHERE:
                at = self.engine.get(Table.LOG, log_key)
                if at is not None and at[12]:
                    yield log_key

    def _record(self, log_key: bytes) -> bytes:
        record = self.engine.get(Table.LOG, log_key)
        assert record is not None, 'a live version is always in the log'
        return record

    def previous(self, change: Change) -> bytes | None:
        """The packed version before `change`; None at creation and when it is compacted."""
        log_key = change.record[:12]
        record = None if log_key == _NOWHERE else self.engine.get(Table.LOG, log_key)
        return record[_HEAD:] if record is not None and record[12] else None

    def history(self, start: int, end: int) -> Iterator[Change]:
        """Changes with start <= revision < end, in order. Use it up before the next write or `await`."""
        for log_key, record in self.engine.scan(Table.LOG, _LOG_KEY.pack(start, 0), _LOG_KEY.pack(end, 0)):
            yield Change(int.from_bytes(log_key[:8], 'big'), select.key_of(record[_HEAD:]), record)

    # -- writes --------------------------------------------------------------------------------------------------

    def put(self, key: bytes, value: bytes, lease: int, revision: int, sub: int) -> Change:
        """Write a version of `key` at `revision`; the caller has checked that `lease` exists."""
        engine = self.engine
        raw = engine.get(Table.KEYS, key)
        if raw is None:
            create, version, before = revision, 1, _NOWHERE
            dead = engine.get(Table.DEAD, key)
            if dead is not None:
                before = dead[8:20]
                engine.delete(Table.DEAD, key)
        else:
            create, _, _, version, old_lease = _PLACE.unpack(raw)
            version, before = version + 1, raw[8:20]
            if old_lease and old_lease != lease:
                self._detach(key, old_lease)
        if lease and self.leases.attach(key, lease):
            engine.put(Table.LEASED, lease.to_bytes(8, 'big') + key, b'')
        record = before + b'\x01' + pack((key, value, create, revision, version, lease))
        place = _PLACE.pack(create, revision, sub, version, lease)
        engine.put(Table.KEYS, key, place)
        engine.put(Table.LOG, place[8:20], record)
        return Change(revision, key, record)

    def delete(self, key: bytes, revision: int, sub: int) -> Change | None:
        """Write a tombstone at `revision`; None when there is no such key."""
        engine = self.engine
        raw = engine.get(Table.KEYS, key)
        if raw is None:
            return None
        lease = _PLACE.unpack(raw)[4]
        if lease:
            self._detach(key, lease)
        record = raw[8:20] + b'\x00' + pack((key, b'', 0, revision, 0, 0))
        place = _PLACE.pack(0, revision, sub, 0, 0)
        engine.delete(Table.KEYS, key)
        engine.put(Table.DEAD, key, place)
        engine.put(Table.LOG, place[8:20], record)
        return Change(revision, key, record)

    def _detach(self, key: bytes, lease: int) -> None:
        self.leases.detach(key, lease)
        self.engine.delete(Table.LEASED, lease.to_bytes(8, 'big') + key)

    # -- compaction ----------------------------------------------------------------------------------------------

    def compact(self, revision: int) -> None:
        """Forget what only reads below `revision` need; at once for readers, on the disk by `sweep`.

        Raises Compacted, FutureRevision.
        """
        if revision > self.revision:
            raise FutureRevision(f'revision {revision} is in the future: the store is at {self.revision}')
        if revision <= self.compacted:
            raise Compacted(f'revision {revision} has been compacted', self.compacted)
        self.compacted = revision

    @property
    def sweeping(self) -> bool:
        """Whether compacted versions still wait for `sweep`."""
        return self._swept_for < self.compacted

    def sweep(self) -> int:
        """One slice of forgetting on the disk; returns the number of records looked at."""
        target, seen, last = self.compacted, 0, -1
        doomed: list[tuple[Table, bytes]] = []
        for log_key, record in self.engine.scan(Table.LOG, _LOG_KEY.pack(self._swept, 0), _LOG_KEY.pack(target + 1, 0)):
            revision = int.from_bytes(log_key[:8], 'big')
            if seen >= COMPACT_STEP_RECORDS and revision != last:  # a revision is swept whole
                self._swept = revision
                break
            seen, last = seen + 1, revision
            if record[:12] != _NOWHERE:
                doomed.append((Table.LOG, record[:12]))
            if not record[12] and revision < target:  # a watch may still start at `target` itself
                doomed.append((Table.LOG, log_key))
                key = select.key_of(record[_HEAD:])
                dead = self.engine.get(Table.DEAD, key)
                if dead is not None and dead[8:20] == log_key:
                    doomed.append((Table.DEAD, key))
        else:
            self._swept = self._swept_for = target
        for table, key in doomed:
            self.engine.delete(table, key)
        return seen
