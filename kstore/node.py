"""One member: joins the Raft core, the log on disk, the network and the state machine.

This is the only place where Raft meets the outside, and it has two halves. A *turn* does everything that need not
wait: feed messages, ticks and proposals to the core, send, apply, answer. `drive` does what waits for the disk: write
and sync all that the turns since the last sync put into the log, then let acknowledgements out. So a leader's appends
are on the wire before its own disk is asked, the loop goes on accepting work while the disk is busy, and one sync
serves all of it. A disk that has lately been so quick that a thread would cost more is written and waited for in the
turn itself (`_write_now`, docs/decisions/0004).

Order is kept by two rules. Confirmations are given to the core in the order in which it handed out the work. And
the core hands out nothing as committed that this disk has not confirmed, so a turn may apply what it is given at once.

A full disk stops the log, not the member: the batch that did not fit is tried again until it does; meanwhile nothing
new is taken in, reads go on, and a leader hands over to a member whose disk is ahead of its own. It does the same when
one write takes longer than an election. An error of a sync ends the member.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from itertools import islice

import structlog

from kcore import tasks
from kcore.buckets import Buckets
from kcore.env import Env, is_full
from kstore.ports import Done, Fsm, NodeConfig, NodeStatus, PeerStatus, Transport
from kstore.raft.confchange import ConfChange
from kstore.raft.core import RaftConfig, RaftCore, Ready, Stored
from kstore.raft.errors import LeadershipLost, LogCorrupt, LogFull, ProposalDropped, RaftError, ReadDropped
from kstore.raft.messages import NO_ONE, ConfState, Entry, Message, MessageType, SnapshotMeta
from kstore.reads import Reads
from kstore.snapshot import Receiver, Sender, SnapshotFiles
from kstore.trace import Trace, Tracer
from kstore.waiters import Waiters
from kstore.wal import Batch, DiskFull, Recovered, Wal

__all__ = ['Done', 'Fsm', 'Node', 'NodeConfig', 'NodeStatus', 'PeerStatus', 'Transport']

log = structlog.get_logger('kstore.node')

DISK_BUCKETS_S = tuple(0.001 * 2**n for n in range(14))
"""1 ms to 8.2 s: the bounds of etcd's histograms of its disk."""
PROPOSALS_MAX = 8192
"""Proposals waiting for the next turn or for their result; more are refused with ProposalDropped."""
INBOX_MAX = 16384
"""Messages waiting for the next turn; more are dropped, Raft sends them again."""
FULL_RETRY_S = 0.5
"""Pause before a batch that did not fit on the disk is tried again."""
CHUNKS_WAITING_MAX = 64
"""Snapshot chunks waiting for the disk; more are dropped and asked for again."""


class Node:
    """One member of the cluster. Everything is called from the event loop."""

    def __init__(self, config: NodeConfig, env: Env, fsm: Fsm, transport: Transport) -> None:
        """Opens nothing yet: `run` does. Raises ValueError for a configuration that contradicts itself."""
        self.config = config
        self._raft_config = RaftConfig(config.id, config.election_ticks, config.heartbeat_ticks)
        self._env = env
        self._fsm = fsm
        self._transport = transport
        self._wal = Wal(config.data_dir / 'wal', env.disk)
        self._snapshots = SnapshotFiles(config.data_dir / 'snap', env.disk)
        self._receiver = Receiver(self._snapshots, env.disk)
        self._core: RaftCore | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._group: asyncio.TaskGroup | None = None
        self._soon: asyncio.Handle | None = None
        """The next turn."""
        self._died: asyncio.Future[None] | None = None
        self._inbox: list[Message] = []
        self._proposals: list[tuple[bytes, Done, Trace | None]] = []
        self._waiters = Waiters()
        self._led = (NO_ONE, 0)
        self._reads = Reads(self._raft_config, env.rng)
        self._unsynced: deque[Ready] = deque()
        self._unapplied: list[Entry] = []
        """Committed entries that wait for the acknowledgement of others to leave; the next turn applies them."""
        self._dirty = asyncio.Event()
        self._taken: int | None = None
        """So many of the unsynced `drive` is about to write; None while it waits."""
        self._full = False
        self._writing_since: float | None = None
        self.syncs = Buckets(DISK_BUCKETS_S)
        """Of writing and syncing a batch of the log."""
        self._compacted: SnapshotMeta | None = None
        self._taking_over = False
        """A complete snapshot waits for `drive`: its files must stay."""
        self._chunks: asyncio.Queue[Message] = asyncio.Queue(CHUNKS_WAITING_MAX)
        self._senders: dict[int, Sender] = {}
        self._listeners: list[Callable[[int, int], None]] = []

    # --- life ---------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Recover from disk, then serve until cancelled.

        Raises `kcore.tasks.Died` when the disk or the state machine fails, LogCorrupt when the stored state cannot be
        trusted: the text says what to do.
        """
        self._loop = asyncio.get_running_loop()
        self._died = self._loop.create_future()
        try:
            await self._recover()
            async with asyncio.TaskGroup() as group:
                self._group = group
                tasks.start_essential(group, 'raft disk', self.drive())
                tasks.start_essential(group, 'raft ticks', self._tick())
                tasks.start_essential(group, 'raft snapshots', self._take_chunks())
                tasks.start(group, 'raft turns', self._watch())
        except BaseExceptionGroup as group_error:
            raise next(e for e in tasks.leaves(group_error) if isinstance(e, Exception)) from group_error
        finally:
            self._core = self._group = None
            self._wal.close()
            self._fail_waiters()
            self._reads.fail_all(ReadDropped('this member stops'))

    async def _watch(self) -> None:
        """A turn is a plain callback; what it raises ends the member."""
        assert self._died is not None
        await self._died

    async def _recover(self) -> None:
        disk = self._env.disk
        found = await disk.offload(self._wal.open, ConfState(tuple(sorted(self.config.voters))))
        found = await self._finish_snapshot(found)
        last = found.snapshot.index + len(found.entries)
        durable = self._fsm.durable_index
        if durable > last:
            raise LogCorrupt(
                f'{self.config.data_dir}: the state machine holds entry {durable}, but the log ends at {last}. The log '
                'lost acknowledged entries: move this data directory away, remove this member and add it anew'
            )
        if durable < found.snapshot.index:
            raise LogCorrupt(
                f'{self.config.data_dir}: the log begins after entry {found.snapshot.index}, but the state machine '
                f'ends at {durable}. The two do not belong together: restore both from the same copy, or remove this '
                'member and add it anew'
            )
        stored = Stored(found.hard_state, found.snapshot, found.entries, self._fsm.applied_index)
        self._core = RaftCore(self._raft_config, stored, self._env.rng)
        self._waiters.term = self._core.term
        log.info('log recovered', term=self._core.term, index=last, first=found.snapshot.index + 1, cut=found.cut)

    async def _finish_snapshot(self, found: Recovered) -> Recovered:
        """A crash came while a received snapshot was being taken over: do it again from the files."""
        disk = self._env.disk
        complete = await disk.offload(self._snapshots.completed)
        if complete is not None:
            meta, chunks = complete
            begin, last = found.snapshot.index, found.snapshot.index + len(found.entries)
            known = begin < meta.index <= last and found.entries[meta.index - begin - 1].term == meta.term
            if begin <= meta.index and not known:  # our own log does not already prove what the snapshot says
                if self._fsm.durable_index < meta.index:
                    await self._take_over(meta, chunks)
                if begin < meta.index:
                    self._wal.mark(meta, replaces=True)
                    await disk.offload(self._wal.flush)
                    found = found._replace(snapshot=meta, entries=())
        await disk.offload(self._snapshots.clear)
        return found

    async def _tick(self) -> None:
        core = self._running()
        while True:
            ticks = core.slack
            await asyncio.sleep(ticks * self.config.tick_s)
            for _ in range(ticks):
                if not self._full or core.leading is not None:  # a vote that cannot be written down helps nobody
                    core.tick()
                self._reads.tick()
                self._hand_over_if_slow(core)
                if self._reads.waiting or not core.settled:
                    self._schedule()

    def _hand_over_if_slow(self, core: RaftCore) -> None:
        """A leader whose disk takes longer than an election would, while another member's keeps up, should not lead."""
        since, config = self._writing_since, self.config
        if since is not None and core.leading is not None:
            waited_s = self._env.clock.monotonic() - since
            if waited_s > config.election_ticks * config.tick_s and (target := core.leading.ahead()) != NO_ONE:
                log.warning('slow disk, leadership handed over', to=target, waited_s=round(waited_s, 3))
                self._writing_since = None  # once for each write
                core.transfer_leader(target)

    # --- in -----------------------------------------------------------------------------------------------------------

    def receive(self, message: Message) -> None:
        """Feed one message from a peer. Cheap; handled in the next turn."""
        if len(self._inbox) < INBOX_MAX:
            self._inbox.append(message)
            self._schedule()

    def received(self) -> None:
        """What had come from a peer is in. A follower takes its turn at once: only its leader has work for it."""
        core = self._core
        if self._soon is not None and core is not None and core.leading is None and core.leader != NO_ONE:
            self._turn()

    def propose(self, data: bytes, done: Done) -> None:
        """Replicate a command; `done` gets the state machine's result, or NotLeader, ProposalDropped, LeadershipLost.

        All proposals made in one turn of the event loop share one log write and one sync.
        """
        if self._core is None:
            done(ProposalDropped('this member is not running'))
        elif len(self._proposals) + len(self._waiters) >= PROPOSALS_MAX:
            done(ProposalDropped('too many proposals are waiting'))
        else:
            tracer = self._waiters.tracer
            self._proposals.append((data, done, None if tracer is None else tracer.begin(data)))
            self._schedule()

    def read_index(self, done: Done) -> None:
        """`done(index)` once the local state machine has applied everything acknowledged before this call.

        Works on every member. `done` may get ReadDropped instead: ask again. One round of heartbeats serves all reads
        that wait.
        """
        if self._core is None:
            done(ReadDropped('this member is not running'))
        elif self._reads.add(done):
            self._schedule()

    def propose_conf_change(self, change: ConfChange, done: Done) -> None:
        """Change the membership; `done` gets the state machine's result for the entry, or a RaftError."""
        core = self._running()
        try:
            index, _ = core.propose_conf_change(change)
        except RaftError as e:
            done(e)
            return
        self._waiters.add(index, done)
        self._schedule()

    def peer_lost(self, peer: int) -> None:
        """A hint that the connection to `peer` broke: if it led, an election may start early."""
        if self._core is not None and self._core.leader == peer:
            self._core.forget_leader()
            self._schedule()

    def transfer_leader(self, target: int) -> None:
        """Ask that `target` lead. Raises NotLeader when no leader is known; ProposalDropped for an unfit target."""
        self._running().transfer_leader(target)
        self._schedule()

    def trace(self, tracer: Tracer) -> None:
        """Follow every proposal's way from now on."""
        self._waiters.tracer = tracer

    def on_leader_change(self, listener: Callable[[int, int], None]) -> None:
        """Call `listener(leader, term)` after each change of the known leader."""
        self._listeners.append(listener)

    # --- out ----------------------------------------------------------------------------------------------------------

    @property
    def leader_id(self) -> int:
        """Whom this member believes to lead; 0 when no one."""
        return NO_ONE if self._core is None else self._core.leader

    @property
    def is_leader(self) -> bool:
        """Whether this member believes to lead; only a confirmed read or a commit proves it."""
        return self._core is not None and self._core.leading is not None

    @property
    def term(self) -> int:
        return 0 if self._core is None else self._core.term

    @property
    def running(self) -> bool:
        """Whether recovery is over."""
        return self._core is not None

    def status(self) -> NodeStatus:
        """Role, term, indices and, on the leader, every peer's progress. Raises ProposalDropped before `run`."""
        core = self._running()
        peers = {}
        if core.leading is not None:
            for i, pr in core.leading.peers():
                peers[i] = PeerStatus(pr.match, pr.next, pr.state.value, pr.active)
        log_ = core.log
        return NodeStatus(
            id=core.id,
            role=core.role.value,
            term=core.term,
            leader=core.leader,
            commit=log_.committed,
            applied=self._fsm.applied_index,
            last=log_.last,
            first=log_.first,
            conf=core.conf,
            peers=peers,
            log_full=self._full,
            log_crowded=self._wal.crowded,
        )

    def _running(self) -> RaftCore:
        if self._core is None:
            raise ProposalDropped('this member is not running')
        return self._core

    # --- a turn: what need not wait -----------------------------------------------------------------------------------

    def _schedule(self) -> None:
        if self._soon is None and self._loop is not None and self._core is not None:
            self._soon = self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        if self._soon is not None:
            self._soon.cancel()  # it may be this one
            self._soon = None
        core = self._core
        if core is None or self._died is None or self._died.done():
            return
        try:
            self._catch_up()
            self._feed(core)
            self._settle(core)
            self._reads.applied(self._fsm.applied_index)
            if self._reads.ask(core):
                self._schedule()
            self._maybe_compact(core)
        except Exception as e:
            log.error('turn failed', err=f'{type(e).__name__}: {e}', exc_info=e)
            self._unsynced.clear()  # whatever was being written, nobody may confirm it any more
            self._died.set_exception(tasks.Died(f'raft: {e}'))

    def _settle(self, core: RaftCore) -> None:
        """Carry out all that is due; what a quick disk has to write it is given at once, the rest is for `drive`."""
        while True:
            while (rd := core.ready()) is not None:
                self._carry_out(core, rd)
            if not self._unsynced:
                break
            if self._taken is not None or not self._env.disk.quick or not self._write_now(core):
                if len(self._unsynced) > (self._taken or 0):
                    self._dirty.set()
                if self._unapplied:
                    self._schedule()
                return
        self._catch_up()

    def _feed(self, core: RaftCore) -> None:
        inbox, self._inbox = self._inbox, []
        for m in inbox:
            if self._full and m.type in (MessageType.APPEND, MessageType.SNAPSHOT):
                continue  # nowhere to write it: the leader will send it again
            if m.type == MessageType.SNAPSHOT:
                self._chunk_arrived(core, m)
            elif m.type == MessageType.SNAPSHOT_RESP:
                if (sender := self._senders.get(m.frm)) is not None:
                    sender.answer(m)
            else:
                core.step(m)
        proposals, self._proposals = self._proposals, []
        if core.leading is not None:
            self._leads(core.term)
        for data, done, trace in proposals:
            try:
                if self._full and core.leading is not None and core.leading.transferee == NO_ONE:
                    raise LogFull("the log's disk is full")
                index, _ = core.propose(data)
            except RaftError as e:
                done(e)
            else:
                self._waiters.add(index, done, trace)
        self._reads.ask(core)

    def _carry_out(self, core: RaftCore, rd: Ready) -> None:
        self._unapplied += rd.committed
        if rd.committed and not rd.entries and core.leading is not None:
            self._catch_up()  # clients wait for it, and nobody for the news of it
        self._send(core, rd.send_now)
        if rd.must_sync or self._unsynced:
            if rd.snapshot is not None:
                self._wal.mark(rd.snapshot, replaces=True)
            self._wal.append(rd.hard_state, rd.entries)
            self._unsynced.append(rd)
        else:
            self._send(core, rd.send_durable)
            core.advance()
        if rd.committed and (not rd.entries or core.leading is not None or rd.soft_state is not None):
            self._catch_up()  # else the leader's clients wait for our disk, and nobody for our state
        for read in rd.reads:
            self._reads.confirmed(read.context, read.index)
        if rd.soft_state is not None:
            self._soft_state_changed(rd.soft_state.leader, rd.soft_state.term)

    def _send(self, core: RaftCore, messages: Sequence[Message]) -> None:
        if not messages:
            return
        snapshots = [m for m in messages if m.type == MessageType.SNAPSHOT]
        if snapshots:
            for m in snapshots:
                self._start_sender(core, m)
            messages = [m for m in messages if m.type != MessageType.SNAPSHOT]
        self._transport.send(messages)

    def _catch_up(self) -> None:
        """Apply what the core has handed out: from here on the state is what `core.log.applied` says."""
        if self._unapplied:
            entries, self._unapplied = self._unapplied, []
            self._waiters.reached(4, entries[-1].index)
            self._waiters.applied(entries[0].index, self._fsm.apply(entries))
            self._fsm.publish()

    def _soft_state_changed(self, leader: int, term: int) -> None:
        if (leader, term) == self._led:
            return  # only the role moved
        self._led = (leader, term)
        log.info('leader changed', leader=leader, term=term)
        if leader != self.config.id or term != self._waiters.term:
            self._fail_waiters()
        self._reads.leader_changed()
        for listener in self._listeners:
            listener(leader, term)

    def _leads(self, term: int) -> None:
        if term != self._waiters.term:
            self._fail_waiters()
            self._waiters.term = term

    def _fail_waiters(self) -> None:
        proposals, self._proposals = self._proposals, []
        self._waiters.fail(LeadershipLost('leadership was lost before the outcome was known'))
        for _, done, _ in proposals:
            done(ProposalDropped('this member does not lead any more'))

    def _maybe_compact(self, core: RaftCore) -> None:
        """Cut the log once there is twice as much as lagging followers are granted."""
        log_, config = core.log, self.config
        held = log_.applied - log_.offset
        if held < 2 * config.log_keep_entries and log_.bytes < 2 * config.log_keep_bytes:
            return
        durable = min(self._fsm.durable_index, log_.applied)
        entries = durable - log_.offset
        if self._compacted is not None or (
            entries < 2 * config.log_keep_entries and log_.bytes < 2 * config.log_keep_bytes
        ):
            return
        keep = config.log_keep_entries
        if log_.bytes >= 2 * config.log_keep_bytes:
            keep = min(keep, entries // 2)
        if durable - keep > log_.offset:
            self._compacted = core.compact(durable - keep)
            self._wal.mark(self._compacted, replaces=False)
            self._dirty.set()

    # --- what waits for the disk --------------------------------------------------------------------------------------

    def _write_now(self, core: RaftCore) -> bool:
        """What `drive` does, for a disk that has lately been quick and in the usual case. Returns False in others."""
        open_ = len(self._unsynced)
        if self._full or self._compacted is not None or any(rd.snapshot is not None for rd in self._unsynced):
            return False
        batch, now = self._wal.take(), self._env.clock.monotonic
        self._waiters.reached(2, batch.last)
        began = now()
        try:
            self._env.disk.sync_now(self._wal.write, batch)
        except DiskFull:
            self._wal.give_back(batch)
            return False
        took = now() - began
        self._waiters.reached(3, batch.last)
        self._written(core, open_)
        self.syncs.add(took)
        return True

    def _written(self, core: RaftCore, open_: int) -> None:
        """So many of the oldest duties are on the disk: let out what depended on them."""
        for _ in range(open_):
            rd = self._unsynced.popleft()
            self._send(core, rd.send_durable)
            core.advance()

    async def drive(self) -> None:
        """Write, sync, then let out what depended on it; for ever. An OSError ends the member."""
        core, disk = self._running(), self._env.disk
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            batch, open_, compacted = self._wal.take(), len(self._unsynced), self._compacted
            self._taken = open_
            received = [rd.snapshot for rd in islice(self._unsynced, open_) if rd.snapshot is not None]
            if received:
                self._catch_up()
                await self._restore(received[-1])
            if batch.payloads:
                self._waiters.reached(2, batch.last)
                await self._write(core, batch)
                self._waiters.reached(3, batch.last)
            self._written(core, open_)
            self._taken = 0
            if received:
                await disk.offload(self._snapshots.clear)
                self._receiver.reset()
                self._taking_over = False
            if compacted is not None:
                self._compacted = None
                await disk.offload(self._wal.drop, compacted.index)
            self._taken = None
            if self._soon is None:  # else it comes at once
                self._turn()

    async def _write(self, core: RaftCore, batch: Batch) -> None:
        """Bring the batch to disk, however long there is no room. Raises OSError when the disk fails."""
        now = self._env.clock.monotonic
        while True:
            self._writing_since = began = now()
            try:
                await self._env.disk.sync_soon(self._wal.write, batch)
                self.syncs.add(now() - began)
            except DiskFull as e:
                if not self._full:
                    log.error('log disk full', dir=str(self.config.data_dir), err=str(e))
                    self._full = True
                if core.leading is not None and (target := core.leading.ahead()) != NO_ONE:
                    core.transfer_leader(target)
                    self._schedule()
            else:
                break
            finally:
                self._writing_since = None
            await asyncio.sleep(FULL_RETRY_S)
        if self._full:
            log.warning('log disk has room again', dir=str(self.config.data_dir))
            self._full = False

    # --- snapshots --------------------------------------------------------------------------------------------------

    def _start_sender(self, core: RaftCore, m: Message) -> None:
        """The core wants `m.to` to get the whole state, as it is now."""
        if m.to in self._senders or self._group is None:
            return
        self._catch_up()  # entries that come out of the core together with this request count as applied there
        meta = SnapshotMeta(core.log.applied, core.log.term(core.log.applied), core.conf)
        sender = self._senders[m.to] = Sender(m, meta, self._transport.send)
        tasks.start(self._group, f'raft snapshot to {m.to}', self._stream(core, m.to, sender, self._fsm.snapshot()))

    async def _stream(self, core: RaftCore, peer: int, sender: Sender, chunks: AsyncIterator[bytes]) -> None:
        log.info('snapshot stream started', peer=peer)
        ok = False
        try:
            ok = await sender.run(chunks)
        except (OSError, ValueError) as e:
            log.warning('snapshot stream failed', peer=peer, err=str(e))
        finally:
            del self._senders[peer]
            if isinstance(chunks, AsyncGenerator):
                await chunks.aclose()
        log.info('snapshot stream ended', peer=peer, ok=ok)
        core.report_snapshot(peer, ok=ok)
        self._schedule()

    def _chunk_arrived(self, core: RaftCore, m: Message) -> None:
        if m.snapshot is not None and m.term == core.term and m.frm == core.leader:
            with contextlib.suppress(asyncio.QueueFull):
                self._chunks.put_nowait(m)

    async def _take_chunks(self) -> None:
        """Store arriving chunks; tell the core when a snapshot is complete."""
        core = self._running()
        while True:
            m = await self._chunks.get()
            if self._taking_over:
                continue  # a newer stream has begun too early: the leader will send it again, if it is still needed
            try:
                answer, complete = await self._receiver.take(m)
            except OSError as e:
                if not is_full(e):
                    raise
                log.warning('snapshot chunk refused', index=m.index, err=str(e))
                continue  # the sender will try again
            self._transport.send((answer,))
            if complete:
                epoch = core.log.epoch
                core.step(m._replace(index=0, context=b'', hint=0))
                self._schedule()
                self._taking_over = core.log.epoch != epoch
                if not self._taking_over:  # our own log already proves what the snapshot says
                    self._receiver.reset()
                    await self._env.disk.offload(self._snapshots.clear)

    async def _restore(self, meta: SnapshotMeta) -> None:
        complete = await self._env.disk.offload(self._snapshots.completed)
        if complete is None or complete[0] != meta:
            raise LogCorrupt(f'snapshot {meta.index} was announced, but its files are not there')
        await self._take_over(meta, complete[1])

    async def _take_over(self, meta: SnapshotMeta, chunks: int) -> None:
        """Replace the state machine, however long there is no room for it: the files stay until it is done."""
        while True:
            try:
                await self._fsm.restore(meta, self._snapshots.chunks(meta, chunks))
            except OSError as e:
                if not is_full(e):
                    raise
                log.error('no room for the snapshot', index=meta.index, err=str(e))
                await asyncio.sleep(FULL_RETRY_S)
            else:
                log.info('snapshot taken over', index=meta.index, term=meta.term)
                return
