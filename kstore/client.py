"""The client: one object that survives members, leaders and connections.

It keeps one connection, to the leader where it can, and sends everything on it. When the connection breaks, falls
silent or its member has no leader, it goes to another endpoint and sends again whatever is unanswered: reads are
harmless, and each write carries a request id, so a write is applied once however often it is sent. Only the caller's
deadline ends that: then the call raises Timeout (or NoLeader, Unreachable, by what was wrong last).

    async with StoreClient([('127.0.0.1', 2390)], env) as client:
        await client.put(b'/a', b'1')
        async with client.watch(b'/', b'0') as stream:
            async for batch in stream: ...

Keys and values are bytes. `end` is exclusive; `prefix_end(prefix)` gives the end of a prefix, NO_END means no end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from kstore.clientcalls import Calls
from kstore.errors import (
    LeaseExists,
)
from kstore.fsm import Command
from kstore.model import (
    CasReply,
    DeleteReply,
    Do,
    GetReply,
    KeyValue,
    LeaseReply,
    PutFlag,
    RangeFlag,
    RangeReply,
    Relation,
    Target,
    TxnReply,
    WatchFlag,
    WriteReply,
    key_value,
    prefix_end,
)
from kstore.watchstream import WatchStream
from kstore.wire import Op

__all__ = ['StoreClient', 'prefix_end']


class StoreClient(Calls):
    """See the module's text. All methods raise StoreErrors; safe for concurrent use on one event loop."""

    # -- reads ---------------------------------------------------------------------------------------------------

    async def get(self, key: bytes, *, revision: int = 0, serializable: bool = False) -> GetReply:
        """One key, now or at an old revision. Raises Compacted, FutureRevision."""
        flags = RangeFlag.SERIALIZABLE if serializable else 0
        now, _, _, kvs, _ = await self._call(Op.RANGE, key, None, 0, revision, int(flags))
        return GetReply(now, KeyValue(*kvs[0]) if kvs else None)

    async def range(
        self,
        start: bytes,
        end: bytes | None,
        *,
        limit: int = 0,
        revision: int = 0,
        count_only: bool = False,
        keys_only: bool = False,
        serializable: bool = False,
        sort: tuple[int, int] = (0, 0),
        bounds: tuple[int, int, int, int] = (0, 0, 0, 0),
    ) -> RangeReply:
        """Keys of [start, end), ascending; a long answer is fetched in pieces, all at one revision.

        sort:    (SortTarget, SortOrder). bounds: min and max mod revision, min and max create revision; 0 for none.
        Returns: `.revision` is the store's; for `revision=0` it is the one the answer is true at.
        Raises:  Compacted, FutureRevision.
        """
        flags = count_only * RangeFlag.COUNT_ONLY | keys_only * RangeFlag.KEYS_ONLY
        flags |= serializable * RangeFlag.SERIALIZABLE
        found: list[KeyValue] = []
        total, at = -1, revision
        first, left = start, limit
        while True:
            now, count, more, kvs, cut = await self._call(
                Op.RANGE, first, end, left, at, int(flags), int(sort[0]), int(sort[1]), *bounds
            )
            if total < 0:
                total, shown = count, now
                at = at or now  # the rest at the same revision
            found += [KeyValue(*kv) for kv in kvs]
            if not cut or sort != (0, 0):
                return RangeReply(shown, total, more, found)
            first = found[-1].key + b'\x00'
            left = limit - len(found) if limit else 0

    async def revision(self) -> int:
        """The store's revision, linearizable: at least that of every write acknowledged before this call."""
        return int(await self._call(Op.REVISION))

    async def status(self) -> dict[str, Any]:
        """What the connected member says of itself; local, not linearizable."""
        return dict(await self._call(Op.STATUS))

    # -- writes --------------------------------------------------------------------------------------------------

    async def put(self, key: bytes, value: bytes, *, lease: int = 0, prev_kv: bool = False) -> WriteReply:
        """Raises LeaseNotFound, TooLarge, NoSpace."""
        flags = int(PutFlag.PREV_KV) if prev_kv else 0
        revision, previous = await self._write(Command.PUT, key, value, lease, flags)
        return WriteReply(revision, key_value(previous))

    async def delete(self, key: bytes, *, prev_kv: bool = False) -> DeleteReply:
        return await self.delete_range(key, None, prev_kv=prev_kv)

    async def delete_range(self, start: bytes, end: bytes | None, *, prev_kv: bool = False) -> DeleteReply:
        """All keys of the range go at one revision, with one event each."""
        flags = int(PutFlag.PREV_KV) if prev_kv else 0
        revision, deleted, previous = await self._write(Command.DELETE, start, end, flags)
        return DeleteReply(revision, deleted, [KeyValue(*kv) for kv in previous])

    async def cas(self, key: bytes, expected_mod_revision: int, value: bytes, *, lease: int = 0) -> CasReply:
        """Put if the key is at `expected_mod_revision` (0: does not exist); else `.kv` is the current version."""
        compare = [[key, None, int(Target.MOD), int(Relation.EQUAL), expected_mod_revision]]
        revision, succeeded, results = await self._write(
            Command.TXN, compare, [[int(Do.PUT), key, value, lease]], [[int(Do.RANGE), key]]
        )
        if succeeded:
            return CasReply(results[0][0], True, None)
        return CasReply(revision, False, key_value(results[0][3][0] if results[0][3] else None))

    async def cad(self, key: bytes, expected_mod_revision: int) -> CasReply:
        """Delete if the key is at `expected_mod_revision`; `.kv` is what was deleted, or the current version."""
        compare = [[key, None, int(Target.MOD), int(Relation.EQUAL), expected_mod_revision]]
        revision, succeeded, results = await self._write(
            Command.TXN, compare, [[int(Do.DELETE), key, None, int(PutFlag.PREV_KV)]], [[int(Do.RANGE), key]]
        )
        kvs = results[0][2] if succeeded else results[0][3]
        return CasReply(results[0][0] if succeeded else revision, succeeded, key_value(kvs[0] if kvs else None))

    async def txn(self, compare: Sequence[Any], success: Sequence[Any], failure: Sequence[Any] = ()) -> TxnReply:
        """If all compares hold do `success`, else `failure`, at one revision.

        compare: `[key, end or None, Target, Relation, operand]`
        success, failure: `[Do.PUT, key, value, lease, flags]`, `[Do.DELETE, key, end, flags]`,
                 `[Do.RANGE, *RangeQuery]`
        Raises:  BadRequest, TooLarge, LeaseNotFound, KeyNotFound, Compacted, FutureRevision.
        """
        chosen = success, failure
        revision, succeeded, raw = await self._write(
            Command.TXN, [list(c) for c in compare], [list(o) for o in success], [list(o) for o in failure]
        )
        operations = chosen[0] if succeeded else chosen[1]
        return TxnReply(revision, succeeded, [_result(o[0], r) for o, r in zip(operations, raw, strict=True)])

    async def compact(self, revision: int) -> int:
        """Forget what only reads below `revision` need; returns the store's revision.

        Raises Compacted, FutureRevision.
        """
        return int((await self._write(Command.COMPACT, revision))[0])

    # -- operating -----------------------------------------------------------------------------------------------

    async def member_add(self, member: int, address: str) -> None:
        """Bring a member in as a learner; then start it with `--join`. Raises Refused, BadRequest, Timeout."""
        await self._call(Op.ADMIN, 'add', member, address)

    async def member_promote(self, member: int) -> None:
        """Make a learner a voter. Raises Refused while it is not in sync."""
        await self._call(Op.ADMIN, 'promote', member)

    async def member_remove(self, member: int) -> None:
        """Raises Refused when the others could not go on without it."""
        await self._call(Op.ADMIN, 'remove', member)

    async def move_leader(self, member: int) -> None:
        """Ask that `member` lead; `status` shows when it does. Raises Refused."""
        await self._call(Op.ADMIN, 'move-leader', member)

    async def content_hash(self, revision: int = 0) -> tuple[int, int]:
        """Revision and checksum of the connected member's contents then (0: now). Raises Compacted, FutureRevision."""
        at, crc = await self._call(Op.HASH, revision)
        return int(at), int(crc)

    async def usage(self, prefix: bytes = b'', *, depth: int = 2) -> list[tuple[bytes, int, int]]:
        """`(prefix, keys, bytes)` of live keys at the connected member, the biggest first: see `kstore.usage`."""
        return [(name, keys, size) for name, keys, size in await self._call(Op.USAGE, prefix, depth)]

    async def defragment(self) -> tuple[int, int]:
        """Shrink the connected member's file; bytes before and after. Raises Refused."""
        before, after = await self._call(Op.DEFRAG)
        return int(before), int(after)

    async def snapshot(self) -> AsyncIterator[bytes]:
        """A consistent copy of the whole state, in chunks: see `kstore.backup`. Raises BadRequest when cut off."""
        chunk = 0
        while data := await self._call(Op.SNAPSHOT, chunk):
            yield data
            chunk += 1

    # -- leases --------------------------------------------------------------------------------------------------

    async def lease_grant(self, ttl_s: int) -> int:
        """A new lease's id."""
        while True:
            lease_id = self._env.rng.getrandbits(62) + 1
            try:
                await self._write(Command.GRANT, lease_id, ttl_s)
            except LeaseExists:
                continue
            return lease_id

    async def lease_keepalive(self, lease_id: int) -> int:
        """Start the lease's TTL again; returns it in seconds, 0 when the lease has ended."""
        return int((await self._call(Op.KEEPALIVE, lease_id))[1])

    async def lease_revoke(self, lease_id: int) -> None:
        """End a lease and delete its keys. Raises LeaseNotFound."""
        await self._write(Command.REVOKE, lease_id)

    async def lease_ttl(self, lease_id: int) -> LeaseReply:
        """`.ttl_s` is -1 when there is no such lease."""
        number, ttl_s, remaining, keys = await self._call(Op.LEASE_TTL, lease_id)
        return LeaseReply(number, ttl_s, remaining, keys)

    async def leases(self) -> list[int]:
        return list(await self._call(Op.LEASES))

    # -- watch ---------------------------------------------------------------------------------------------------

    def watch(
        self,
        start: bytes,
        end: bytes | None,
        *,
        revision: int = 0,
        prev_kv: bool = True,
        progress: bool = False,
        puts: bool = True,
        deletes: bool = True,
    ) -> WatchStream:
        """Changes of [start, end) from `revision` on (0: after now): ordered, unique, complete, whole revisions.

        An async context manager and iterator of WatchBatch. A batch without events is a progress notice (`progress`).
        Raises: Compacted while iterating: list again, and watch from there.
        """
        flags = prev_kv * WatchFlag.PREV_KV | progress * WatchFlag.PROGRESS
        flags |= (not puts) * WatchFlag.NO_PUT | (not deletes) * WatchFlag.NO_DELETE
        return WatchStream(self, start, end, revision, int(flags))


def _result(what: int, raw: Any) -> WriteReply | DeleteReply | RangeReply:
    if what == Do.PUT:
        return WriteReply(raw[0], key_value(raw[1]))
    if what == Do.DELETE:
        return DeleteReply(raw[0], raw[1], [KeyValue(*kv) for kv in raw[2]])
    return RangeReply(raw[0], raw[1], raw[2], [KeyValue(*kv) for kv in raw[3]])
