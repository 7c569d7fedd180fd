"""The commands of the golden scenarios: a few cores, wired by hand, everything they say written down.

add-nodes N [pre-vote=false] [check-quorum=false] [inflight=N] [append-bytes=N] [learners=4,5]
campaign I | tick I [n=N] | propose I TEXT… | read I TOKEN | transfer I to=J
conf-change I (input: `v4 r1`) [transition=…]
compact I index=N | isolate I | cut from=I to=J | heal | crash I [lose=N] | restart I | forget-leader I
stabilize [I…]      turns, syncs and deliveries until nothing moves
ready I             one turn without a sync          sync I          confirm everything that is open
deliver I           deliver what waits for I         drop I          lose what waits for I
status [I…] | log I
"""

from __future__ import annotations

import random
from collections import deque

from kstore.raft import confchange
from kstore.raft.confchange import ConfChange, Transition
from kstore.raft.core import RaftConfig, RaftCore, Ready, Stored
from kstore.raft.errors import RaftError
from kstore.raft.messages import ConfState, Entry, EntryKind, HardState, Message, MessageType, SnapshotMeta
from tests.kstore.datadriven import Block


def show_entry(e: Entry) -> str:
    body = ConfChange.decode(e.data) if e.kind == EntryKind.CONF_CHANGE else None
    text = e.data.decode() if body is None else 'change' if body.changes else 'leave-joint'
    return f'{e.term}/{e.index}' + (f':{text}' if text else '')


def show_message(m: Message) -> str:
    name = MessageType(m.type).name.lower().replace('_', '-')
    parts = [f'{m.frm}->{m.to} {name} term={m.term}']
    if m.type in (MessageType.APPEND, MessageType.VOTE, MessageType.PRE_VOTE):
        parts.append(f'log={m.log_term}/{m.index}')
    elif m.type in (MessageType.APPEND_RESP, MessageType.READ_INDEX_RESP, MessageType.SNAPSHOT):
        parts.append(f'index={m.index}')
    if m.commit:
        parts.append(f'commit={m.commit}')
    if m.seq:
        parts.append(f'round={m.seq}')
    if m.reject:
        parts.append(f'rejected hint={m.log_term}/{m.hint}' if m.type == MessageType.APPEND_RESP else 'rejected')
    if m.context:
        parts.append(m.context.decode())
    if m.entries:
        parts.append('[' + ' '.join(map(show_entry, m.entries)) + ']')
    return ' '.join(parts)


class Scenario:
    """State of one scenario file."""

    def __init__(self) -> None:
        self.cores: dict[int, RaftCore] = {}
        self.stores: dict[int, Stored] = {}
        self.open: dict[int, deque[Ready]] = {}
        self.network: list[Message] = []
        self.cut: set[tuple[int, int]] = set()
        self.options: dict[str, str] = {}
        self.out: list[str] = []

    def handle(self, block: Block) -> str:
        """Run one block. Returns what it printed, or `ok`."""
        self.out = []
        command = getattr(self, 'do_' + block.command.replace('-', '_'), None)
        if command is None:
            raise ValueError(f'unknown command {block.command!r}')
        try:
            command(block)
        except RaftError as e:
            self.out.append(f'{type(e).__name__}: {e}')
        return '\n'.join(self.out) or 'ok'

    # --- set-up -------------------------------------------------------------------------------------------------------

    def do_add_nodes(self, b: Block) -> None:
        self.options = b.options
        learners = tuple(int(i) for i in b.options.get('learners', '').split(',') if i)
        conf = ConfState(tuple(range(1, int(b.words[0]) + 1)), (), learners)
        for i in confchange.members(conf):
            self.add(i, Stored(HardState(0, 0, 0), SnapshotMeta(0, 0, conf), ()))

    def do_add_node(self, b: Block) -> None:
        """A member that knows nobody yet, or one with a log given as `terms=1,1,4,4`."""
        terms = [int(t) for t in b.options.get('terms', '').split(',') if t]
        log = tuple(Entry(t, n, 0, b'%d/%d' % (t, n)) for n, t in enumerate(terms, 1))
        voters = tuple(int(i) for i in b.options.get('voters', '').split(',') if i)
        state = HardState(int(b.options.get('term', terms[-1] if terms else 0)), 0, 0)
        self.add(int(b.words[0]), Stored(state, SnapshotMeta(0, 0, ConfState(voters)), log))

    def add(self, i: int, stored: Stored) -> None:
        o = self.options
        config = RaftConfig(
            i,
            pre_vote=o.get('pre-vote') != 'false',
            check_quorum=o.get('check-quorum') != 'false',
            inflight_max=int(o.get('inflight', 256)),
            append_bytes_max=int(o.get('append-bytes', 1 << 20)),
        )
        self.stores[i] = stored
        self.cores[i] = RaftCore(config, stored, random.Random(i))
        self.open[i] = deque()

    # --- input --------------------------------------------------------------------------------------------------------

    def do_campaign(self, b: Block) -> None:
        core = self.cores[int(b.words[0])]
        core.elapsed = core.patience
        core.tick()

    def do_tick(self, b: Block) -> None:
        for i in map(int, b.words):
            for _ in range(int(b.options.get('n', 1))):
                self.cores[i].tick()

    def do_propose(self, b: Block) -> None:
        for text in b.words[1:]:
            self.cores[int(b.words[0])].propose(text.encode())

    def do_read(self, b: Block) -> None:
        self.cores[int(b.words[0])].read_index(b.words[1].encode())

    def do_transfer(self, b: Block) -> None:
        self.cores[int(b.words[0])].transfer_leader(int(b.options['to']))

    def do_conf_change(self, b: Block) -> None:
        transition = Transition[b.options.get('transition', 'auto').upper()]
        self.cores[int(b.words[0])].propose_conf_change(ConfChange(confchange.parse(b.input), transition))

    def do_forget_leader(self, b: Block) -> None:
        self.cores[int(b.words[0])].forget_leader()

    def do_compact(self, b: Block) -> None:
        i = int(b.words[0])
        meta = self.cores[i].compact(int(b.options['index']))
        old = self.stores[i]
        kept = tuple(e for e in old.entries if e.index > meta.index)
        self.stores[i] = old._replace(snapshot=meta, entries=kept, applied=max(old.applied, meta.index))

    def do_isolate(self, b: Block) -> None:
        for i in map(int, b.words):
            self.cut |= {(i, j) for j in self.cores} | {(j, i) for j in self.cores}

    def do_cut(self, b: Block) -> None:
        self.cut.add((int(b.options['from']), int(b.options['to'])))

    def do_heal(self, _: Block) -> None:
        self.cut.clear()

    def do_restart(self, b: Block) -> None:
        """Whatever was not confirmed is lost."""
        i = int(b.words[0])
        self.network = [m for m in self.network if m.to != i]
        self.add(i, self.stores[i])

    # --- progress -----------------------------------------------------------------------------------------------------

    def do_ready(self, b: Block) -> None:
        self.turn(int(b.words[0]))

    def do_sync(self, b: Block) -> None:
        self.sync(int(b.words[0]))

    def do_deliver(self, b: Block) -> None:
        self.deliver(int(b.words[0]))

    def do_drop(self, b: Block) -> None:
        self.network = [m for m in self.network if m.to != int(b.words[0])]

    def do_stabilize(self, b: Block) -> None:
        ids = [int(i) for i in b.words] or sorted(self.cores)
        moved = True
        while moved:
            moved = False
            for i in ids:
                moved |= self.deliver(i)
                moved |= self.turn(i)
                moved |= self.sync(i)

    def turn(self, i: int) -> bool:
        core, moved = self.cores[i], False
        while (rd := core.ready()) is not None:
            moved = True
            self.open[i].append(rd)
            if rd.soft_state is not None:
                s = rd.soft_state
                self.out.append(f'{i}: {s.role.value} term={s.term} leader={s.leader}')
            if rd.snapshot is not None:
                self.out.append(f'{i}: restored snapshot {rd.snapshot.term}/{rd.snapshot.index}')
            if rd.entries:
                self.out.append(f'{i}: writes ' + ' '.join(map(show_entry, rd.entries)))
            if rd.committed:
                self.out.append(f'{i}: applies ' + ' '.join(map(show_entry, rd.committed)))
                if any(e.kind == EntryKind.CONF_CHANGE for e in rd.committed):
                    self.out.append(f'{i}: {confchange.describe(core.conf)}')
            for read in rd.reads:
                self.out.append(f'{i}: may read {read.context.decode()} at {read.index}')
            self.post(rd.send_now)
        return moved

    def sync(self, i: int) -> bool:
        moved = bool(self.open[i])
        while self.open[i]:
            rd = self.open[i].popleft()
            old = self.stores[i]
            snapshot, log = old.snapshot, old.entries
            if rd.snapshot is not None:
                snapshot, log = rd.snapshot, ()
            if rd.entries:
                log = (*(e for e in log if e.index < rd.entries[0].index), *rd.entries)
            applied = max(old.applied, snapshot.index, rd.committed[-1].index if rd.committed else 0)
            self.stores[i] = Stored(rd.hard_state or old.hard_state, snapshot, log, applied)
            self.post(rd.send_durable)
            self.cores[i].advance()
        return moved

    def post(self, messages: tuple[Message, ...]) -> None:
        for m in messages:
            lost = (m.frm, m.to) in self.cut or m.to not in self.cores
            self.out.append('  ' + show_message(m) + (' (lost)' if lost else ''))
            if m.type == MessageType.SNAPSHOT:
                core = self.cores[m.frm]
                meta = SnapshotMeta(core.log.applied, core.log.term(core.log.applied), core.conf)
                m = m._replace(snapshot=meta)  # noqa: PLW2901
                if lost:
                    core.report_snapshot(m.to, ok=False)
            if not lost:
                self.network.append(m)

    def deliver(self, i: int) -> bool:
        mine = [m for m in self.network if m.to == i]
        self.network = [m for m in self.network if m.to != i]
        for m in mine:
            self.cores[i].step(m)
            if m.type == MessageType.SNAPSHOT:
                self.cores[m.frm].report_snapshot(i, ok=True)
        return bool(mine)

    # --- questions ----------------------------------------------------------------------------------------------------

    def do_status(self, b: Block) -> None:
        for i in [int(w) for w in b.words] or sorted(self.cores):
            c = self.cores[i]
            self.out.append(
                f'{i}: {c.role.value} term={c.term} vote={c.vote} leader={c.leader} commit={c.log.committed} '
                f'applied={c.log.applied} last={c.log.last_term}/{c.log.last}'
            )
            if c.leading is not None:
                for j, pr in sorted(c.leading.peers()):
                    waits = ' paused' if pr.paused else ''
                    self.out.append(f'   {j}: {pr.state.value} match={pr.match} next={pr.next}{waits}')

    def do_log(self, b: Block) -> None:
        log = self.cores[int(b.words[0])].log
        entries = log.slice(log.first, log.last, 1 << 62) if log.last >= log.first else []
        self.out.append(' '.join([f'after {log.offset_term}/{log.offset}:', *map(show_entry, entries)]))
