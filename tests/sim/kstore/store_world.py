"""Whole members and real clients on virtual time, network and disks, under faults drawn from one seed.

The code is that of production from the client's call down to the log's bytes; only clock, sockets, disks and the
backend of the tables are simulated. First comes a time of faults and work, then everything is healed and must agree
before long. What the history must satisfy is in `judges.py`; what the members did is written down by `ledger.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kcore import tasks
from kcore.sim import Host, World
from kcore.sim.disk import LATENCY_S
from kstore.client import StoreClient
from kstore.config import StoreConfig
from kstore.engine.layers import Engine
from kstore.engine.memory import Image, MemoryBackend
from kstore.fsm import SNAPSHOT_CHUNK_BYTES
from kstore.member import Member
from kstore.mvcc.watch import HISTORY_RECORDS
from kstore.raft.confchange import ConfChange, Op
from kstore.raft.errors import RaftError
from tests.sim.kstore import judges
from tests.sim.kstore.history import History, WatchRun
from tests.sim.kstore.ledger import Ledger, dump
from tests.sim.kstore.raft_world import Violation
from tests.sim.kstore.workload import Workload

PORT = 2390
FAULTS = (
    'kill',
    'pause',
    'cut',
    'slow disk',
    'sync error',
    'full disk',
    'transfer',
    'reset',
    'membership',
    'wall clock',
)
NASTY = ('split brain', 'zombie', 'full tables')
"""Faults that only odd seeds know: the even ones keep the histories that once found bugs."""
CLIENTS = 8
SLOWEST_S = 2.0
"""Mean time of a disk operation on the slowest of disks."""
MIX = 5
"""Kinds of faults that one seed mixes."""


@dataclass
class Machine:
    """One host and what of a member survives on it."""

    id: int
    host: Host
    image: Image = field(default_factory=Image)
    member: Member | None = None
    task: asyncio.Task[None] | None = None
    keep_entries: int = 40

    @property
    def address(self) -> str:
        return f'{self.host.name}:{PORT}'

    @property
    def up(self) -> bool:
        return self.task is not None and not self.host.paused


class StoreWorld:
    """The members, clients and faults of one seed; every choice is drawn here."""

    def __init__(self, seed: int, *, members: int = 0, faults: tuple[str, ...] | None = None) -> None:
        self.world = World(seed)
        self.rng = rng = random.Random(f'store {seed}')
        count = members or rng.choice([1, 3, 3, 3, 3, 5])
        self.machines = [Machine(i, self.world.host(f'10.0.0.{i}')) for i in range(1, count + 1)]
        self.faults = rng.sample(FAULTS, MIX) if faults is None else list(faults)
        self.history = History()
        self.ledger = Ledger(self.history.now, self.world.clock.monotonic)
        self.options: dict[str, Any] = {
            'tick_ms': rng.choice([25, 50, 50, 100]),
            'flush_ms': rng.choice([50, 250, 1000]),
            'request_timeout_s': rng.choice([1.0, 5.0]),
        }
        self.deadline_s = rng.choice([0.5, 2.0, 6.0])
        self.pace = rng.choice([0.05, 0.1, 0.3])
        self.fault_every_s = rng.choice([0.4, 1.0, 3.0])
        self.compact_every_s = rng.choice([0.5, 2.0, 20.0])
        self.ttls = rng.choice([(1, 2), (2, 4), (3, 12), (30,)])
        self.world.net.delay_s = (0.0001, rng.choice([0.001, 0.005, 0.03]))
        for machine in self.machines:
            machine.keep_entries = rng.choice([10, 40, 1000])
        self.lease_workers, self.chunk_bytes, self.history_records = 1, SNAPSHOT_CHUNK_BYTES, HISTORY_RECORDS
        self.stretch, self.contended = 1.0, False
        self.sleep_s = 0.5, 2.5
        """How long a zombie sleeps."""
        if seed % 2 and faults is None:
            self._be_nasty(random.Random(f'nasty {seed}'))
            prompt = random.Random(f'prompt {seed}')
            for machine in self.machines:
                machine.host.disk.prompt = prompt.random() < 0.5
        self.clients = 0
        self.changes: list[float] = []
        self.dark: list[float] = []
        self.healed = False
        self.deaths: list[str] = []
        self.done: dict[str, int] = {}
        """Faults that struck, by kind."""

    def _be_nasty(self, rng: random.Random) -> None:
        """More leases than one, faults that strike where it hurts, now and then a time long enough for checkpoints."""
        self.faults += rng.sample(NASTY, 2)
        self.lease_workers, self.chunk_bytes, self.history_records = 3, rng.choice([200, 2000]), rng.choice([2, 20])
        theme = rng.random()
        if theme < 0.3:
            self.stretch, self.ttls, self.pace = 3.0, rng.choice([(7, 12), (12, 18)]), 0.3
            if rng.random() < 0.5:  # leaders change, and commits go on: no darkness to excuse a lease that lives on
                self.faults, self.fault_every_s = ['transfer', 'kill', rng.choice(['zombie', 'slow disk'])], 3.0
        elif theme < 0.6:
            # Old leaders that wake up among clients that swap one key: what they say then must be nobody's truth.
            self.contended, self.stretch, self.pace, self.deadline_s = True, 2.0, 0.05, 2.0
            self.faults, self.fault_every_s, self.sleep_s = ['zombie', rng.choice(FAULTS)], 1.0, (2.0, 5.0)
            self.options |= {'tick_ms': 100, 'request_timeout_s': 5.0}

    # --- members ----------------------------------------------------------------------------------------------------

    def start(self, machine: Machine) -> None:
        machine.task = machine.host.start(self._run(machine))

    async def _run(self, machine: Machine) -> None:
        """What `kstore.server` does, without sockets of this world."""
        addresses = {m.id: m.address for m in self.machines}
        config = StoreConfig(
            id=machine.id, data_dir=Path('/data'), listen=machine.address, peers=addresses, **self.options
        )
        env = machine.host.env
        env.disk.mkdir(config.data_dir)
        member = Member(config, env, Engine(MemoryBackend(machine.image)))
        member.node.config = replace(member.node.config, log_keep_entries=machine.keep_entries)
        member.fsm.chunk_bytes = self.chunk_bytes
        member.hub.history_records = self.history_records
        self.ledger.attach(machine.id, member.fsm)
        self.ledger.stands(machine.id, member.fsm)
        member.node.on_leader_change(lambda leader, term: self._led(machine.id, leader, term))
        machine.member = member
        server = await env.net.listen(member.connection, machine.host.name, PORT)
        try:
            await member.run()
        finally:
            server.close()

    def _led(self, member: int, leader: int, term: int) -> None:
        if leader and term not in self.ledger.leaders:
            self.changes.append(self.world.clock.monotonic())
        self.ledger.led(member, leader, term)

    async def kill(self, machine: Machine) -> None:
        """kill -9, or the power: unsynced bytes are lost; what the process still does reaches nobody."""
        if machine.task is None:
            return
        self.world.net.kill(machine.host.name)
        machine.host.disk.crash()
        task, machine.task, machine.member = machine.task, None, None
        task.cancel()
        machine.host.resume()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()

    async def bury(self) -> None:
        """A member whose disk failed it has ended itself; one that ended for another reason is a bug."""
        for machine in self.machines:
            if machine.task is not None and machine.task.done():
                error = machine.task.exception()
                assert error is not None
                reasons = [str(e) for e in tasks.leaves(error)]
                if not any('sync failed' in r for r in reasons):  # our own text: nothing else fails a sync
                    raise Violation(f'member {machine.id} died: {reasons}') from error
                self.deaths += reasons
                machine.host.disk.sync_error = None
                await self.kill(machine)

    def leader(self) -> Machine | None:
        leading = [m for m in self.machines if m.member is not None and m.member.node.is_leader]
        return max(leading, key=lambda m: m.member.node.term) if leading else None  # type: ignore[union-attr]

    # --- faults -----------------------------------------------------------------------------------------------------

    async def torment(self, until: float) -> None:
        """Faults and repairs at random moments."""
        loop = asyncio.get_running_loop()
        while self.faults and loop.time() < until:
            await asyncio.sleep(self.rng.expovariate(1 / self.fault_every_s))
            await self.bury()
            victim = self.rng.choice(self.machines)
            if self.rng.random() < 0.4:
                victim = self.leader() or victim
            kind = self.rng.choice(self.faults)
            if self.rng.random() < 0.45:
                await self.repair()
            elif await self._strike(kind, victim):
                self.done[kind] = self.done.get(kind, 0) + 1

    async def repair(self) -> None:
        """Some of what is broken works again."""
        rng = self.rng
        if rng.random() < 0.6:
            self.world.net.heal()
        for machine in self.machines:
            if rng.random() < 0.7:
                machine.host.resume()
                machine.host.disk.capacity = None
                machine.host.disk.latency_s = LATENCY_S
                machine.image.error = None
                if machine.task is None:
                    self.start(machine)

    async def _strike(self, kind: str, victim: Machine) -> bool:
        rng, disk, net = self.rng, victim.host.disk, self.world.net
        if kind == 'cut':
            names = [m.host.name for m in self.machines] + [f'client {n}' for n in range(CLIENTS)]
            side = {n for n in names if rng.random() < 0.5}
            both = rng.random() < 0.6
            for a in sorted(side):
                for b in names:
                    if b not in side:
                        net.cut(a, b, both=both)
        elif kind == 'wall clock':
            self.world.clock.jump_wall(rng.choice([-3600.0, 3600.0, 86400.0]))
        elif not victim.up:
            return False
        elif kind == 'kill':
            await self.kill(victim)
        elif kind == 'pause':
            victim.host.pause()
        elif kind == 'slow disk':
            disk.latency_s = rng.choice([0.05, 0.5, SLOWEST_S])
        elif kind == 'sync error':
            disk.sync_error = OSError(errno.EIO, 'sync failed')
        elif kind == 'full disk':
            disk.capacity = disk.used + rng.choice([0, 50, 2000])
        elif kind == 'full tables':
            victim.image.error = OSError(errno.ENOSPC, 'no room for the tables')
        elif kind == 'split brain':
            self._split(victim)
        elif kind == 'zombie':
            await self._zombie(victim)
        elif kind == 'reset':
            net.break_connections(victim.host.name)
        else:
            return self._administer(kind, victim)
        return True

    def _split(self, victim: Machine) -> None:
        """One member, most likely the leader, is left alone with some of the clients."""
        others = [m.host.name for m in self.machines if m is not victim]
        clients = {f'client {n}' for n in range(CLIENTS)}
        mine = {n for n in sorted(clients) if self.rng.random() < 0.5}
        for a in sorted(mine | {victim.host.name}):
            for b in [*others, *sorted(clients - mine)]:
                self.world.net.cut(a, b)

    async def _zombie(self, victim: Machine) -> None:
        """It sleeps through an election and wakes up where nobody tells it."""
        victim = self.leader() or victim
        self._split(victim)
        victim.host.pause()
        await asyncio.sleep(self.rng.uniform(*self.sleep_s))
        victim.host.resume()
        await asyncio.sleep(self.rng.uniform(0.0, 3.0))

    def _administer(self, kind: str, victim: Machine) -> bool:
        assert victim.member is not None
        node = victim.member.node
        with contextlib.suppress(RaftError):
            if kind == 'transfer':
                node.transfer_leader(self.rng.choice(self.machines).id)
                return True
            leader = self.leader()
            if kind == 'membership' and leader is not None and leader.member is not None and len(self.machines) > 1:
                op = self.rng.choice([Op.ADD_VOTER, Op.ADD_LEARNER, Op.REMOVE])
                voters = leader.member.node.status().conf.voters
                if op is Op.ADD_VOTER or len(voters) > max(1, len(self.machines) - 2):
                    leader.member.node.propose_conf_change(ConfChange(((op, victim.id),)), lambda _: None)
                    return True
        return False

    # --- the run ----------------------------------------------------------------------------------------------------

    def client(self, *, follow: bool = True) -> StoreClient:
        endpoints = [(m.host.name, PORT) for m in self.machines]
        if not follow:
            endpoints = [self.rng.choice(endpoints)]
        self.clients += 1
        env = self.world.host(f'client {self.clients - 1}').env  # each where a cut may put it
        return StoreClient(endpoints, env, deadline_s=self.deadline_s, follow_leader=follow)

    async def main(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        for machine in self.machines:
            self.start(machine)
        until = loop.time() + seconds
        work = self.work = Workload(self.history, self.rng, until, self.pace, contended=self.contended)
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(self.client(follow=n % 3 != 2)) for n in range(CLIENTS)]
            async with asyncio.TaskGroup() as group:
                workers = [tasks.start(group, f'keys {n}', work.keys(f'c{n}', c)) for n, c in enumerate(clients[:4])]
                workers += [
                    tasks.start(group, f'leases {n}', work.leases(f'l{n}' if n else 'l', clients[4 + n], self.ttls))
                    for n in range(self.lease_workers)
                ]
                workers.append(tasks.start(group, 'compactor', work.compactor(clients[4], self.compact_every_s)))
                workers.append(tasks.start(group, 'dark', self._watch_the_dark()))
                watchers = [
                    tasks.start(group, f'watch {n}', work.watcher(f'w{n}', c)) for n, c in enumerate(clients[5:])
                ]
                await self.torment(until)
                await self.settle(workers)
                agreed = self.ledger.revision  # a lease may end while the watches do
                for watcher in watchers:
                    watcher.cancel()
        self.judge(agreed)

    async def _watch_the_dark(self) -> None:
        """Note the time in which nothing was committed although there was work, or before all was healed."""
        while not self.healed:
            index = max(self.ledger.entries, default=0)
            await asyncio.sleep(judges.DARK_S)
            if max(self.ledger.entries, default=0) == index:
                self.dark.append(self.world.clock.monotonic())

    async def settle(self, workers: list[asyncio.Task[None]]) -> None:
        """Heal everything; before long all members and watches agree."""
        self.healed = True
        self.world.net.heal()
        self.world.net.delay_s = (0.0001, 0.001)
        for machine in self.machines:
            machine.host.disk.capacity = machine.host.disk.sync_error = None
            machine.host.disk.latency_s = LATENCY_S
            machine.image.error = None
            machine.host.resume()
        await asyncio.sleep(0.1)
        await self.bury()
        for machine in self.machines:
            if machine.task is None:
                self.start(machine)
        await asyncio.wait(workers)
        for worker in workers:
            worker.result()
        await self._restore_voters()
        for _ in range(200):
            await asyncio.sleep(0.1)
            await self.bury()
            if self._agreed():
                break
        else:
            raise Violation(f'liveness: no agreement after the faults: {self._states()}')

    async def _restore_voters(self) -> None:
        """Everyone is a voter again."""
        for _ in range(300):
            await asyncio.sleep(0.1)
            leader = self.leader()
            if leader is not None and leader.member is not None:
                conf = leader.member.node.status().conf
                missing = [m.id for m in self.machines if m.id not in conf.voters]
                if not missing and not conf.outgoing:
                    return
                if missing:
                    change = ConfChange(((Op.ADD_VOTER, missing[0]),))
                    leader.member.node.propose_conf_change(change, lambda _: None)
        raise Violation(f'liveness: members could not be added again: {self._states()}')

    def _agreed(self) -> bool:
        members = [m.member for m in self.machines if m.member is not None and m.member.node.running]
        states = [m.node.status() for m in members]
        return (
            len(members) == len(self.machines)
            and any(s.role == 'leader' and s.applied == s.last for s in states)
            and len({s.applied for s in states}) == 1
            and self.work.caught_up(self._newest)
        )

    def _newest(self, run: WatchRun) -> int:
        """The newest revision that a watch has to deliver."""
        for revision in sorted(self.ledger.events, reverse=True):
            if any(run.wants(event[0], event[1]) for event in self.ledger.events[revision]):
                return revision
        return 0

    def _states(self) -> list[Any]:
        return [
            m.member.node.status() if m.member is not None and m.member.node.running else m for m in self.machines
        ] + [(run.client, run.batches[-1:], self._newest(run)) for run in self.work.open if not run.closed]

    def judge(self, agreed: int) -> None:
        """Every checker, on everything that was recorded. agreed: the revision when all members and watches did."""
        members = {m.id: m.member for m in self.machines}
        dumps = {i: dump(m.fsm) for i, m in members.items() if m is not None}
        history, ledger = self.history, self.ledger
        order = judges.linearizability(history, ledger)
        judges.events_follow(order, ledger)
        judges.states_agree(dumps, ledger)
        judges.glimpses(history, ledger)
        judges.watch_guarantees(history, ledger, agreed)
        judges.previous_values(history, ledger, dumps[1]['compacted'])
        dark = judges.Dark(self.dark, 2 * SLOWEST_S * ('slow disk' in self.faults))
        judges.lease_safety(history, ledger, self.changes, dark, self.world.clock.monotonic())


def simulate(seed: int, seconds: float = 8.0, **options: Any) -> StoreWorld:
    """One seeded run of virtual `seconds` and the time to settle. Raises Violation, or what a member died of."""
    world = StoreWorld(seed, **options)
    try:
        world.world.run(world.main(seconds * world.stretch))
    except BaseExceptionGroup as e:
        raise tasks.leaves(e)[0] from e
    return world
