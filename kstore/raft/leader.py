"""What only a leader knows and does: replication, commit, read rounds, hand-over, quorum checks.

`Leading` exists exactly as long as its member leads, so nothing of it can leak into a later term.

Appends are not sent where they become due but once per `Ready`, for every follower at a time: however many proposals
and answers arrived in between, each follower gets one message (or as many as the inflight limits allow).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from kstore.raft import confchange, quorum
from kstore.raft.confchange import ConfChange
from kstore.raft.errors import ConfChangeRefused, ProposalDropped
from kstore.raft.messages import NO_ONE, Entry, EntryKind, Message, MessageType
from kstore.raft.progress import Inflights, Progress, State

if TYPE_CHECKING:
    from kstore.raft.core import RaftCore

READS_WAITING_MAX = 4096
"""Reads waiting for their round (one stands for a whole batch of a member); more are dropped and asked again."""


class _Read(NamedTuple):
    """A read that waits for a quorum to confirm that this leader still led when it arrived."""

    round: int
    at: int
    asker: int
    context: bytes


class Leading:
    """The leader's view of its term."""

    def __init__(self, core: RaftCore) -> None:
        self._core = core
        self.term = core.term
        self.progress: dict[int, Progress] = {}
        self.transferee = NO_ONE
        self._uncommitted = 0
        """Bytes proposed in this term and not committed."""
        self._conf_index = core.log.last
        """No membership change is proposed before everything up to here is applied: there may be one among it."""
        self._since_heartbeat = 0
        self._heartbeat_due = False
        self._round = 0
        """Newest read round; a heartbeat carries it, the answer confirms it and all before it."""
        self._round_sent = 0
        self._reads: deque[_Read] = deque()
        self._early: list[tuple[int, bytes]] = []
        """Reads that came before this leader committed anything of its own term (§6.4): asker and context."""
        self.conf_changed()

    # --- time -------------------------------------------------------------------------------------------------------

    def tick(self) -> bool:
        """Whether there is something to do now: most ticks of a leader without followers pass unnoticed."""
        core = self._core
        election_over = core.elapsed >= core.config.election_ticks
        if election_over:
            core.elapsed = 0
            self.transferee = NO_ONE  # it had its chance; take proposals again
            if core.config.check_quorum and not self._check_quorum():
                core.become_follower(core.term, NO_ONE)
                return True
            self._retire_if_removed()
        self._since_heartbeat += 1
        if self._since_heartbeat >= core.config.heartbeat_ticks:
            self._since_heartbeat = 0
            self._heartbeat_due = bool(self.progress)
        return election_over or self._heartbeat_due

    def _check_quorum(self) -> bool:
        alive = quorum.has_quorum(self._core.conf, lambda i: i == self._core.id or self.progress[i].active)
        for pr in self.progress.values():
            pr.active = False
        return alive

    # --- proposals --------------------------------------------------------------------------------------------------

    def propose(self, kind: EntryKind, data: bytes) -> tuple[int, int]:
        core = self._core
        if self.transferee != NO_ONE:
            raise ProposalDropped(f'leadership is being handed to member {self.transferee}')
        if self._uncommitted and self._uncommitted + len(data) > core.config.uncommitted_bytes_max:
            raise ProposalDropped('too much data waits for a majority')
        return self.put(kind, data)

    def put(self, kind: EntryKind, data: bytes) -> tuple[int, int]:
        """Append unconditionally: the leader's own entries, and what `propose` let pass."""
        core = self._core
        self._uncommitted += len(data)
        index = core.log.last + 1
        core.log.append((Entry(core.term, index, int(kind), data),))
        return index, core.term

    def propose_conf_change(self, change: ConfChange) -> tuple[int, int]:
        log = self._core.log
        if self._conf_index > log.applied:
            raise ConfChangeRefused(f'another change may be under way: wait until entry {self._conf_index} is applied')
        if len(change.changes) > confchange.CHANGES_MAX:
            raise ConfChangeRefused(f'more than {confchange.CHANGES_MAX} changes at once')
        confchange.apply(self._core.conf, change)
        index, term = self.propose(EntryKind.CONF_CHANGE, change.encode())
        self._conf_index = index
        return index, term

    def conf_changed(self) -> None:
        """Follow the core's new membership."""
        core, config = self._core, self._core.config
        wanted = confchange.members(core.conf) - {core.id}
        self.progress = {i: pr for i, pr in self.progress.items() if i in wanted}
        for i in sorted(wanted - self.progress.keys()):
            inflights = Inflights(config.inflight_max, config.inflight_bytes_max)
            self.progress[i] = Progress(0, core.log.last + 1, inflights)
            # A fresh member counts as alive until the next check, or adding one could depose the leader.
            self.progress[i].active = True
        if self.transferee not in core.conf.voters:
            self.transferee = NO_ONE
        self._maybe_commit()  # a smaller quorum may already agree
        self._confirm_reads()
        self._retire_if_removed()

    def applied(self, entries: Sequence[Entry]) -> None:
        """These were handed to the state machine."""
        core = self._core
        self._uncommitted = max(0, self._uncommitted - sum(len(e.data) for e in entries if e.term == self.term))
        if core.conf.auto_leave and core.log.applied >= self._conf_index and core.leading is self:
            self._conf_index, _ = self.put(EntryKind.CONF_CHANGE, ConfChange().encode())

    # --- replication ------------------------------------------------------------------------------------------------

    def before_ready(self, *, news: bool) -> None:
        """Send what is due: one heartbeat round at most, then appends.

        news: tell followers of commits also where there is nothing else to send them; else the next time.
        """
        if self._heartbeat_due:
            self._heartbeat_due = False
            self._round_sent = self._round
            for i, pr in self.progress.items():
                commit = min(pr.match, self._core.log.committed)
                m = Message(MessageType.HEARTBEAT, i, self._core.id, self.term, commit=commit, seq=self._round)
                self._core.post(m)
        for i, pr in self.progress.items():
            self._feed(i, pr, news)

    def _feed(self, i: int, pr: Progress, news: bool) -> None:
        log = self._core.log
        if pr.state is State.REPLICATE and pr.next > log.last and pr.sent_commit >= log.committed and not pr.nudge:
            return  # the usual end of a turn
        while pr.next <= log.last and not pr.paused:
            if not self._append(i, pr, with_entries=True):
                return
        if pr.state is State.REPLICATE:
            if pr.nudge or (news and pr.sent_commit < min(log.committed, pr.next - 1)):
                self._append(i, pr, with_entries=False)
        elif not pr.paused:
            self._append(i, pr, with_entries=False)

    def _append(self, i: int, pr: Progress, *, with_entries: bool) -> bool:
        """Send one append, or start a snapshot when what the follower needs is gone. Returns False for the latter."""
        core, log = self._core, self._core.log
        previous = pr.next - 1
        if previous < log.offset or (previous == 0 and not core.founded_with(i)):
            pr.become_snapshot(log.applied)
            core.post(Message(MessageType.SNAPSHOT, i, core.id, self.term, index=log.applied))
            return False
        entries = log.slice(pr.next, log.last, core.config.append_bytes_max) if with_entries else ()
        core.post(
            Message(
                MessageType.APPEND,
                i,
                core.id,
                self.term,
                index=previous,
                log_term=log.term(previous),
                commit=log.committed,
                entries=tuple(entries),
            )
        )
        last = previous + len(entries)
        pr.sent_commit = min(log.committed, last)
        pr.sent(last, sum([len(e.data) for e in entries]))
        return True

    def stored(self) -> None:
        """Our own disk confirmed more of the log."""
        self._maybe_commit()

    def _match(self, i: int) -> int:
        return self._core.log.stable if i == self._core.id else self.progress[i].match

    def _maybe_commit(self) -> None:
        """§3.6.2: count only entries of our own term; older ones are committed by the way."""
        core, log = self._core, self._core.log
        index = min(core.agreed(self._match), log.last)
        if index > log.committed and log.term(index) == self.term:
            first_of_term = not self._has_committed_own
            log.commit_to(index)
            if first_of_term:
                early, self._early = self._early, []
                for asker, context in early:
                    self.read_index(asker, context)

    @property
    def _has_committed_own(self) -> bool:
        log = self._core.log
        return log.term(log.committed) == self.term

    # --- answers ----------------------------------------------------------------------------------------------------

    def step(self, m: Message) -> None:
        """A message of our own term."""
        if m.type == MessageType.READ_INDEX:
            self.read_index(m.frm, m.context)
        elif m.type == MessageType.TRANSFER:
            if m.hint in self._core.conf.voters:
                self.transfer(m.hint)
        elif (pr := self.progress.get(m.frm)) is not None:
            if m.type == MessageType.APPEND_RESP:
                pr.active = True
                (self._append_refused if m.reject else self._append_accepted)(m, pr)
            elif m.type == MessageType.HEARTBEAT_RESP:
                self._heartbeat_answered(m, pr)

    def _append_refused(self, m: Message, pr: Progress) -> None:
        """Skip back a whole term at a time: nothing after what either log has of a term up to that one can agree."""
        hint = m.hint
        if m.log_term:
            hint, _ = self._core.log.conflict_hint(m.hint, m.log_term)
        pr.rejected(m.index, hint)

    def _append_accepted(self, m: Message, pr: Progress) -> None:
        log = self._core.log
        news = pr.acknowledged(min(m.index, log.last))
        if pr.state is State.PROBE and (news or pr.match == m.index):
            pr.become_replicate()
        elif pr.state is State.SNAPSHOT and news and pr.match + 1 >= log.first:
            pr.become_probe()
            pr.become_replicate()
        elif pr.state is State.REPLICATE:
            pr.inflights.free_up_to(m.index)
        if news:
            self._maybe_commit()
            self._maybe_hand_over(m.frm)

    def _heartbeat_answered(self, m: Message, pr: Progress) -> None:
        pr.active = True
        pr.waiting = False
        if pr.match < self._core.log.last:
            pr.nudge = True
        self._maybe_hand_over(m.frm)  # it may have been lost, or have come before the target could campaign
        if m.seq > pr.acked_round:
            pr.acked_round = m.seq
            self._confirm_reads()

    def snapshot_ended(self, peer: int, *, ok: bool) -> None:
        """The stream is through (its effect shows in the follower's own answer) or failed (probe again)."""
        pr = self.progress.get(peer)
        if pr is not None and pr.state is State.SNAPSHOT:
            if not ok:
                pr.snapshot = 0
            pr.become_probe()
            pr.waiting = True  # until a heartbeat's answer: do not fire the next snapshot at once

    # --- reads --------------------------------------------------------------------------------------------------------

    def read_index(self, asker: int, context: bytes) -> None:
        """§6.4: note the commit index, then make sure by a round of heartbeats that we still lead."""
        if len(self._reads) + len(self._early) >= READS_WAITING_MAX:
            return
        if not self._has_committed_own:
            self._early.append((asker, context))
            return
        if self._round == self._round_sent:  # answers to a round that left before this read prove nothing about it
            self._round += 1
        self._heartbeat_due = True
        self._reads.append(_Read(self._round, self._core.log.committed, asker, context))
        self._confirm_reads()  # the only voter confirms itself

    def _confirm_reads(self) -> None:
        if not self._reads:
            return
        me = self._core.id
        confirmed = self._core.agreed(lambda i: quorum.EVERYTHING if i == me else self.progress[i].acked_round)
        while self._reads and self._reads[0].round <= confirmed:
            read = self._reads.popleft()
            if read.asker == me:
                self._core.answer_read(read.at, read.context)
            else:
                self._core.post(
                    Message(MessageType.READ_INDEX_RESP, read.asker, me, self.term, index=read.at, context=read.context)
                )

    # --- hand-over ----------------------------------------------------------------------------------------------------

    def transfer(self, target: int) -> None:
        """§3.10: stop taking proposals until `target` campaigned or an election timeout passed."""
        if target == self._core.id:
            self.transferee = NO_ONE
            return
        if target == self.transferee:
            return
        self.transferee = target
        self._core.elapsed = 0
        self._maybe_hand_over(target)

    def _maybe_hand_over(self, peer: int) -> None:
        if peer == self.transferee and self.progress[peer].match == self._core.log.last:
            self._core.post(Message(MessageType.TIMEOUT_NOW, peer, self._core.id, self.term))

    def _retire_if_removed(self) -> None:
        """§4.2.2: a leader that is no voter any more hands over; until then it leads without counting itself.

        Stepping down at once could leave nobody electable: see `RaftCore.promotable`.
        """
        core = self._core
        if self.transferee == NO_ONE and not core.is_voter(core.conf):
            self.transfer(max(core.conf.voters, key=lambda i: self.progress[i].match))

    def ahead(self) -> int:
        """The voter that has the most of the log on disk, if that is more than ourselves; else NO_ONE."""
        log = self._core.log
        fit = [i for i in self._core.conf.voters if i in self.progress and self.progress[i].active]
        best = max(fit, key=lambda i: self.progress[i].match, default=NO_ONE)
        return best if best != NO_ONE and self.progress[best].match > log.stable else NO_ONE

    def peers(self) -> Iterable[tuple[int, Progress]]:
        """Everyone else, for status and tests."""
        return self.progress.items()
