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

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Self, cast

import structlog

from kcore.backoff import Backoff
from kcore.config import split_address
from kcore.env import Env
from kcore.tasks import start_detached, stop
from kstore.clientlink import ClientLink
from kstore.errors import (
    LeaseExists,
    NoLeader,
    SessionExpired,
    Stopped,
    StoreError,
    Timeout,
    Unreachable,
    from_wire,
)
from kstore.fsm import Command, encode
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
from kstore.watchstream import WatchStream, WatchTable
from kstore.wire import Op, frame, pack

__all__ = ['StoreClient', 'prefix_end']

log = structlog.get_logger('kstore.client')

INFLIGHT_MAX = 2_048
"""Unanswered requests of one client; further callers wait for one of them."""
SILENCE_S = 0.75
"""A connection without a byte for this long, though something was asked, is given up."""
PING_S = 0.25
DIAL_TIMEOUT_S = 0.5
LEADER_CHECK_ROUNDS = 12
"""Pings between two looks at who leads, so that a client comes back to the leader after a failure."""
RETRY_S = 0.02
"""Pause before a request that a member could not serve is sent again."""


@dataclass(eq=False, slots=True)
class _Call:
    """One unanswered request."""

    number: int
    op: int
    arguments: tuple[Any, ...]
    future: asyncio.Future[Any]
    sequence: int = 0
    """Of a write; 0 for a read; minus the session's number for the write that opens it."""
    session: int = 0
    guarded: bool = False
    """A compare-and-swap of one key: it may wait for its turn at the leader."""
    tries: int = 0
    error: StoreError | None = None
    """Why the last try failed."""


class StoreClient:
    """See the module's text. All methods raise StoreErrors; safe for concurrent use on one event loop."""

    def __init__(
        self,
        endpoints: Sequence[tuple[str, int]],
        env: Env,
        *,
        tls: ssl.SSLContext | None = None,
        deadline_s: float = 5.0,
        follow_leader: bool = True,
    ) -> None:
        """`deadline_s`: longest time of one call. `follow_leader` False stays with the first endpoint that answers."""
        if not endpoints:
            raise ValueError('endpoints must not be empty')
        self._endpoints = list(endpoints)
        self._env = env
        self._tls = tls
        self.deadline_s = deadline_s
        self._follow = follow_leader
        self._link: ClientLink | None = None
        self._calls: dict[int, _Call] = {}
        self._number = 0
        self._session = 0
        self._sequence = 0
        self._unacked: dict[int, None] = {}
        self._watches = WatchTable()
        self._watch_number = 0
        self._tasks: list[asyncio.Task[Any]] = []
        self._slots = asyncio.Semaphore(INFLIGHT_MAX)
        self._closed = False
        self._hint: tuple[str, int] | None = None
        self._shunned: tuple[str, int] | None = None
        self._opening: asyncio.Future[None] | None = None
        self.endpoint: tuple[str, int] | None = None
        """Whom we are connected to."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Begin to connect; returns at once: calls wait for a connection until their deadline."""
        self._tasks = [start_detached('store client', self._keep()), start_detached('store client ping', self._ping())]

    async def close(self) -> None:
        """End everything; unanswered calls and open watches get Stopped."""
        self._closed = True
        await stop(*self._tasks)
        for call in tuple(self._calls.values()):
            self._fail(call, Stopped('the client was closed'))
        for stream in tuple(self._watches.streams.values()):
            stream.close()

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

    def request_progress(self, stream: WatchStream) -> None:
        """Ask for a progress notice on `stream` now; it comes if the stream is in the present."""
        if self._link is not None and self._link.up:
            self._number += 1
            self._link.send(frame(pack([self._number, int(Op.PROGRESS), stream.id])))

    def register(self, stream: WatchStream) -> None:
        """For WatchStream."""
        if self._closed:
            raise Stopped('the client was closed')
        if not stream.id:
            self._watch_number += 1
            stream.id = self._watch_number
            self._watches.streams[stream.id] = stream
            self.resume(stream)

    def unregister(self, stream: WatchStream) -> None:
        """For WatchStream."""
        if self._watches.streams.pop(stream.id, None) is not None:
            self.suspend(stream)

    def suspend(self, stream: WatchStream) -> None:
        """For WatchStream: end it at the server, keep it here."""
        self._watches.drop(stream)
        if self._link is not None and self._link.up:
            self._number += 1
            self._link.send(frame(pack([self._number, int(Op.UNWATCH), stream.id])))

    def resume(self, stream: WatchStream) -> None:
        """For WatchStream: ask the server for everything from `stream.next` on."""
        if self._link is None or not self._link.up or stream.suspended:
            return
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        call = self._begin(future, Op.WATCH, (stream.id, stream.start, stream.end, stream.next, stream.flags))
        link = self._link

        def began(done: asyncio.Future[Any]) -> None:
            if done.cancelled() or self._link is not link or stream.id not in self._watches.streams:
                return
            error = done.exception()
            if error is None:
                stream.began(done.result())
            elif isinstance(error, StoreError) and not error.retriable:
                self._watches.streams.pop(stream.id, None)
                stream.fail(error)

        future.add_done_callback(began)
        self._send(call)

    # -- calls ---------------------------------------------------------------------------------------------------

    def unavailable(self) -> StoreError:
        """What to tell a caller whose deadline passed without any answer."""
        if self._link is None or not self._link.up:
            names = ', '.join(f'{host}:{port}' for host, port in self._endpoints)
            return Unreachable(f'no member of the store answers at {names}')
        return Timeout(f'no answer within {self.deadline_s:g} s')

    async def _call(self, op: Op, *arguments: Any) -> Any:
        return await self._run(op, arguments, 0)

    async def _write(self, *command: Any) -> Any:
        async with self._slots:
            if self._session == 0:
                await self._open_session()
            self._sequence += 1
            sequence = self._sequence
            self._unacked[sequence] = None
            try:
                return await self._run(Op.WRITE, command, sequence)
            except (Timeout, SessionExpired):
                self._session = 0  # what it was sent may still be applied: no later number may be taken for it
                raise
            finally:
                self._unacked.pop(sequence, None)

    async def _open_session(self) -> None:
        """Make the session known before its first real write, so that an unknown session means a forgotten one."""
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_future()
            session = self._env.rng.getrandbits(63) + 1
            try:
                await self._run(Op.WRITE, (Command.NOTHING,), -session)
                self._session = session
            finally:
                opening, self._opening = self._opening, None
                opening.set_result(None)
        else:
            await self._opening
            if self._session == 0:
                await self._open_session()

    async def _run(self, op: Op, arguments: tuple[Any, ...], sequence: int) -> Any:
        if self._closed:
            raise Stopped('the client was closed')
        loop = asyncio.get_running_loop()
        call = self._begin(loop.create_future(), op, arguments, sequence)
        timer = loop.call_later(self.deadline_s, self._expire, call)
        try:
            self._send(call)
            return await call.future
        finally:
            timer.cancel()
            self._calls.pop(call.number, None)

    def _begin(self, future: asyncio.Future[Any], op: Op, arguments: tuple[Any, ...], sequence: int = 0) -> _Call:
        self._number += 1
        call = self._calls[self._number] = _Call(
            self._number, op, arguments, future, sequence, self._session, op == Op.WRITE and _is_swap(arguments)
        )  # fmt: skip
        return call

    def _send(self, call: _Call) -> None:
        link = self._link
        if link is None or not link.up:
            return  # sent when there is one
        call.tries += 1
        if call.op == Op.WRITE:
            if call.sequence < 0:  # opens a session: harmless to repeat, so never a retry
                command = encode(-call.sequence, 0, 0, False, *call.arguments)
            else:
                acked = next(iter(self._unacked), call.sequence)
                command = encode(call.session, call.sequence, acked, call.tries > 1, *call.arguments)
            guard = call.arguments[1][0][0] if call.guarded and call.tries == 1 else None
            link.send(frame(pack((call.number, int(call.op), command, guard))))
        else:
            link.send(frame(pack((call.number, int(call.op), *call.arguments))))

    def _expire(self, call: _Call) -> None:
        self._fail(call, call.error or self.unavailable())

    def _fail(self, call: _Call, error: StoreError) -> None:
        self._calls.pop(call.number, None)
        if not call.future.done():
            call.future.set_exception(error)

    def _on_message(self, message: list[Any]) -> None:
        number = message[0]
        if number == 0:
            self._watches.message(message)
            return
        call = self._calls.get(number)
        if call is None or call.future.done():
            return
        code = message[1]
        if code == 0:
            del self._calls[number]
            call.future.set_result(message[2])
            return
        error = from_wire(code, message[2])
        if error.retriable or (isinstance(error, Timeout) and call.op == Op.WRITE):
            call.error = error
            asyncio.get_running_loop().call_later(RETRY_S, self._again, call)
            if isinstance(error, NoLeader | Stopped) and self._link is not None:
                self._link.close()  # perhaps another member has one
        else:
            self._fail(call, error)

    def _again(self, call: _Call) -> None:
        if call.number in self._calls and not call.future.done():
            self._send(call)

    # -- the connection ------------------------------------------------------------------------------------------

    async def _keep(self) -> NoReturn:
        """Keep a connection up, for ever."""
        backoff = Backoff(0.02, 0.5, self._env.rng)
        turn = self._env.rng.randrange(len(self._endpoints)) if self._follow else 0
        skipped = False
        while True:
            target, self._hint = self._hint, None
            if target is None:
                target = self._endpoints[turn % len(self._endpoints)]
                turn += 1
                if target == self._shunned and len(self._endpoints) > 1 and not skipped:
                    skipped = True  # everyone else first
                    continue
            link = None
            try:
                link = await self._dial(target)
                self._hint = await self._leader_elsewhere(link)
            except (OSError, TimeoutError, ssl.SSLError) as e:
                log.debug('endpoint unreachable', endpoint=f'{target[0]}:{target[1]}', err=str(e))
                self._shunned = target  # its peers may still take it for the leader
                if link is not None:
                    link.close()
                if turn % len(self._endpoints) == 0:
                    await asyncio.sleep(backoff.next())
                continue
            if self._hint is not None:
                link.close()
                continue
            self._link, self.endpoint, skipped = link, target, False
            backoff.reset()
            try:
                self._attach()
                await link.lost
            finally:
                self._link = self.endpoint = None
                link.close()
                self._watches.reset()

    async def _dial(self, target: tuple[str, int]) -> ClientLink:
        """A ready connection."""
        async with asyncio.timeout(DIAL_TIMEOUT_S):
            _, protocol = await self._env.net.connect(
                lambda: ClientLink(self._on_message), target[0], target[1], tls=self._tls
            )
            link = cast(ClientLink, protocol)
            try:
                await link.ready
            except BaseException:
                link.close()
                raise
        return link

    def _attach(self) -> None:
        """On a fresh connection: everything unanswered again, every watch from where it is."""
        for call in tuple(self._calls.values()):
            if call.op == Op.WATCH:
                self._calls.pop(call.number, None)
                call.future.cancel()
            elif not call.future.done():
                self._send(call)
        for stream in tuple(self._watches.streams.values()):
            self.resume(stream)

    async def _leader_elsewhere(self, link: ClientLink) -> tuple[str, int] | None:
        """The leader's address, if that is another of our endpoints and not one that just failed us."""
        if not self._follow or len(self._endpoints) == 1:
            return None
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        call = self._begin(future, Op.STATUS, ())
        try:
            link.send(frame(pack((call.number, int(Op.STATUS)))))
            async with asyncio.timeout(DIAL_TIMEOUT_S):
                status = await future
        finally:
            self._calls.pop(call.number, None)
        address = status['members'].get(status['leader'])
        if not address or status['leader'] == status['member']:
            return None
        found = split_address(address)
        return found if found in self._endpoints and found != self._shunned else None

    async def _ping(self) -> NoReturn:
        """Give up a connection that has fallen silent: its member may be stopped without having closed it."""
        loop = asyncio.get_running_loop()
        rounds = 0
        while True:
            await asyncio.sleep(PING_S)
            link = self._link
            if link is None or not link.up:
                continue
            if loop.time() - link.heard > SILENCE_S:
                log.info('connection given up', endpoint=str(self.endpoint), err='no answer')
                self._shunned = self.endpoint
                link.close()
            elif loop.time() - link.heard > PING_S:
                self._number += 1
                link.send(frame(pack((self._number, int(Op.STATUS)))))
            rounds += 1
            if rounds % LEADER_CHECK_ROUNDS == 0:
                self._shunned = None
                if await self._moved(link):
                    link.close()

    async def _moved(self, link: ClientLink) -> bool:
        try:
            self._hint = await self._leader_elsewhere(link)
        except (OSError, TimeoutError, StoreError):
            self._hint = None  # silence is for the next round to judge
        return self._hint is not None


def _is_swap(command: tuple[Any, ...]) -> bool:
    """Whether a command is a transaction with one compare, of one key."""
    return command[0] == Command.TXN and len(command[1]) == 1 and command[1][0][1] is None


def _result(what: int, raw: Any) -> WriteReply | DeleteReply | RangeReply:
    if what == Do.PUT:
        return WriteReply(raw[0], key_value(raw[1]))
    if what == Do.DELETE:
        return DeleteReply(raw[0], raw[1], [KeyValue(*kv) for kv in raw[2]])
    return RangeReply(raw[0], raw[1], raw[2], [KeyValue(*kv) for kv in raw[3]])
