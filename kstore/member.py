"""One member of the store: Raft node, state machine, watches, leases and requests, joined.

`kstore.server` puts it on a socket and a disk; tests put several into one process.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import structlog

from kcore.buckets import Buckets
from kcore.config import split_address
from kcore.env import Env, is_full
from kcore.tasks import start_essential
from kcore.tls import ClientTls
from kstore import __version__
from kstore.admin import Admin
from kstore.config import StoreConfig
from kstore.connection import Connection, Outbox
from kstore.contention import Contention
from kstore.engine.layers import Engine
from kstore.errors import BadRequest, ProtocolError, Refused, Stopped, StoreError, TooLarge
from kstore.fsm import COMMAND_BYTES_MAX, Command, StoreFsm, encode
from kstore.leasekeeper import LeaseKeeper
from kstore.model import RangeFlag, RangeQuery
from kstore.mvcc import txn
from kstore.mvcc.store import Change
from kstore.mvcc.watch import Hub, Scope
from kstore.node import DISK_BUCKETS_S, Node, NodeConfig
from kstore.peers import Peers
from kstore.proposals import Proposals, Ticket
from kstore.raft.messages import Message
from kstore.space import RETRY_S, Space
from kstore.trace import Tracer
from kstore.usage import DEPTH_MAX, Usage, Use
from kstore.verify import Verifier
from kstore.wire import Hello, Op, Peer, Role, failure, pack, success

log = structlog.get_logger('kstore.member')

CONNECTIONS_MAX = 10_000
"""Open connections of clients and peers; one more is closed at once."""
PROGRESS_S = 1.0
"""Interval of progress notices to idle watches that asked for them."""
COMPACT_CHECK_S = 10.0
COMPACT_SAMPLES = 64
"""Points of (time, revision) remembered for compaction by age: revisions are kept up to 1/64 longer than asked."""


class Member:
    """See the module's text. Everything runs on one event loop."""

    def __init__(self, config: StoreConfig, env: Env, engine: Engine) -> None:
        self.config = config
        self._env = env
        self.fsm = StoreFsm(engine)
        self.store = self.fsm.store
        self.hub = Hub(self.store)
        self._hello = Hello(Role.CLIENT, zlib.crc32(config.cluster.encode()), config.id)
        self.led = asyncio.Event()
        """Set once this member has known a leader."""
        self.members: dict[int, str] = {}
        """Address of every member, this one included."""
        self.peers = Peers(self._hello, {}, env)
        self._members_changed()
        founders = () if config.join else tuple(sorted(config.members))
        self.node = Node(
            NodeConfig(
                config.id, config.data_dir, founders, config.tick_ms / 1000,
                config.election_ticks, config.heartbeat_ticks,
            ),
            env, self.fsm, self.peers,
        )  # fmt: skip
        self.proposals = Proposals(self.node, self.peers, env, config.id, config.request_timeout_s)
        self.proposals.lead = self._lead
        self.contention = Contention(self.fsm, self.proposals)
        self.admin = Admin(self)
        self.usage = Usage(self.store, env.clock)
        self.tracer = Tracer(env.clock, config.trace_ms / 1000) if config.trace_ms else None
        if self.tracer is not None:
            self.node.trace(self.tracer)
        self.space = Space(config.quota_mb << 20)
        self.verifier = Verifier(self.store, self.node, self.proposals, config.hash_check_s)
        self._defrags: list[Callable[[bytes], None]] = []
        self.leases = LeaseKeeper(self.fsm, self.node, self.proposals, env)
        self.outbox = Outbox()
        self.connections: dict[Connection, None] = {}  # in order of arrival: a simulation replays it
        self.leader_changes = 0
        self.commits = Buckets(DISK_BUCKETS_S)
        """Of bringing the state to the disk."""
        self._unflushed, self._flush_now = asyncio.Event(), asyncio.Event()
        self._samples: deque[tuple[float, int]] = deque()
        self.fsm.on_changes = self._changed
        self.fsm.on_applied = self._unflushed.set
        self.fsm.on_full = self._flush_now.set
        self.fsm.on_restore = self._restored
        self.fsm.on_member = self._members_changed
        self.peers.on_down = self._peer_down
        self.node.on_leader_change(self._leader_changed)

    async def run(self, tls: ClientTls = None) -> NoReturn:
        """Serve until cancelled. Raises an ExceptionGroup with `kcore.tasks.Died` when a part fails."""
        try:
            async with asyncio.TaskGroup() as group:
                start_essential(group, 'raft', self.node.run())
                start_essential(group, 'flush', self._flush())
                start_essential(group, 'deadlines', self.proposals.run())
                start_essential(group, 'leases', self.leases.run())
                start_essential(group, 'progress', self._progress())
                start_essential(group, 'compaction', self._compact())
                start_essential(group, 'hash check', self.verifier.run())
                start_essential(group, 'peers', self.peers.run(tls))
        finally:
            for connection in tuple(self.connections):
                connection.close()
        raise AssertionError('essential tasks never return')

    async def close(self) -> None:
        """After `run` has ended: write what is in memory, so that the next start replays nothing, and let go."""
        try:
            await self.fsm.flush()
        except OSError as e:  # the log has it
            log.warning('state was not flushed at the end', err=str(e))
        finally:
            self.fsm.close()

    def _members_changed(self) -> None:
        """Whom there is: `--peers`, and over it what was changed since."""
        known = {**self.config.members, **self.fsm.members()}
        self.members = {m: a for m, a in sorted(known.items()) if a}
        self.peers.update({m: split_address(a) for m, a in self.members.items() if m != self.config.id})

    # -- connections ---------------------------------------------------------------------------------------------

    def connection(self) -> Connection:
        """Protocol factory of the listening socket."""
        return Connection(self)

    def hello(self, theirs: Hello) -> Hello:
        if theirs.cluster and theirs.cluster != self._hello.cluster:
            raise ProtocolError('this member belongs to another cluster')
        if theirs.role is Role.PEER and theirs.member not in self.peers.addresses:
            raise ProtocolError(f'there is no member {theirs.member}')
        return self._hello

    def opened(self, connection: Connection) -> None:
        if len(self.connections) >= CONNECTIONS_MAX:
            log.warning('connection refused', client=connection.name, err=f'more than {CONNECTIONS_MAX} connections')
            connection.close()
        self.connections[connection] = None

    def closed(self, connection: Connection) -> None:
        self.connections.pop(connection, None)
        self.admin.closed(connection)

    def peer_frame(self, peer: int, frame: list[Any]) -> None:
        kind, items = frame
        try:
            if kind == Peer.RAFT:
                for raw in items:
                    self.node.receive(Message.from_wire(raw))
            elif kind == Peer.FORWARD:
                for item in items:
                    self.proposals.serve(peer, item)
            elif kind == Peer.ANSWER:
                for number, result in items:
                    self.proposals.answered(number, result)
            else:
                raise ProtocolError(f'unknown peer frame {kind!r}')
        except (ValueError, TypeError) as e:
            raise ProtocolError(f'malformed peer frame: {e}') from e

    def peer_read(self) -> None:
        self.node.received()

    # -- requests ------------------------------------------------------------------------------------------------

    def request(self, connection: Connection, request: list[Any]) -> None:
        """Dispatch `[id, op, ...]`; each operation answers through `connection.answer`."""
        number, op, *arguments = request
        self.verifier.guard(op)
        handler = _HANDLERS.get(op)
        if handler is None:
            raise BadRequest(f'unknown operation {op!r}')
        try:
            handler(self, connection, number, *arguments)
        except TypeError as e:
            raise BadRequest(f'malformed request: {e}') from e

    def _range(self, connection: Connection, number: int, *raw: Any) -> None:
        query = txn.parse_range(raw)
        if query.flags & RangeFlag.SERIALIZABLE:
            connection.answer(number, self._read(query))
            return

        def ready(error: StoreError | None) -> None:
            connection.answer(number, self._read(query) if error is None else failure(error))

        self.proposals.read(ready)

    def _read(self, query: RangeQuery) -> bytes:
        try:
            return success(self.store.range(query).encode())
        except StoreError as e:
            return failure(e)

    def _write(self, connection: Connection, number: int, command: Any, guard: Any = None) -> None:
        if type(command) is not bytes or not (guard is None or type(guard) is bytes):
            raise BadRequest('a command and its guard must be bytes')
        if len(command) > COMMAND_BYTES_MAX:
            raise TooLarge(f'request of {len(command)} bytes is over the limit of {COMMAND_BYTES_MAX}')
        self.proposals.submit(Op.WRITE, command, lambda result: connection.answer(number, result), guard)

    def _lease_request(self, op: Op, connection: Connection, number: int, lease_id: Any) -> None:
        txn.check_int(lease_id, 'lease')
        self.proposals.submit(op, lease_id, lambda result: connection.answer(number, result))

    def _keepalive(self, connection: Connection, number: int, lease_id: Any) -> None:
        self._lease_request(Op.KEEPALIVE, connection, number, lease_id)

    def _lease_ttl(self, connection: Connection, number: int, lease_id: Any) -> None:
        self._lease_request(Op.LEASE_TTL, connection, number, lease_id)

    def _leases(self, connection: Connection, number: int) -> None:
        self._after_read(connection, number, lambda: pack([lease.id for lease in self.store.leases.all()]))

    def _revision(self, connection: Connection, number: int) -> None:
        self._after_read(connection, number, lambda: pack(self.store.revision))

    def _after_read(self, connection: Connection, number: int, body: Any) -> None:
        def ready(error: StoreError | None) -> None:
            connection.answer(number, success(body()) if error is None else failure(error))

        self.proposals.read(ready)

    def _watch(self, connection: Connection, number: int, *arguments: Any) -> None:
        if len(arguments) != 5 or type(arguments[0]) is not int:
            raise BadRequest('watch must be [id, op, watch id, key, end, revision, flags]')
        watch_id, key, end, start, flags = arguments
        scope = Scope(txn.check_key(key), txn.check_end(end), txn.check_int(flags, 'flags'))
        first = connection.watch(watch_id, scope, txn.check_int(start, 'revision'))
        connection.answer(number, success(pack(first)))

    def _unwatch(self, connection: Connection, number: int, watch_id: Any) -> None:
        connection.watches.remove(watch_id)
        connection.answer(number, success(pack(None)))

    def _ask_progress(self, connection: Connection, number: int, watch_id: Any) -> None:
        connection.watches.progress(watch_id)
        connection.answer(number, success(pack(self.hub.published)))

    def _admin(self, connection: Connection, number: int, *request: Any) -> None:
        if not request or not isinstance(request[0], str):
            raise BadRequest('an administrative request is a word and its arguments')
        self.proposals.submit(Op.ADMIN, list(request), lambda result: connection.answer(number, result))

    def _snapshot(self, connection: Connection, number: int, chunk: Any) -> None:
        self.admin.snapshot(connection, number, chunk)

    def _hash(self, connection: Connection, number: int, revision: Any) -> None:
        self.verifier.serve(txn.check_int(revision, 'revision'), lambda result: connection.answer(number, result))

    def _usage(self, connection: Connection, number: int, prefix: Any, depth: Any) -> None:
        if type(prefix) is not bytes or not 0 < txn.check_int(depth, 'depth') <= DEPTH_MAX:
            raise BadRequest(f'usage wants a prefix in bytes, and a depth of 1 to {DEPTH_MAX}')

        def respond(found: list[Use] | StoreError) -> None:
            connection.answer(number, failure(found) if isinstance(found, StoreError) else success(pack(found)))

        self.usage.serve(prefix, depth, respond)

    def _defrag(self, connection: Connection, number: int) -> None:
        self._defrags.append(lambda result: connection.answer(number, result))
        self._hurry()

    def _status(self, connection: Connection, number: int) -> None:
        connection.answer(number, success(pack(self.status())))

    def status(self) -> dict[str, Any]:
        """What `python -m kstore status` shows of this member. Raises Stopped while it still reads its log."""
        if not self.node.running:
            raise Stopped('this member is starting')
        node = self.node.status()
        backend = self.fsm.engine.backend
        return {
            'version': __version__,
            'cluster': self.config.cluster,
            'member': self.config.id,
            'members': dict(self.members),
            'voters': list(node.conf.voters),
            'learners': list(node.conf.learners),
            'active': sorted(m for m, peer in node.peers.items() if peer.active),
            'role': node.role,
            'term': node.term,
            'leader': node.leader,
            'commit_index': node.commit,
            'applied_index': node.applied,
            'durable_index': self.fsm.durable_index,
            'last_index': node.last,
            'first_index': node.first,
            'revision': self.store.revision,
            'compacted': self.store.compacted,
            'leases': len(self.store.leases),
            'sessions': len(self.fsm.sessions),
            'connections': len(self.connections),
            'watches': sum(len(c.watches) for c in self.connections),
            'feeds': len(self.hub),
            'db_bytes': backend.size_bytes,
            'db_used_bytes': backend.used_bytes,
            'quota_bytes': self.space.quota_bytes,
            'alarms': self.space.alarms + (['CORRUPT'] if self.verifier.corrupt else []),
        }

    # -- the leader's part ---------------------------------------------------------------------------------------

    def _lead(self, ticket: Ticket) -> None:
        if ticket.op == Op.WRITE:
            try:
                self.space.admit(ticket.body)
            except StoreError as e:
                self.proposals.finish(ticket, failure(e))
                return
            self.contention.submit(ticket)
        elif ticket.op == Op.HASH:
            self.verifier.lead(ticket)
        elif ticket.op in (Op.KEEPALIVE, Op.LEASE_TTL):
            self.leases.serve(ticket)
        elif ticket.op == Op.ADMIN:
            self.admin.serve(ticket)
        else:
            self.proposals.finish(ticket, failure(BadRequest(f'operation {ticket.op!r} cannot be forwarded')))

    def _leader_changed(self, leader: int, term: int) -> None:
        if leader:
            self.led.set()
        self.leader_changes += leader != 0
        self.leases.leadership(leader, term, self.config.id)
        self.proposals.sweep()

    def _peer_down(self, peer: int) -> None:
        self.proposals.lost(peer)
        self.node.peer_lost(peer)

    def _changed(self, changes: Sequence[Change], revision: int) -> None:
        watching = self.outbox.flush_answers()  # first: one waits for each of them
        self.hub.publish(changes, revision)
        for connection in watching:
            connection.flush()

    def _restored(self) -> None:
        self._members_changed()
        published, self.hub.published = self.hub.published, self.store.revision
        for connection in self.connections:
            connection.watches.restart(published)

    # -- tasks ---------------------------------------------------------------------------------------------------

    def _hurry(self) -> None:
        self._unflushed.set()
        self._flush_now.set()

    async def _flush(self) -> NoReturn:
        self._unflushed.set()  # the last run may have left something to sweep
        while True:
            await self._unflushed.wait()
            try:
                async with asyncio.timeout(self.config.flush_ms / 1000):
                    await self._flush_now.wait()
            except TimeoutError:
                pass
            self._unflushed.clear()
            self._flush_now.clear()
            if self.store.sweeping:
                self.store.sweep()
                self._hurry()
            await self._flush_once()
            if self._defrags:
                await self._defrag_now()

    async def _flush_once(self) -> None:
        if self.fsm.applied_index > self.fsm.durable_index or self.fsm.engine.dirty or self.space.disk_full:
            began = self._env.clock.monotonic()
            try:
                await self.fsm.flush()
            except OSError as e:
                if not is_full(e):
                    raise
                self.space.refused(e)
                self._unflushed.set()
                await asyncio.sleep(RETRY_S)
            else:
                self.commits.add(self._env.clock.monotonic() - began)
                self.space.flushed(self.fsm.engine.backend.used_bytes)

    async def _defrag_now(self) -> None:
        waiting, self._defrags = self._defrags, []
        backend = self.fsm.engine.backend
        before = backend.size_bytes
        try:
            await self.fsm.engine.compact()
            result = success(pack([before, backend.size_bytes]))
            log.info('state was defragmented', before=before, after=backend.size_bytes)
        except OSError as e:
            result = failure(Refused(f'not defragmented: {e}'))
        for respond in waiting:
            respond(result)

    async def _progress(self) -> NoReturn:
        while True:
            await asyncio.sleep(PROGRESS_S)
            self.hub.progress()

    async def _compact(self) -> NoReturn:
        """By age and by count; only the leader proposes, and a compaction that others made first is fine."""
        age, count = self.config.compact_age_s, self.config.compact_count
        before = 0
        while True:
            await asyncio.sleep(min(COMPACT_CHECK_S, age / COMPACT_SAMPLES or COMPACT_CHECK_S))
            now, revision = self._env.clock.monotonic(), self.store.revision
            self._samples.append((now, revision))
            target = 0
            while age and self._samples and self._samples[0][0] <= now - age:
                target = self._samples.popleft()[1]
            if count:
                target = max(target, revision - count)
            if self.space.over_quota:  # deletes only make room once the past is gone
                target = max(target, before)
            before = revision
            if (
                self.node.is_leader
                and target > self.store.compacted
                and (self.space.over_quota or target - self.store.compacted >= min(1000, count or 1000))
            ):
                self.node.propose(encode(0, 0, 0, False, Command.COMPACT, target), lambda _: None)


_HANDLERS: dict[int, Any] = {
    Op.RANGE: Member._range,
    Op.WRITE: Member._write,
    Op.WATCH: Member._watch,
    Op.UNWATCH: Member._unwatch,
    Op.KEEPALIVE: Member._keepalive,
    Op.LEASE_TTL: Member._lease_ttl,
    Op.LEASES: Member._leases,
    Op.STATUS: Member._status,
    Op.REVISION: Member._revision,
    Op.PROGRESS: Member._ask_progress,
    Op.ADMIN: Member._admin,
    Op.SNAPSHOT: Member._snapshot,
    Op.HASH: Member._hash,
    Op.DEFRAG: Member._defrag,
    Op.USAGE: Member._usage,
}
