"""The replicated state machine: one packed command in, one packed result out, the same on every member.

A command is `[client, sequence, acked, retry, what, *arguments]` (client 0: no session, the members' own commands). Its
result is a packed code and a packed body, glued into the reply frame as it is, kept for a retry as it is, and relayed
to a forwarding member as it is. Nothing here looks at a clock or draws a random number.

Durability: the log makes an entry durable; the tables follow with `flush`, which writes them together with the index
they stand for (see kstore.engine.layers). The snapshot is those tables as a stream of framed records.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Sequence
from enum import IntEnum
from typing import Any

from kstore import wire
from kstore.engine.layers import Engine, EngineView, Table
from kstore.errors import BadRequest, Corrupt, LeaseExists, LeaseNotFound, StoreError, TooLarge
from kstore.lease import LEASES_MAX, TTL_S_MAX, TTL_S_MIN
from kstore.model import RangeQuery
from kstore.mvcc import txn
from kstore.mvcc.store import Change, Store, pack_array
from kstore.raft.messages import Entry, SnapshotMeta
from kstore.session import Sessions
from kstore.wire import pack

COMMAND_BYTES_MAX = 4 * 1024 * 1024
"""Largest packed command; refused before it is proposed."""
SNAPSHOT_CHUNK_BYTES = 512 * 1024
SNAPSHOT_MAGIC = 'kstore-snapshot'
SNAPSHOT_VERSION = 1
_COUNTERS = (b'revision', b'compacted', b'swept')


class Command(IntEnum):
    """Numbers are part of the log format."""

    TXN = 1  # [compares, success, failure] → [revision, succeeded, results]
    PUT = 2  # [key, value, lease, flags] → [revision, previous]
    DELETE = 3  # [key, end, flags] → [revision, deleted, previous]
    COMPACT = 4  # [revision] → [revision]
    GRANT = 5  # [lease, ttl] → [lease, ttl]
    REVOKE = 6  # [lease] → [revision]
    EXPIRE = 7  # [[lease, ...]] → [revision]
    CHECKPOINT = 8  # [[[lease, remaining], ...]] → [revision]
    NOTHING = 9  # [] → [revision]; a barrier
    MEMBER = 10  # [member, address] → [revision]; where a member is reached, an empty address once it is gone


def encode(client: int, sequence: int, acked: int, retry: bool, *command: Any) -> bytes:
    """One packed command."""
    return pack((client, sequence, acked, retry, *command))


class StoreFsm:
    """Keys, leases and sessions behind the `Fsm` protocol of `kstore.node`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.store = Store(engine)
        self.sessions = Sessions(engine)
        self._applied = engine.durable_index
        self.on_changes: Callable[[Sequence[Change], int], None] = lambda changes, revision: None
        """Called by `publish` with the changes and the store's revision: watches."""
        self.on_applied: Callable[[], None] = lambda: None
        """Called when something was applied that the tables do not have yet."""
        self.on_full: Callable[[], None] = lambda: None
        """Called when the recent writes in memory ask for a flush."""
        self.on_restore: Callable[[], None] = lambda: None
        """Called when the whole state was replaced: watches start over from history."""
        self.on_granted: Callable[[int], None] = lambda lease_id: None
        self.on_revoked: Callable[[int], None] = lambda lease_id: None
        self.on_member: Callable[[], None] = lambda: None
        """Called when `members` changed."""
        self._handlers: dict[int, Callable[..., bytes]] = {
            Command.TXN: self._txn,
            Command.PUT: self._put,
            Command.DELETE: self._delete,
            Command.COMPACT: self._compact,
            Command.GRANT: self._grant,
            Command.REVOKE: self._revoke,
            Command.EXPIRE: self._expire,
            Command.CHECKPOINT: self._checkpoint,
            Command.NOTHING: self._nothing,
            Command.MEMBER: self._member,
        }
        self._changes: list[Change] = []
        self.chunk_bytes = SNAPSHOT_CHUNK_BYTES

    @property
    def applied_index(self) -> int:
        return self._applied

    @property
    def durable_index(self) -> int:
        return self.engine.durable_index

    def apply(self, entries: Sequence[Entry]) -> list[bytes | None]:
        """See `kstore.node.Fsm`. A result is packed; None for entries that are no command."""
        results = [None if e.kind or not e.data else self._command(e.data, e.index) for e in entries]
        if entries:
            self._applied = entries[-1].index
            self.on_applied()
        if self.engine.full:
            self.on_full()
        return results

    def publish(self) -> None:
        """See `kstore.node.Fsm`."""
        if self._changes:
            changes, self._changes = self._changes, []
            self.on_changes(changes, self.store.revision)

    def _command(self, data: bytes, index: int) -> bytes:
        try:
            client, sequence, acked, retry, what, *arguments = wire.unpack(data)
            handler = self._handlers[what]
            if not (type(client) is type(sequence) is type(acked) is int and 0 <= client < 1 << 64 and sequence >= 0):
                raise BadRequest('malformed command')
        except (ValueError, TypeError, KeyError):
            return wire.failure(BadRequest('malformed command'))
        except StoreError as e:
            return wire.failure(e)
        try:
            if client:
                known = self.sessions.begin(client, sequence, acked, retry, index)
                if known is not None:
                    return known
        except StoreError as e:
            return wire.failure(e)
        before = len(self._changes)
        try:
            result = b'\x00' + handler(*arguments)
        except StoreError as e:
            result = wire.failure(e)
        except TypeError as e:  # the wrong number of arguments, which python finds before the handler starts
            if len(self._changes) != before:
                raise
            result = wire.failure(BadRequest(f'malformed command: {e}'))
        if client:
            self.sessions.record(client, sequence, result)
        return result

    # -- commands ------------------------------------------------------------------------------------------------

    def _put(self, key: Any, value: Any, lease: Any = 0, flags: Any = 0) -> bytes:
        operation = txn.parse_put(key, value, lease, flags)
        txn.check_operations(self.store, (operation,))
        return txn.run(self.store, (operation,), self._changes)[0]

    def _delete(self, key: Any, end: Any = None, flags: Any = 0) -> bytes:
        return txn.run(self.store, (txn.parse_delete(key, end, flags),), self._changes)[0]

    def _txn(self, compares: Any, success: Any, failure: Any) -> bytes:
        conditions = txn.parse_compares(compares)
        branches = txn.parse_operations(failure), txn.parse_operations(success)
        succeeded = all(txn.holds(self.store, c) for c in conditions)
        operations = branches[succeeded]
        txn.check_operations(self.store, operations)
        results = txn.run(self.store, operations, self._changes)
        return b'\x93' + pack(self.store.revision) + pack(succeeded) + pack_array(results)

    def refusal(self, data: bytes) -> bytes | None:
        """The result of a transaction that fails its compares here and now and then only reads; else None.

        Only for a first try, and only after a read round: see kstore.contention.
        """
        try:
            _, _, _, retry, what, compares, _, failure = wire.unpack(data)
            if retry or what != Command.TXN:
                return None
            conditions = txn.parse_compares(compares)
            operations = txn.parse_operations(failure)
            if all(txn.holds(self.store, c) for c in conditions):
                return None
            if not all(isinstance(op, RangeQuery) for op in operations):
                return None
            txn.check_operations(self.store, operations)
        except (StoreError, ValueError, TypeError):
            return None  # the state machine itself says what is wrong
        results = txn.run(self.store, operations, [])
        return wire.success(b'\x93' + pack(self.store.revision) + b'\xc2' + pack_array(results))

    def _compact(self, revision: Any) -> bytes:
        self.store.compact(txn.check_int(revision, 'revision'))
        return pack([self.store.revision])

    def _grant(self, lease_id: Any, ttl_s: Any) -> bytes:
        txn.check_int(lease_id, 'lease')
        if txn.check_int(ttl_s, 'ttl') > TTL_S_MAX:
            raise TooLarge('too large lease TTL')
        if not lease_id:
            raise BadRequest('lease is not provided')
        if lease_id in self.store.leases:
            raise LeaseExists('lease already exists')
        if len(self.store.leases) >= LEASES_MAX:
            raise TooLarge(f'more than {LEASES_MAX} leases')
        ttl_s = max(ttl_s, TTL_S_MIN)
        self._write_lease(lease_id, ttl_s, ttl_s)
        self.store.leases.grant(lease_id, ttl_s)
        self.on_granted(lease_id)
        return pack([lease_id, ttl_s])

    def _write_lease(self, lease_id: int, ttl_s: int, remaining_s: int) -> None:
        record = ttl_s.to_bytes(8, 'big') + remaining_s.to_bytes(8, 'big')
        self.engine.put(Table.LEASES, lease_id.to_bytes(8, 'big'), record)

    def _revoke(self, lease_id: Any) -> bytes:
        if txn.check_int(lease_id, 'lease') not in self.store.leases:
            raise LeaseNotFound('requested lease not found')
        self._end_leases([lease_id])
        return pack([self.store.revision])

    def _expire(self, lease_ids: Any) -> bytes:
        if not isinstance(lease_ids, list):
            raise BadRequest('leases must be a list')
        for lease_id in lease_ids:  # each lease's keys go in one revision of their own
            if type(lease_id) is int and lease_id in self.store.leases:
                self._end_leases([lease_id])
        return pack([self.store.revision])

    def _end_leases(self, lease_ids: Sequence[int]) -> None:
        for lease_id in lease_ids:
            lease = self.store.leases.get(lease_id)
            assert lease is not None, 'the caller looked'
            deletions = [txn.Delete(key, None, 0) for key in sorted(lease.keys)]
            txn.run(self.store, deletions, self._changes)
            self.store.leases.revoke(lease_id)
            self.engine.delete(Table.LEASES, lease_id.to_bytes(8, 'big'))
            self.on_revoked(lease_id)

    def _checkpoint(self, pairs: Any) -> bytes:
        if not isinstance(pairs, list) or not all(isinstance(p, list) and len(p) == 2 for p in pairs):
            raise BadRequest('checkpoints must be pairs')
        for lease_id, remaining_s in pairs:
            txn.check_int(lease_id, 'lease')
            txn.check_int(remaining_s, 'remaining')
            lease = self.store.leases.get(lease_id)
            if lease is not None:
                lease.remaining_s = min(max(remaining_s, 1), lease.ttl_s)
                self._write_lease(lease_id, lease.ttl_s, lease.remaining_s)
        return pack([self.store.revision])

    def _nothing(self) -> bytes:
        return pack([self.store.revision])

    def _member(self, member: Any, address: Any) -> bytes:
        if txn.check_int(member, 'member') >= 1 << 31 or not member or not isinstance(address, str):
            raise BadRequest('a member is a number from 1 to 2^31-1 and an address')
        self.engine.put(Table.MEMBERS, member.to_bytes(8, 'big'), address.encode())
        self.on_member()
        return pack([self.store.revision])

    def members(self) -> dict[int, str]:
        """Addresses that were changed since the cluster was founded; empty ones are of members that are gone."""
        return {int.from_bytes(k, 'big'): v.decode() for k, v in self.engine.scan(Table.MEMBERS)}

    # -- durability ----------------------------------------------------------------------------------------------

    async def flush(self) -> None:
        """Make everything applied so far durable in the tables. Raises OSError when the disk refuses."""
        async with self.engine.turn:
            self._save()
            await self.engine.flush(self._applied)

    def _save(self) -> None:
        self.store.save()
        self.sessions.save()

    def snapshot(self) -> AsyncIterator[bytes]:
        """See `kstore.node.Fsm`. Raises Stopped while one is being taken over here."""
        self.store.check_whole()
        self._save()
        return _stream(self.engine.view(), self._applied, self.chunk_bytes)

    async def restore(self, meta: SnapshotMeta, chunks: AsyncIterable[bytes]) -> None:
        """See `kstore.node.Fsm`."""
        async with self.engine.turn:
            self.store.whole = False
            await self.engine.clear()
            await load_snapshot(self.engine, chunks, meta.index)
            self._applied = meta.index
            self.store.load()
            self.sessions.load()
        self.on_restore()

    def close(self) -> None:
        self.engine.close()


async def _stream(view: EngineView, index: int, chunk_bytes: int) -> AsyncIterator[bytes]:
    """Pieces of `_frames`, cut to size, and a trailer with the CRC-32 of all before it."""
    crc = 0
    pending = b''
    try:
        for frame in _frames(view, index, chunk_bytes):
            crc = zlib.crc32(frame, crc)
            pending += frame
            while len(pending) >= chunk_bytes:
                yield pending[:chunk_bytes]
                pending = pending[chunk_bytes:]
        yield pending + wire.frame(pack([-1, crc]))
    finally:
        view.close()


def _frames(view: EngineView, index: int, chunk_bytes: int) -> Iterator[bytes]:
    """A header and frames `[table, [key, value, ...]]`."""
    yield wire.frame(pack([SNAPSHOT_MAGIC, SNAPSHOT_VERSION, index]))
    for table in Table:
        batch: list[bytes] = []
        size = 0
        for key, value in view.scan(table):
            if table is Table.META and key not in _COUNTERS:
                continue
            batch += (key, value)
            size += len(key) + len(value)
            if size >= chunk_bytes:
                yield wire.frame(pack([int(table), batch]))
                batch, size = [], 0
        if batch:
            yield wire.frame(pack([int(table), batch]))


async def load_snapshot(engine: Engine, chunks: AsyncIterable[bytes], index: int) -> None:
    """Fill an empty engine, durably, as the state after entry `index`.

    Raises ValueError (ProtocolError, Corrupt as its cause) when the chunks are no whole snapshot.
    """
    reader, crc, header, complete = wire.FrameReader(), 0, False, False
    try:
        async for chunk in chunks:
            for payload in reader.feed(chunk):
                value = wire.unpack(payload)
                if not header:
                    if value[:2] != [SNAPSHOT_MAGIC, SNAPSHOT_VERSION]:
                        raise Corrupt('not a snapshot of this version')
                    if value[2] != index:
                        raise Corrupt(f'it is the state after entry {value[2]}, not {index}')
                    header = True
                elif complete:
                    raise Corrupt('it goes on after its end')
                elif value[0] == -1:
                    complete = value[1] == crc
                else:
                    table, batch = Table(value[0]), value[1]
                    for key, record in zip(batch[::2], batch[1::2], strict=True):
                        engine.put(table, key, record)
                crc = zlib.crc32(wire.frame(payload), crc)
            if engine.full:
                await engine.flush(0)
    except (StoreError, TypeError, IndexError, ValueError) as e:
        raise ValueError(f'bad snapshot: {e}') from e
    if not complete or reader.pending:
        raise ValueError('bad snapshot: incomplete, or its checksum does not match')
    await engine.flush(index)
