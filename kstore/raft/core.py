"""`RaftCore`: one member's decisions, without I/O.

Four verbs go in: `tick`, `step`, `propose` (and its kin `read_index`, `transfer_leader`, `propose_conf_change`), and
`advance`. One thing comes out: `Ready`, whose field order is the order of duties. What each role does with each
message is in `roles.py` (followers, candidates) and `leader.py`; terms, roles and the hand-over of work are here.

`Ready`s may be taken faster than they are written: `advance()` confirms the *oldest* one that is still open. So the
next append can leave while the disk is still busy with the last, and one sync covers all that gathered meanwhile
(thesis §10.2.1). Whatever promises durability waits in `send_durable`.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kstore.raft import confchange, quorum, roles
from kstore.raft.confchange import ConfChange
from kstore.raft.errors import NotLeader, ProposalDropped
from kstore.raft.leader import Leading
from kstore.raft.log import RaftLog
from kstore.raft.messages import NO_ONE, ConfState, Entry, EntryKind, HardState, Message, MessageType, SnapshotMeta
from kstore.raft.roles import Role


@dataclass(frozen=True, slots=True)
class RaftConfig:
    """Tunables of one member. Times are in ticks, sizes in bytes of entry data."""

    id: int
    election_ticks: int = 12
    """Silence after which a follower wants to lead; the actual wait is drawn from [1, 5/3) times this."""
    heartbeat_ticks: int = 2
    pre_vote: bool = True
    """Ask before raising the term, so that a member that was cut off disturbs nobody (thesis §9.6)."""
    check_quorum: bool = True
    """A leader that hears from no majority steps down; who hears a leader refuses votes (thesis §6.2, §6.4.1)."""
    append_bytes_max: int = 1 << 20
    """Entry data in one append; a single larger entry still goes, alone."""
    inflight_max: int = 256
    inflight_bytes_max: int = 16 << 20
    uncommitted_bytes_max: int = 64 << 20
    """Proposals beyond this are dropped, so that a leader without a majority does not fill its memory."""
    apply_bytes_max: int = 4 << 20
    """Committed entry data handed out in one Ready."""

    def __post_init__(self) -> None:
        if self.id == NO_ONE:
            raise ValueError('id: members are numbered from 1')
        if self.heartbeat_ticks < 1 or self.election_ticks < 3 * self.heartbeat_ticks:
            raise ValueError('election_ticks must be at least three times heartbeat_ticks, or leaders will flap')


class Stored(NamedTuple):
    """What a member found on its disk."""

    hard_state: HardState
    snapshot: SnapshotMeta
    """Where the log begins."""
    entries: Sequence[Entry]
    applied: int = 0
    """The state machine holds everything up to here."""


class ReadIndex(NamedTuple):
    """Whoever asked with `context` may read once `index` is applied."""

    index: int  # type: ignore[assignment]
    context: bytes


class SoftState(NamedTuple):
    """What need not be stored."""

    role: Role
    leader: int
    term: int


class Ready(NamedTuple):
    """Duties, from top to bottom. Source: thesis §3.8, §10.2.1."""

    send_now: tuple[Message, ...]
    """May leave before anything below is written."""
    snapshot: SnapshotMeta | None
    """Replace the state machine and the log by this received snapshot, durably."""
    hard_state: HardState | None
    entries: tuple[Entry, ...]
    """Append; first drop whatever is stored at >= entries[0].index."""
    must_sync: bool
    """Whether the three above have to be on disk before `send_durable` and `advance`."""
    send_durable: tuple[Message, ...]
    """Votes and acknowledgements: only once this and every earlier Ready is on disk."""
    committed: tuple[Entry, ...]
    """Apply in order, exactly once; needs no waiting, these are on disk already."""
    reads: tuple[ReadIndex, ...]
    soft_state: SoftState | None
    """Set when it changed."""


class _Open(NamedTuple):
    """A Ready whose write is not confirmed."""

    epoch: int
    last: int
    terms: bool
    """It carries a new term or vote."""
    snapshot: bool


class RaftCore:
    """One member. Not thread-safe; no call blocks. Invariant: `term` never decreases, one vote per term."""

    def __init__(self, config: RaftConfig, stored: Stored, rng: random.Random) -> None:
        """Raises LogCorrupt when what was stored contradicts itself."""
        self.config = config
        self.id = config.id
        self.log = RaftLog(stored.snapshot.index, stored.snapshot.term, stored.entries)
        self.log.commit_to(max(stored.applied, min(stored.hard_state.commit, self.log.last)))
        self.log.applied = max(stored.applied, self.log.offset)
        self.term, self.vote = stored.hard_state.term, stored.hard_state.vote
        self._confs = [(self.log.offset, stored.snapshot.conf)]
        """Memberships and the index from which each holds, back to the beginning of the log."""
        self._replay_confs()
        self.role = Role.FOLLOWER
        self.leader = NO_ONE
        self.leading: Leading | None = None
        self.votes: dict[int, bool] = {}
        self.elapsed = 0
        """Ticks since the leader was last heard, or since this candidacy or quorum check began."""
        self.patience = 0
        """Ticks of silence after which this member campaigns; drawn anew on each role change."""
        self._rng = rng
        self._now: list[Message] = []
        self._durable: list[Message] = []
        self._reads: list[ReadIndex] = []
        self._snapshot: SnapshotMeta | None = None
        self._written_state = (self.term, self.vote)
        self._shown = SoftState(self.role, self.leader, self.term)
        self._settled = False
        """Nothing came in since `ready` gave out all there was."""
        self._open: deque[_Open] = deque()
        self._open_terms = 0
        self.draw_patience()

    def _replay_confs(self) -> None:
        """Membership changes up to `applied` happened before the restart."""
        if self.log.applied > self.log.offset:
            for e in self.log.slice(self.log.first, self.log.applied, 1 << 62):
                if e.kind == EntryKind.CONF_CHANGE:
                    self._confs.append((e.index, confchange.apply(self.conf, ConfChange.decode(e.data))))

    @property
    def conf(self) -> ConfState:
        """The membership as of `log.applied`."""
        return self._confs[-1][1]

    @property
    def slack(self) -> int:
        """Ticks that may pass before anybody needs to know: a leader without followers has nobody to call."""
        alone = self.leading is not None and not self.leading.progress
        return max(1, self.config.election_ticks - self.elapsed) if alone else 1

    @property
    def settled(self) -> bool:
        """Whether `ready` has nothing to give until something comes in."""
        return self._settled

    # --- in ---------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """One unit of time passed."""
        self.elapsed += 1
        if self.leading is not None:
            if self.leading.tick():
                self._settled = False
        elif self.elapsed >= self.patience and self.promotable:
            self._settled = False
            roles.campaign(self)

    def step(self, m: Message) -> None:
        """A message arrived. Stale, misaddressed and unknown ones are ignored."""
        self._settled = False
        if m.to != self.id or m.frm == self.id:
            return
        if m.term > self.term and not roles.adopt_term(self, m):
            return
        if m.term < self.term:
            roles.answer_stale(self, m)
        elif m.type in roles.VOTES:
            roles.consider_vote(self, m)
        elif self.leading is not None:
            self.leading.step(m)
        else:
            roles.step(self, m)

    def propose(self, data: bytes) -> tuple[int, int]:
        """Append a command. Returns its (index, term): it took effect iff that index is committed with that term.

        Raises NotLeader, or ProposalDropped (leadership is being handed over, too much is uncommitted).
        """
        return self._lead().propose(EntryKind.NORMAL, data)

    def propose_conf_change(self, change: ConfChange) -> tuple[int, int]:
        """Append a membership change; it takes effect when applied. Raises as `propose`, and ConfChangeRefused."""
        return self._lead().propose_conf_change(change)

    def read_index(self, context: bytes) -> None:
        """Ask for a point in the log that is at least as new as everything acknowledged so far.

        The answer comes in some later `Ready.reads`, or never: ask again with a *new* context. Raises NotLeader when no
        leader is known. Source: thesis §6.4.
        """
        self._settled = False
        if self.leading is not None:
            self.leading.read_index(self.id, context)
        elif self.leader == NO_ONE:
            raise NotLeader(NO_ONE)
        else:
            self.post(Message(MessageType.READ_INDEX, self.leader, self.id, self.term, context=context))

    def transfer_leader(self, target: int) -> None:
        """Bring `target` up to date, then let it campaign at once (thesis §3.10).

        Raises NotLeader when no leader is known, ProposalDropped when `target` is no voter.
        """
        if target not in self.conf.voters:
            raise ProposalDropped(f'member {target} is no voter and cannot lead')
        self._settled = False
        if self.leading is not None:
            self.leading.transfer(target)
        elif self.leader == NO_ONE:
            raise NotLeader(NO_ONE)
        else:
            self.post(Message(MessageType.TRANSFER, self.leader, self.id, self.term, hint=target))

    def forget_leader(self) -> None:
        """The connection to the leader broke: stop vouching for it, and campaign soon unless it is heard again.

        Harmless when wrong: a pre-vote fails while a majority still hears the leader.
        """
        if self.leading is None and self.leader != NO_ONE:
            self._settled = False
            self.leader = NO_ONE
            self.patience = min(
                self.patience, self.elapsed + self._rng.randint(1, max(2, self.config.election_ticks // 3))
            )

    def report_snapshot(self, peer: int, *, ok: bool) -> None:
        """The stream started for a SNAPSHOT message to `peer` ended."""
        if self.leading is not None:
            self._settled = False
            self.leading.snapshot_ended(peer, ok=ok)

    def compact(self, index: int) -> SnapshotMeta:
        """Forget log entries up to `index`. Returns where the log begins now. Raises ValueError beyond `applied`."""
        log = self.log
        log.compact(index)
        while len(self._confs) > 1 and self._confs[1][0] <= log.offset:
            del self._confs[0]
        return SnapshotMeta(log.offset, log.offset_term, self._confs[0][1])

    def _lead(self) -> Leading:
        if self.leading is None:
            raise NotLeader(self.leader)
        self._settled = False
        return self.leading

    # --- out --------------------------------------------------------------------------------------------------------

    def ready(self) -> Ready | None:
        """The next duties, or None when there are none. Several may be open at a time."""
        if self._settled:
            return None
        log = self.log
        committed = log.take_committed(self.config.apply_bytes_max)
        if self.leading is not None:
            # News of a commit leave after those who wait for it have their answers. But a change of members has to be
            # told before it takes effect, or who is removed would never hear of it.
            self.leading.before_ready(news=not committed or any(e.kind for e in committed))
        entries = log.take_unstable()
        terms = self._written_state != (self.term, self.vote)
        shown = self._shown
        soft = shown
        if self.role is not shown.role or self.leader != shown.leader or self.term != shown.term:
            soft = SoftState(self.role, self.leader, self.term)
        work = entries or committed or terms or self._now or self._durable or self._reads or self._snapshot
        if not work and soft is shown:
            self._settled = True
            return None
        must_sync = bool(entries) or terms or self._snapshot is not None
        state = HardState(self.term, self.vote, log.committed) if must_sync else None
        self._written_state = (self.term, self.vote)
        if terms or self._open_terms:  # nobody may hear of a term that a crash could still undo
            self._durable[:0] = self._now
            self._now.clear()
        rd = Ready(
            send_now=tuple(self._now),
            snapshot=self._snapshot,
            hard_state=state,
            entries=entries,
            must_sync=must_sync,
            send_durable=tuple(self._durable),
            committed=committed,
            reads=tuple(self._reads),
            soft_state=None if soft is shown else soft,
        )
        self._shown, self._snapshot = soft, None
        self._now.clear()
        self._durable.clear()
        self._reads.clear()
        self._open.append(_Open(log.epoch, log.handed, terms, rd.snapshot is not None))
        self._open_terms += terms
        if committed:
            self._applied(committed)
        else:
            self._settled = True
        return rd

    def advance(self) -> None:
        """The oldest open Ready is on disk (if it had to be). Raises IndexError when none is open."""
        self._settled = False
        done = self._open.popleft()
        self._open_terms -= done.terms
        self.log.written(done.epoch, done.last)
        if self.leading is not None:
            self.leading.stored()

    def _applied(self, committed: Sequence[Entry]) -> None:
        for e in committed:
            if e.kind == EntryKind.CONF_CHANGE:
                self._confs.append((e.index, confchange.apply(self.conf, ConfChange.decode(e.data))))
                self._conf_switched()
        if self.leading is not None:
            self.leading.applied(committed)

    def _conf_switched(self) -> None:
        if self.leading is not None:
            self.leading.conf_changed()

    # --- for roles.py and leader.py -----------------------------------------------------------------------------------

    @property
    def promotable(self) -> bool:
        """Whether this member may campaign: a voter, with its log and state in place.

        One that was just voted out may too while it holds entries beyond its removal: voters who have not applied the
        removal still need its vote, and would not get it against a longer log. It then hands over at once.
        """
        if self._snapshot is not None or any(rd.snapshot for rd in self._open):
            return False
        if self.is_voter(self.conf):
            return True
        voted_out = len(self._confs) > 1 and self.is_voter(self._confs[-2][1]) and self.id not in self.conf.learners
        return voted_out and self.log.last > self.log.committed

    def founded_with(self, member: int) -> bool:
        """Whether `member` started from the same membership as this log.

        A member that joined later did not, and the log's beginning does not say it: it needs a snapshot.
        """
        return member in confchange.members(self._confs[0][1])

    def is_voter(self, conf: ConfState) -> bool:
        return self.id in conf.voters or self.id in conf.outgoing

    @property
    def hears_leader(self) -> bool:
        """Whether a leader was heard so recently that nobody else should be elected."""
        return self.config.check_quorum and self.leader != NO_ONE and self.elapsed < self.config.election_ticks

    def post(self, m: Message) -> None:
        """Send as soon as possible."""
        self._now.append(m)

    def post_durable(self, m: Message) -> None:
        """Send once everything up to now is on disk."""
        last = self._durable[-1] if self._durable else None
        if (
            last is not None
            and m.type == last.type == MessageType.APPEND_RESP
            and (m.to, m.term) == (last.to, last.term)
            and not m.reject
            and not last.reject
            and m.index >= last.index
        ):
            self._durable[-1] = m  # acknowledging the later index acknowledges the earlier one
        else:
            self._durable.append(m)

    def answer_read(self, index: int, context: bytes) -> None:
        self._reads.append(ReadIndex(index, context))

    def restore(self, meta: SnapshotMeta) -> None:
        """Take over a received snapshot; the node does the same to disk and state machine."""
        self.log.restore(meta)
        self._confs = [(meta.index, meta.conf)]
        self._snapshot = meta

    def draw_patience(self) -> None:
        spread = max(1, self.config.election_ticks * 2 // 3)
        self.patience = self.config.election_ticks + self._rng.randrange(spread)
        if self.conf.voters == (self.id,) and not self.conf.outgoing:
            self.patience = 1  # there is nobody to wait for

    def become_follower(self, term: int, leader: int) -> None:
        self._enter(Role.FOLLOWER, term, leader)

    def become_pre_candidate(self) -> None:
        self._enter(Role.PRE_CANDIDATE, self.term, NO_ONE)
        self.votes[self.id] = True

    def become_candidate(self) -> None:
        self._enter(Role.CANDIDATE, self.term + 1, NO_ONE)
        self.vote = self.id
        self.votes[self.id] = True

    def become_leader(self) -> None:
        self._enter(Role.LEADER, self.term, self.id)
        self.leading = Leading(self)
        self.leading.put(EntryKind.NORMAL, b'')  # entries of older terms commit only under one of its own

    def _enter(self, role: Role, term: int, leader: int) -> None:
        assert term >= self.term
        if term != self.term:
            self.term, self.vote = term, NO_ONE
        self.role, self.leader, self.leading = role, leader, None
        self.votes = {}
        self.elapsed = 0
        self.draw_patience()

    def election(self) -> quorum.Vote:
        """How the current candidacy stands."""
        return quorum.vote_result(self.conf, self.votes)

    def agreed(self, value: Callable[[int], int]) -> int:
        return quorum.agreed(self.conf, value)
