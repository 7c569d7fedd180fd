"""Several `RaftCore`s, their disks and the network between them, simulated by plain calls from one seed.

A disk is what was written *and confirmed*; writes that are handed out but not confirmed vanish in a crash, from some
point on. The network loses, duplicates, delays and reorders, and is partitioned in both or in one direction. The
checkers (`RaftChecks`) look at every step; see STORE_FACTS §3 for the list.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kstore.raft import confchange, quorum
from kstore.raft.confchange import ConfChange, Op, Transition
from kstore.raft.core import RaftConfig, RaftCore, Ready, Role, Stored
from kstore.raft.errors import RaftError
from kstore.raft.messages import ConfState, Entry, HardState, Message, MessageType, SnapshotMeta


class Violation(AssertionError):
    """An invariant does not hold."""


@dataclass
class RaftChecks:
    """What must hold in every history, whatever the faults."""

    leaders: dict[int, int] = field(default_factory=dict)
    votes: dict[tuple[int, int], int] = field(default_factory=dict)
    entries: dict[tuple[int, int], tuple[int, bytes]] = field(default_factory=dict)
    committed: dict[int, Entry] = field(default_factory=dict)
    commit: int = 0
    acknowledged: dict[tuple[int, int], int] = field(default_factory=dict)
    """(member, term) → newest entry it told that term's leader it has."""

    def led(self, member: Member) -> None:
        """Election safety and leader completeness."""
        core = member.core
        if self.leaders.setdefault(core.term, core.id) != core.id:
            raise Violation(f'two leaders in term {core.term}: {self.leaders[core.term]} and {core.id}')
        for index in range(core.log.first, self.commit + 1):
            if core.log.term(index) != self.committed[index].term:
                raise Violation(f'leader {core.id} of term {core.term} lacks committed entry {index}')

    def voted(self, voter: int, term: int, candidate: int) -> None:
        """One vote a term, also across restarts."""
        if self.votes.setdefault((voter, term), candidate) != candidate:
            raise Violation(f'{voter} voted for {self.votes[voter, term]} and {candidate} in term {term}')

    def promised(self, disk: Disk, m: Message) -> None:
        """Votes and acknowledgements are on disk before they leave, and so is the term they speak of."""
        state = disk.hard_state
        if m.type == MessageType.VOTE_RESP and not m.reject and (state.term, state.vote) != (m.term, m.to):
            raise Violation(f'{m.frm} grants {m.to} its vote in term {m.term}, but wrote {state}')
        last = disk.snapshot.index + len(disk.entries)
        if m.type == MessageType.APPEND_RESP and not m.reject:
            if m.index > last:
                raise Violation(f'{m.frm} acknowledges entry {m.index}, but its disk ends at {last}')
            place = m.frm, m.term
            self.acknowledged[place] = max(m.index, self.acknowledged.get(place, 0))
        if m.type not in (MessageType.PRE_VOTE, MessageType.PRE_VOTE_RESP) and state.term < m.term:
            raise Violation(f'{m.frm} speaks in term {m.term}, but wrote {state.term}')

    def kept(self, member: int, disk: Disk) -> None:
        """What was acknowledged to a leader stays for its whole term: it may count on it at any time."""
        last = disk.snapshot.index + len(disk.entries)
        promised = self.acknowledged.get((member, disk.hard_state.term), 0)
        if last < promised:
            raise Violation(f'{member} acknowledged entry {promised}, and its disk now ends at {last}')

    def exists(self, entries: Sequence[Entry], before: int) -> None:
        """Log matching: index and term determine the entry and the one before it.

        Asked of everything on a disk or on the wire: what a crash took before anybody saw it never was.
        """
        for e in entries:
            known = self.entries.setdefault((e.index, e.term), (before, e.data))
            if known != (before, e.data):
                raise Violation(f'{e} after term {before} exists, and so does {known}')
            before = e.term

    def committed_to(self, member: Member, confs: set[ConfState]) -> None:
        """What is committed never changes; a leader commits what a majority of one of `confs` has on disk."""
        core = member.core
        for index in range(max(member.checked, core.log.offset) + 1, core.log.committed + 1):
            e = core.log.slice(index, index, 1 << 62)[0]
            if self.committed.setdefault(index, e) != e:
                raise Violation(f'{member.id} commits {e}, but {self.committed[index]} was committed before')
        if core.log.committed < member.checked:
            raise Violation(f'commit of {member.id} goes back from {member.checked} to {core.log.committed}')
        member.checked = core.log.committed
        if core.log.committed > self.commit:
            self.commit = core.log.committed
            term = core.log.term(self.commit)
            if confs and term != core.term:
                raise Violation(f'leader {member.id} of term {core.term} commits entry {self.commit} of term {term}')
            if confs and not any(member.world.is_durable(c, self.commit, term) for c in confs):
                raise Violation(f'{member.id} commits entry {self.commit} that no majority has on disk')

    def applied(self, member: Member, entries: tuple[Entry, ...]) -> None:
        """Every state machine sees the committed sequence, each entry once, never ahead of its own log."""
        for e in entries:
            if e.index != member.applied[-1].index + 1:
                raise Violation(f'{member.id} applies {e.index} after {member.applied[-1].index}')
            if self.committed.get(e.index) != e:
                raise Violation(f'{member.id} applies {e}, committed was {self.committed.get(e.index)}')
            if member.disk.term(e.index) != e.term:
                raise Violation(f'{member.id} applies entry {e.index}, which is not on its own disk')
            member.applied.append(e)


@dataclass
class Disk:
    """What survives a crash of one member."""

    hard_state: HardState
    snapshot: SnapshotMeta
    entries: list[Entry] = field(default_factory=list)
    applied: int = 0

    def write(self, rd: Ready) -> None:
        if rd.snapshot is not None:
            self.snapshot, self.entries = rd.snapshot, []
            self.applied = rd.snapshot.index
        if rd.hard_state is not None:
            self.hard_state = rd.hard_state
        if rd.entries:
            del self.entries[rd.entries[0].index - self.snapshot.index - 1 :]
            self.entries.extend(rd.entries)

    def term(self, index: int) -> int:
        at = index - self.snapshot.index
        if at == 0:
            return self.snapshot.term
        return self.entries[at - 1].term if 0 < at <= len(self.entries) else 0


class Member:
    """One core and its disk."""

    def __init__(self, world: RaftWorld, member_id: int, conf: ConfState) -> None:
        self.world = world
        self.id = member_id
        self.disk = Disk(HardState(0, 0, 0), SnapshotMeta(0, 0, conf))
        self.open: deque[Ready] = deque()
        self.up = True
        self.checked = 0
        self.start()

    def start(self) -> None:
        d = self.disk
        stored = Stored(d.hard_state, d.snapshot, tuple(d.entries), d.applied)
        config = RaftConfig(self.id, **self.world.limits, **self.world.options)
        self.core = RaftCore(config, stored, self.world.rng)
        self.up = True
        self.checked = self.core.log.committed
        self.applied = [Entry(0, d.applied, 0, b'')]
        self.reads: dict[bytes, int] = {}
        self.leads = False

    def crash(self, lose: int) -> None:
        """Stop at once; the last `lose` unconfirmed writes are lost, the earlier ones happen to be on disk."""
        for rd in list(self.open)[: len(self.open) - lose]:
            self.write(rd)
        self.open.clear()
        # The state machine is durable somewhere between its last known point and what it applied.
        last = self.disk.snapshot.index + len(self.disk.entries)
        self.disk.applied = self.world.rng.randint(
            self.disk.applied, max(self.disk.applied, min(self.applied[-1].index, last))
        )
        self.up = False

    def turn(self) -> None:
        """Take all Readys; writes stay open until `sync`."""
        checks, core = self.world.checks, self.core
        leads = core.leading is not None
        if leads and (not self.leads):
            checks.led(self)
        self.leads = leads
        while True:
            before = core.conf
            if (rd := core.ready()) is None:
                return
            # A membership applied in this Ready may have committed more, by its own majority.
            confs = {before, core.conf} if leads else set()
            self.world.send(rd.send_now)
            if rd.snapshot is not None:
                checks.committed_to(self, set())
                self.applied = [Entry(rd.snapshot.term, rd.snapshot.index, 0, b'')]
            else:
                checks.committed_to(self, confs)
            checks.applied(self, rd.committed)
            for read in rd.reads:
                asked = self.reads.pop(read.context, None)
                if asked is not None and read.index < asked:
                    raise Violation(f'{self.id} reads at {read.index}, but {asked} was committed when it asked')
            self.open.append(rd)
            if not rd.must_sync and len(self.open) == 1:
                self.sync(1)

    def write(self, rd: Ready) -> None:
        state = rd.hard_state
        if state is not None:
            if state.vote:
                self.world.checks.voted(self.id, state.term, state.vote)
            if (state.term, state.commit) < (self.disk.hard_state.term, 0):
                raise Violation(f'{self.id} writes term {state.term} after {self.disk.hard_state.term}')
        self.disk.write(rd)
        self.world.checks.kept(self.id, self.disk)
        if rd.entries and rd.entries[0].index > self.disk.snapshot.index:
            self.world.checks.exists(rd.entries, self.disk.term(rd.entries[0].index - 1))

    def sync(self, n: int) -> None:
        """Confirm the oldest `n` open Readys."""
        for _ in range(min(n, len(self.open))):
            rd = self.open.popleft()
            self.write(rd)
            self.world.send(rd.send_durable)
            self.core.advance()


class RaftWorld:
    """`members` cores under faults drawn from `seed`; `options` go to every RaftConfig."""

    def __init__(self, seed: int, members: int = 3, **options: bool) -> None:
        self.rng = random.Random(seed)
        self.options = options
        self.checks = RaftChecks()
        self.network: list[Message] = []
        self.cut: set[tuple[int, int]] = set()
        rng = self.rng
        self.drop, self.duplicate = rng.choice([0, 0.02, 0.2]), rng.choice([0, 0.05])
        self.reorder = rng.choice([1, 3, 30])
        self.churn = rng.choice([0, 0, 0.004])
        self.crashes = rng.choice([0.002, 0.01])
        self.lag = rng.choice([0.2, 0.6])
        odd = random.Random(f'limits {seed}')
        self.limits: dict[str, Any] = {'append_bytes_max': 64, 'inflight_max': 4}
        self.late_copies = 0.0
        self.late: list[Message] = []
        """Second copies that come when hardly anybody remembers the first."""
        self.compactions = 0.3
        if seed % 2 == 0:  # the others keep these figures, with which some of them found bugs
            self.limits = {'append_bytes_max': odd.choice([8, 64, 1000]), 'inflight_max': odd.choice([1, 4, 20])}
            self.late_copies, self.compactions = odd.choice([0.0, 0.02, 0.2]), odd.choice([0.05, 0.3, 0.6])
        self._odd = odd
        conf = ConfState(tuple(range(1, members + 1)))
        self.ids = list(range(1, members + 1 + (2 if self.churn else 0)))
        self.members = {i: Member(self, i, conf if i in conf.voters else ConfState(())) for i in self.ids}
        self.proposals = 0

    def is_durable(self, conf: ConfState, index: int, term: int) -> bool:
        return quorum.has_quorum(conf, lambda i: self._holds(self.members[i].disk, index, term))

    def _holds(self, disk: Disk, index: int, term: int) -> bool:
        return disk.snapshot.index >= index or disk.term(index) == term

    def send(self, messages: tuple[Message, ...]) -> None:
        for m in messages:
            if m.type == MessageType.VOTE_RESP and not m.reject:
                self.checks.voted(m.frm, m.term, m.to)
            self.checks.promised(self.members[m.frm].disk, m)
            if m.type == MessageType.APPEND:
                self.checks.exists(m.entries, m.log_term)
            if (m.frm, m.to) in self.cut or self.rng.random() < self.drop:
                if m.type == MessageType.SNAPSHOT and m.frm in self.members:
                    self.members[m.frm].core.report_snapshot(m.to, ok=False)
                continue
            if m.type == MessageType.SNAPSHOT:  # the node would stream it; here the state is the log itself
                core = self.members[m.frm].core
                at = core.log.applied
                carried = m._replace(snapshot=SnapshotMeta(at, core.log.term(at), core.conf))
            else:
                carried = m
            self.network.extend([carried] * (2 if self.rng.random() < self.duplicate else 1))
            if self.late_copies and self._odd.random() < self.late_copies:
                self.late.append(carried)

    def deliver(self) -> None:
        if self.late and self._odd.random() < 0.02:
            self.network.insert(0, self.late.pop(self._odd.randrange(len(self.late))))
        if self.network:
            at = self.rng.randrange(min(self.reorder, len(self.network)))
            m = self.network.pop(at)
            target = self.members[m.to]
            arrives = target.up and (m.frm, m.to) not in self.cut
            if m.type == MessageType.SNAPSHOT and self.members[m.frm].up:
                self.members[m.frm].core.report_snapshot(m.to, ok=arrives)
            if arrives:
                target.core.step(m)
                self.finish(target)

    def finish(self, member: Member) -> None:
        member.turn()
        if member.open and self.rng.random() > self.lag:
            member.sync(self.rng.randint(1, len(member.open)))
            member.turn()

    def step(self) -> None:
        """One random event."""
        rng = self.rng
        draw = rng.random()
        member = self.members[rng.choice(self.ids)]
        if draw < 0.6:
            self.deliver()
        elif draw < 0.8:
            if member.up:
                member.core.tick()
                self.finish(member)
        elif draw < 0.86:
            if member.open:
                member.sync(rng.randint(1, len(member.open)))
                member.turn()
        elif draw < 0.94:
            self.ask(member)
        elif draw < 0.97:
            self.administer(member)
        else:
            self.disturb(member)

    def ask(self, member: Member) -> None:
        if not member.up:
            return
        self.proposals += 1
        token = b'%d' % self.proposals
        try:
            if self.rng.random() < 0.7:
                member.core.propose(token)
            else:
                member.core.read_index(token)
                member.reads[token] = self.checks.commit
        except RaftError:
            return
        self.finish(member)

    def administer(self, member: Member) -> None:
        if not member.up:
            return
        rng, core = self.rng, member.core
        draw = rng.random()
        try:
            if draw < self.compactions:
                at = min(
                    member.applied[-1].index, core.log.applied, member.disk.snapshot.index + len(member.disk.entries)
                )
                self.compact(member, at - rng.randint(0, 3))
            elif draw < self.compactions + 0.1:
                core.transfer_leader(rng.choice(self.ids))
            elif draw < self.compactions + 0.15:
                core.forget_leader()
            elif rng.random() < self.churn * 20 and core.leading is not None:
                ops = tuple((rng.choice(list(Op)), rng.choice(self.ids)) for _ in range(rng.choice([0, 1, 1, 2, 3])))
                core.propose_conf_change(ConfChange(ops, rng.choice(list(Transition))))
        except RaftError:
            return
        self.finish(member)

    def compact(self, member: Member, index: int) -> None:
        if index > member.core.log.offset and not member.open:
            meta = member.core.compact(index)
            disk = member.disk
            disk.entries = disk.entries[meta.index - disk.snapshot.index :]
            disk.snapshot = meta
            disk.applied = max(disk.applied, meta.index)

    def disturb(self, member: Member) -> None:
        rng = self.rng
        draw = rng.random()
        if draw < 0.25 and member.up and sum(not m.up for m in self.members.values()) < len(self.ids):
            member.crash(rng.randint(0, len(member.open)))
        elif draw < 0.7 and not member.up:
            member.start()
            self.finish(member)
        elif draw < 0.78:
            side = {i for i in self.ids if rng.random() < 0.5}
            one_way = rng.random() < 0.4
            self.cut = {(a, b) for a in side for b in self.ids if b not in side}
            if not one_way:
                self.cut |= {(b, a) for a, b in self.cut}
        elif draw < 0.9:
            self.cut = set()

    def heal(self) -> None:
        """Liveness: without faults, everybody agrees before long."""
        self.cut, self.drop, self.duplicate, self.reorder, self.lag = set(), 0, 0, 1, 0
        self.late, self.late_copies = [], 0.0
        for m in self.members.values():
            if not m.up:
                m.start()
        for _ in range(400):
            self.calm()
            if self.agreed():
                return
        states = {
            i: (m.core.role.value, m.core.term, m.core.leader, m.applied[-1].index) for i, m in self.members.items()
        }
        raise Violation(f'no agreement after the faults: {states}')

    def calm(self) -> None:
        """One tick for everyone, without faults; everything it leads to is done."""
        for m in self.members.values():
            m.core.tick()
            m.turn()
            while m.open:
                m.sync(len(m.open))
                m.turn()
        while self.network:
            self.deliver()

    def leader(self) -> RaftCore:
        return max((m for m in self.members.values() if m.core.role is Role.LEADER), key=lambda m: m.core.term).core

    def rejoin(self) -> None:
        """With pre-votes a member that was cut off for a while comes back without disturbing anybody.

        Only with check-quorum, too: else nobody vouches for the leader, and an up-to-date log wins the pre-vote.
        """
        for _ in range(5 * self.leader().config.election_ticks):
            self.calm()  # a hand-over that had begun may still end
        leader = self.leader()
        others = [i for i in leader.conf.voters if i != leader.id]
        vouched = leader.config.pre_vote and leader.config.check_quorum
        if not vouched or leader.conf.outgoing or len(others) < 2 or leader.id not in leader.conf.voters:
            return
        lone = self.rng.choice(others)
        self.cut = {pair for i in self.ids for pair in ((i, lone), (lone, i))}
        term = leader.term
        for _ in range(5 * leader.config.election_ticks):
            self.calm()
        self.cut = set()
        for _ in range(5 * leader.config.election_ticks):
            self.calm()
        if leader.role is not Role.LEADER or leader.term != term:
            raise Violation(f'{lone} was cut off in term {term}; its return brought term {leader.term}')

    def agreed(self) -> bool:
        leaders = [m for m in self.members.values() if m.core.role is Role.LEADER]
        if not leaders:
            return False
        leader = max(leaders, key=lambda m: m.core.term).core
        part = confchange.members(leader.conf) | {leader.id}
        return leader.log.term(leader.log.committed) == leader.term and all(
            self.members[i].applied[-1].index == leader.log.last == self.members[i].core.log.applied for i in part
        )

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step()
        self.heal()
        self.rejoin()


def simulate(seed: int, steps: int = 8000) -> RaftWorld:
    """One seeded run. Raises Violation (or whatever the core raises)."""
    rng = random.Random(seed * 7919 + 1)
    options = rng.choice([{}, {}, {}, {'pre_vote': False}, {'check_quorum': False}])
    world = RaftWorld(seed, rng.choice([1, 2, 3, 3, 3, 4, 5]), **options)
    world.run(steps)
    return world
