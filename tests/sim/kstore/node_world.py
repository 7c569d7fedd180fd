"""Real `Node`s on virtual time, disk and network, under a fault script drawn from the seed.

The state machine is the sequence of commands itself, so that whatever goes wrong shows. Clients propose unique tokens
and read through `read_index`; the checks: every state is a prefix of one sequence, nothing acknowledged is missing or
there twice without having been proposed twice, and a read sees everything that was acknowledged before it began.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgpack

from kcore import tasks
from kcore.sim import Host, World
from kcore.sim.disk import LATENCY_S
from kstore.node import Node, NodeConfig
from kstore.raft.messages import Entry, EntryKind, Message, MessageType, SnapshotMeta
from tests.sim.kstore.raft_world import Violation

CHUNK = 200
DATA = Path('/data')


class ListFsm:
    """All commands in order. What it has on disk lags behind what it holds."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._path = DATA / 'state'
        self.applied_index = self.durable_index = 0
        self.commands: list[bytes] = []
        if host.disk.exists(self._path):
            self.durable_index, self.commands = msgpack.unpackb(host.disk.read(self._path))
            self.applied_index = self.durable_index

    def apply(self, entries: Sequence[Entry]) -> Sequence[Any]:
        results = []
        for e in entries:
            if e.index != self.applied_index + 1:
                raise Violation(f'entry {e.index} applied after {self.applied_index}')
            self.applied_index = e.index
            if e.kind == EntryKind.NORMAL and e.data:
                self.commands.append(e.data)
            results.append(len(self.commands))
        if self._host.env.rng.random() < 0.1:
            self.persist()
        return results

    def publish(self) -> None:
        """Nobody watches."""

    def persist(self) -> None:
        self._host.disk.replace(self._path, msgpack.packb((self.applied_index, self.commands)))
        self.durable_index = self.applied_index

    async def snapshot(self) -> AsyncIterator[bytes]:
        data = msgpack.packb(self.commands)
        for at in range(0, len(data), CHUNK):
            yield data[at : at + CHUNK]

    async def restore(self, meta: SnapshotMeta, chunks: AsyncIterable[bytes]) -> None:
        data = b''.join([c async for c in chunks])
        self.commands = msgpack.unpackb(data)
        self.applied_index = meta.index
        self.persist()


class Frozen:
    """`ListFsm.snapshot` begins late (it is a generator); the contract wants the view fixed at the call."""

    def __init__(self, fsm: ListFsm) -> None:
        self._fsm = fsm

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fsm, name)

    def snapshot(self) -> AsyncIterator[bytes]:
        frozen = list(self._fsm.commands)

        async def chunks() -> AsyncIterator[bytes]:
            data = msgpack.packb(frozen)
            for at in range(0, len(data), CHUNK):
                yield data[at : at + CHUNK]

        return chunks()


class Wire:
    """Datagrams between nodes: lost, doubled, late and out of order as the world's fault figures say."""

    def __init__(self, cluster: SimCluster, source: int) -> None:
        self._cluster = cluster
        self._source = source

    def send(self, messages: Sequence[Message]) -> None:
        c = self._cluster
        for m in messages:
            if m.type == MessageType.VOTE_RESP and not m.reject and c.votes.setdefault((m.frm, m.term), m.to) != m.to:
                raise Violation(f'{m.frm} votes for {m.to} and {c.votes[m.frm, m.term]} in term {m.term}')
            if (self._source, m.to) in c.cut or c.rng.random() < c.drop:
                continue
            for _ in range(2 if c.rng.random() < c.duplicate else 1):
                delay = c.rng.uniform(*c.delay_s)
                raw = msgpack.packb(m.to_wire())
                asyncio.get_running_loop().call_later(delay, c.deliver, self._source, m.to, raw)


class SimCluster:
    """Three (or so) members, some clients, one seed."""

    def __init__(self, seed: int, members: int = 3) -> None:
        self.world = World(seed)
        self.rng = random.Random(seed + 1)
        self.prompt = random.Random(f'prompt {seed}').random() < 0.5
        self.ids = list(range(1, members + 1))
        self.cut: set[tuple[int, int]] = set()
        self.drop = self.rng.choice([0, 0.01, 0.1])
        self.duplicate = self.rng.choice([0, 0.05])
        self.delay_s = (0.0001, self.rng.choice([0.001, 0.01, 0.05]))
        self.nodes: dict[int, Node] = {}
        self.fsms: dict[int, ListFsm] = {}
        self.running: dict[int, asyncio.Task[None]] = {}
        self.died: list[str] = []
        self.sequence: list[bytes] = []
        self.acked: set[bytes] = set()
        self.reads = 0
        self.votes: dict[tuple[int, int], int] = {}

    # --- members ------------------------------------------------------------------------------------------------------

    def start(self, i: int) -> None:
        host = self.world.host(f'h{i}')
        host.disk.sync_error = None
        host.disk.latency_s = self.rng.choice([LATENCY_S, 0.002])
        host.disk.prompt = self.prompt
        host.disk.mkdir(DATA)
        fsm = self.fsms[i] = ListFsm(host)
        config = NodeConfig(i, DATA, tuple(self.ids), log_keep_entries=20)
        node = self.nodes[i] = Node(config, host.env, Frozen(fsm), Wire(self, i))  # type: ignore[arg-type]
        self.running[i] = tasks.start_detached(f'node {i}', self._run(i, node))

    async def _run(self, i: int, node: Node) -> None:
        try:
            await node.run()
        except tasks.Died as e:
            if self.world.host(f'h{i}').disk.sync_error is None:
                raise
            self.died.append(str(e))

    async def crash(self, i: int) -> None:
        self.world.host(f'h{i}').disk.crash()
        del self.nodes[i]
        task = self.running.pop(i)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await task

    def deliver(self, source: int, target: int, raw: bytes) -> None:
        node = self.nodes.get(target)
        if node is not None and (source, target) not in self.cut:
            node.receive(Message.from_wire(msgpack.unpackb(raw, use_list=False)))

    # --- clients ------------------------------------------------------------------------------------------------------

    async def client(self, name: int, until: float) -> None:
        loop = asyncio.get_running_loop()
        n = 0
        while loop.time() < until:
            await asyncio.sleep(self.rng.expovariate(50))
            if not self.nodes:
                continue
            node = self.nodes[self.rng.choice(sorted(self.nodes))]
            answer: asyncio.Future[Any] = loop.create_future()

            def done(result: Any, answer: asyncio.Future[Any] = answer) -> None:
                if not answer.done():
                    answer.set_result(result)

            n += 1
            token = b'%d/%d' % (name, n)
            if self.rng.random() < 0.6:
                node.propose(token, done)
                if await self._wait(answer) and node in self.nodes.values():
                    self.acked.add(token)
                    if self.fsms[node.config.id].commands[answer.result() - 1] != token:
                        raise Violation(f'{token!r} was answered with the result of another command')
            else:
                before = set(self.acked)
                node.read_index(done)
                if await self._wait(answer) and node in self.nodes.values():
                    seen = set(self.fsms[node.config.id].commands)
                    if not before <= seen:
                        raise Violation(f'a read on {node.config.id} misses {sorted(before - seen)[:3]}')
                    self.reads += 1

    async def _wait(self, answer: asyncio.Future[Any]) -> bool:
        try:
            async with asyncio.timeout(1.0):
                return not isinstance(await answer, Exception)
        except TimeoutError:
            return False

    # --- faults and checks --------------------------------------------------------------------------------------------

    async def faults(self, until: float) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < until:
            await asyncio.sleep(self.rng.expovariate(3))
            draw = self.rng.random()
            i = self.rng.choice(self.ids)
            if draw < 0.3 and i in self.nodes:
                await self.crash(i)
            elif draw < 0.6:
                for j in self.ids:
                    if j not in self.nodes:
                        self.start(j)
            elif draw < 0.7:
                side = {j for j in self.ids if self.rng.random() < 0.5}
                self.cut = {(a, b) for a in side for b in self.ids if b not in side}
                if self.rng.random() < 0.6:
                    self.cut |= {(b, a) for a, b in self.cut}
            elif draw < 0.85:
                self.cut = set()
            elif draw < 0.9 and i in self.nodes:
                self.world.host(f'h{i}').disk.latency_s = 0.3
            elif draw < 0.93 and i in self.nodes:
                self.world.host(f'h{i}').disk.sync_error = OSError(errno.EIO, 'sync failed')
            elif i in self.nodes:
                with contextlib.suppress(Exception):
                    self.nodes[i].transfer_leader(self.rng.choice(self.ids))
            await self._bury()
            self.check_prefixes()
            self.check_votes()

    async def _bury(self) -> None:
        """Members whose disk failed are gone until they are started again."""
        for i, task in list(self.running.items()):
            if task.done():
                task.result()
                self.world.host(f'h{i}').disk.crash()
                del self.running[i], self.nodes[i]

    def check_votes(self) -> None:
        """A vote that was given is remembered, also by a member that has just been started again."""
        for i, node in self.nodes.items():
            core = node._core
            if core is not None and self.votes.get((i, core.term), core.vote) != core.vote:
                raise Violation(f'{i} voted for {self.votes[i, core.term]} in term {core.term}, and forgot it')

    def check_prefixes(self) -> None:
        for i, fsm in self.fsms.items():
            n = min(len(fsm.commands), len(self.sequence))
            if fsm.commands[:n] != self.sequence[:n]:
                raise Violation(f'state of {i} differs from what others applied')
            self.sequence.extend(fsm.commands[n:])

    async def settle(self) -> None:
        """Heal everything; before long all states are equal and hold what was acknowledged."""
        self.cut, self.drop, self.delay_s = set(), 0, (0.0001, 0.001)
        for i in self.ids:
            self.world.host(f'h{i}').disk.sync_error = None
            self.world.host(f'h{i}').disk.latency_s = 0.0002
        await asyncio.sleep(0.5)
        await self._bury()
        for i in self.ids:
            if i not in self.nodes:
                self.start(i)
        for _ in range(300):
            await asyncio.sleep(0.1)
            states = [self.nodes[i].status() for i in self.ids if self.nodes[i].running]
            leads = any(s.role == 'leader' and s.commit == s.last for s in states)
            if len(states) == len(self.ids) and leads and len({s.applied for s in states}) == 1:
                break
        else:
            raise Violation(f'no agreement after the faults: {states}')
        self.check_prefixes()
        if len(self.sequence) != len(set(self.sequence)):
            raise Violation('a command was applied twice')
        if lost := self.acked - set(self.sequence):
            raise Violation(f'acknowledged commands are lost: {sorted(lost)[:5]}')
        if len({tuple(f.commands) for f in self.fsms.values()}) != 1:
            raise Violation('states differ at the same index')

    async def main(self, seconds: float) -> None:
        for i in self.ids:
            self.start(i)
        until = asyncio.get_running_loop().time() + seconds
        async with asyncio.TaskGroup() as group:
            for c in range(3):
                tasks.start(group, f'client {c}', self.client(c, until))
            tasks.start(group, 'faults', self.faults(until))
        await self.settle()
        for i in list(self.nodes):
            await self.crash(i)


def simulate(seed: int, seconds: float = 20.0) -> SimCluster:
    """One seeded run of virtual `seconds` and the time to settle. Raises Violation (or what a node died of)."""
    cluster = SimCluster(seed, members=(3, 3, 5)[seed % 3])
    try:
        cluster.world.run(cluster.main(seconds))
    except BaseExceptionGroup as e:
        raise tasks.leaves(e)[0] from e
    return cluster
