"""Break a store on purpose: kill -9, stop and restart random members while clients write and watch, then count.

    ./scripts/chaos --seconds 120 [--seed S] [--stores 3] [--data-dir DIR]

Starts its own cluster of real processes in a temporary directory. Never more than a minority is disturbed at once, by
kill -9, SIGSTOP, a cut of its links to the other members (each link passes a proxy of this process), or a file size
limit at what its log or its tables have already written (a full disk, without root). Writers write values that occur
only once, plus a counter by compare-and-swap; a watcher follows everything from the beginning. At the end every member
is healed and each must hold every acknowledged write exactly once, and the watcher must have seen exactly what is
there. Beside them run the clients of the simulation (gets, puts, transactions, leases, watches), and its checkers judge
their history. Exit code 0 if all is well, 1 if anything was lost, duplicated, missed or has no explanation, or if a
member ended by itself, 2 if the cluster did not come up.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import resource
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from kcore import log, tasks
from kcore.env import Env, Process
from kstore.client import StoreClient
from kstore.errors import StoreError
from kstore.model import prefix_end
from scripts.chaos_history import Witness
from scripts.chaos_links import Links

PREFIX = b'/chaos/'
COUNTER = b'/chaos-counter'
NAMES = {
    'kill': 'kill -9',
    'stop': 'SIGSTOP',
    'cut': 'cut off',
    'cut one way': 'cut off one way',
    'full disk': 'full disk of',
    'full tables': 'no room for the tables of',
}
WRITE_PAUSE_S = 0.004
"""Between two writes of one writer: enough load to be in the middle of something whenever a member dies."""
READ_KEYS = 5_000
"""Keys read at once at the end: one long list would keep a busy member from its heartbeats."""
DEATH_CHARS_MAX = 500
"""What is told of the last words of a member that ended by itself."""
HEAL_S = 30.0
"""Longest wait at the end until all members agree."""


@dataclass
class Member:
    id: int
    address: tuple[str, int]
    argv: list[str]
    log: Path
    process: Process | None = None
    stopped: bool = False
    cut: bool = False
    full: bool = False

    @property
    def down(self) -> bool:
        return self.process is None or self.stopped or self.cut or self.full

    def limit_files(self, size: int) -> None:
        """No file of the member may grow beyond `size`: writes fail as on a full disk."""
        if self.process is not None:
            _, hard = resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (size, hard))


@dataclass
class Record:
    """What clients were told, and what the watcher saw."""

    acknowledged: dict[bytes, tuple[bytes, int]] = field(default_factory=dict)
    """Key → value and revision."""
    violation: str = ''
    witnessed: int = 0
    by_kind: dict[str, int] = field(default_factory=dict)
    uncertain: set[bytes] = field(default_factory=set)
    increments: int = 0
    increments_uncertain: int = 0
    started: float = 0.0
    last_ack: float = 0.0
    longest_gap_s: float = 0.0
    seen: list[tuple[int, bytes]] = field(default_factory=list)
    out_of_order: int = 0
    faults: int = 0
    deaths: list[str] = field(default_factory=list)

    def ack(self, now: float) -> None:
        self.longest_gap_s = max(self.longest_gap_s, now - self.last_ack)
        self.last_ack = now


class Cluster:
    """Members as processes."""

    def __init__(self, env: Env, directory: Path, stores: int, extra: Sequence[str]) -> None:
        self._env = env
        ports = free_ports(stores)
        self.links = Links(env)
        self.directory = directory
        self.members: list[Member] = []
        self.deaths: list[str] = []
        """Members that ended without being killed: a sentence each."""
        self._ends: set[asyncio.Task[None]] = set()
        self._plan = (ports, extra)

    async def prepare(self) -> None:
        """Lay the links between the members: each reaches every other by a proxy of its own."""
        ports, extra = self._plan
        for i, port in enumerate(ports, 1):
            routes = {j: port if j == i else await self.links.lay(i, j, target) for j, target in enumerate(ports, 1)}
            peers = ','.join(f'{j}=127.0.0.1:{route}' for j, route in routes.items())
            directory = self.directory
            argv = [sys.executable, '-m', 'kstore', '--id', str(i), '--data-dir', str(directory / f'store-{i}')]
            argv += ['--listen', f'127.0.0.1:{port}', '--peers', peers, *extra]
            self.members.append(Member(i, ('127.0.0.1', port), argv, directory / f'store-{i}.log'))

    @property
    def endpoints(self) -> list[tuple[str, int]]:
        return [m.address for m in self.members]

    async def start(self, member: Member) -> None:
        with member.log.open('ab') as out:
            member.process = await self._env.processes.spawn(member.argv, stdout=out, stderr=out, new_session=True)
        end = tasks.start_detached('end of a member', self._notice_end(member, member.process))
        self._ends.add(end)
        end.add_done_callback(self._ends.discard)

    async def _notice_end(self, member: Member, process: Process) -> None:
        code = await process.wait()
        if member.process is process:
            member.process, member.stopped, member.full = None, False, False
            last = (member.log.read_text(errors='replace').splitlines() or [''])[-1]
            self.deaths.append(f'member {member.id} ended by itself with {code}: {last[:DEATH_CHARS_MAX]}')

    async def kill(self, member: Member) -> None:
        if member.process is not None:
            process, member.process = member.process, None
            member.stopped, member.full = False, False
            process.signal(signal.SIGKILL)
            await process.wait()

    def stop(self, member: Member) -> None:
        if member.process is not None:
            member.process.signal(signal.SIGSTOP)
            member.stopped = True

    def cont(self, member: Member) -> None:
        if member.process is not None and member.stopped:
            member.process.signal(signal.SIGCONT)
            member.stopped = False

    def fill(self, member: Member, kind: str) -> bool:
        """Let the member's tables, or (full disk) neither log nor tables grow further; False when it has no log yet."""
        root = self.directory / f'store-{member.id}'
        newest = max((root / 'wal').glob('*.wal'), key=lambda p: (p.stat().st_size > 0, p.name), default=None)
        size = 0 if newest is None else newest.stat().st_size
        if not size:
            return False
        if kind == 'full tables':
            size = max(size, *(p.stat().st_size for p in (root / 'state').rglob('*') if p.is_file()))
        member.limit_files(size)
        member.full = True
        return True

    async def heal(self) -> None:
        self.links.heal()
        for member in self.members:
            member.cut = False
            if member.full:
                member.limit_files(resource.RLIM_INFINITY)
                member.full = False
            self.cont(member)
            if member.process is None:
                await self.start(member)

    async def close(self) -> None:
        for member in self.members:
            await self.kill(member)
        await self.links.close()


def free_ports(count: int) -> list[int]:
    """Ports free a moment ago; all are held until all are known."""
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(count):
            s = stack.enter_context(socket.socket())
            s.bind(('127.0.0.1', 0))
            ports.append(int(s.getsockname()[1]))
        return ports


async def write(client: StoreClient, name: str, record: Record, until: asyncio.Event) -> None:
    """Put keys that nobody else writes, until told to stop."""
    loop = asyncio.get_running_loop()
    n = 0
    while not until.is_set():
        n += 1
        key, value = PREFIX + f'{name}/{n:08d}'.encode(), f'{name}:{n}'.encode()
        try:
            reply = await client.put(key, value)
        except StoreError:
            record.uncertain.add(key)
            continue
        record.acknowledged[key] = (value, reply.revision)
        record.ack(loop.time())
        await asyncio.sleep(WRITE_PAUSE_S)


async def count(client: StoreClient, record: Record, until: asyncio.Event) -> None:
    """Increment one key by compare-and-swap: a retry applied twice would show as a wrong sum."""
    while not until.is_set():
        try:
            current = (await client.get(COUNTER)).kv
            value = int(current.value) + 1 if current else 1
            reply = await client.cas(COUNTER, current.mod_revision if current else 0, str(value).encode())
            record.increments += reply.succeeded
        except StoreError:
            record.increments_uncertain += 1
        await asyncio.sleep(WRITE_PAUSE_S)


async def follow(client: StoreClient, record: Record) -> None:
    """Watch everything from the first revision on."""
    async with client.watch(PREFIX, prefix_end(PREFIX), revision=2, prev_kv=False) as stream:
        async for batch in stream:
            for event in batch.events:
                revision = event.kv.mod_revision
                if record.seen and revision < record.seen[-1][0]:
                    record.out_of_order += 1
                record.seen.append((revision, event.kv.key))


async def torment(
    cluster: Cluster, client: StoreClient, rng: random.Random, record: Record, until: asyncio.Event
) -> None:
    """One fault after the other, at most a minority down at any time; half of them hit the leader."""
    most_down = (len(cluster.members) - 1) // 2
    repairs: set[asyncio.Task[None]] = set()
    while not until.is_set():
        await asyncio.sleep(rng.uniform(0.5, 3.0))
        healthy = [m for m in cluster.members if not m.down]
        if len(cluster.members) - len(healthy) >= max(most_down, 1) or not healthy:
            continue
        kinds = ('kill', 'kill', 'stop', 'cut', 'cut one way', 'full disk', 'full tables')
        victim, kind, pause_s = rng.choice(healthy), rng.choice(kinds), rng.uniform(0.3, 4.0)
        if most_down == 0 and kind == 'kill':
            pause_s = 0.1
        leader = [m for m in healthy if m.address == client.endpoint]
        if leader and rng.random() < 0.5:
            victim = leader[0]
        if kind == 'kill':
            await cluster.kill(victim)
        elif kind == 'stop':
            cluster.stop(victim)
        elif kind in ('full disk', 'full tables'):
            if not cluster.fill(victim, kind):
                continue
        else:
            cluster.links.cut(victim.id, both=kind == 'cut')
            victim.cut = True
        record.faults += 1
        record.by_kind[kind] = record.by_kind.get(kind, 0) + 1
        whom = f'member {victim.id}' + (' (leader)' if victim in leader else '')
        say(f'{NAMES[kind]} {whom}, back in {pause_s:.1f} s', record)
        repair = tasks.start_detached('repair', mend(cluster, victim, pause_s))
        repairs.add(repair)
        repair.add_done_callback(repairs.discard)
    await asyncio.gather(*repairs)


async def mend(cluster: Cluster, member: Member, pause_s: float) -> None:
    await asyncio.sleep(pause_s)
    if member.cut:
        cluster.links.heal(member.id)
        member.cut = False
    elif member.full:
        member.limit_files(resource.RLIM_INFINITY)
        member.full = False
    elif member.stopped:
        cluster.cont(member)
    elif member.process is None:
        await cluster.start(member)


def say(text: str, record: Record) -> None:
    passed = asyncio.get_running_loop().time() - record.started
    print(f'{passed:7.1f}s  {len(record.acknowledged):7d} acknowledged  {text}', file=sys.stderr, flush=True)


async def settle(cluster: Cluster, env: Env, record: Record) -> list[dict[bytes, tuple[bytes, int, int]]]:
    """Heal everyone and read the whole state from each member by itself: key → value, revision, version."""
    await cluster.heal()
    async with StoreClient(cluster.endpoints, env, deadline_s=HEAL_S) as client:
        await client.put(b'/chaos-end', b'')
    known = sorted({*record.acknowledged, *record.uncertain})
    cuts = [PREFIX, *known[READ_KEYS::READ_KEYS], prefix_end(PREFIX)]
    states: list[dict[bytes, tuple[bytes, int, int]]] = []
    for member in cluster.members:
        async with StoreClient([member.address], env, deadline_s=HEAL_S) as client:
            states.append({})
            for start, end in pairwise(cuts):
                reply = await client.range(start, end)
                states[-1].update({kv.key: (kv.value, kv.mod_revision, kv.version) for kv in reply.kvs})
            kv = (await client.get(COUNTER)).kv
            states[-1][COUNTER] = (kv.value, kv.mod_revision, kv.version) if kv else (b'0', 0, 0)
    return states


def judge(record: Record, states: Sequence[dict[bytes, tuple[bytes, int, int]]]) -> dict[str, int]:
    """Every figure but the first must be 0."""
    there = states[0]
    lost = sum(
        1 for state in states for key, (value, revision) in record.acknowledged.items()
        if state.get(key, (b'', 0, 0))[:2] != (value, revision)
    )  # fmt: skip
    written = {(revision, key) for key, (_, revision, _) in there.items() if key != COUNTER}
    seen = set(record.seen)
    counter = int(there[COUNTER][0])
    low, high = record.increments, record.increments + record.increments_uncertain
    return {
        'acknowledged': len(record.acknowledged) + record.increments,
        'lost': lost + max(0, low - counter),
        'applied twice': sum(v > 1 for k, (_, _, v) in there.items() if k != COUNTER) + max(0, counter - high),
        'members disagree': sum(state != there for state in states),
        'watch duplicated': len(record.seen) - len(seen),
        'watch missed': len(written - seen),
        'watch invented': len(seen - written),
        'watch out of order': record.out_of_order,
    }


async def drive(args: argparse.Namespace, env: Env, directory: Path, record: Record) -> dict[str, int]:
    loop = asyncio.get_running_loop()
    cluster = Cluster(env, directory, args.stores, args.flag or ())
    until = asyncio.Event()
    await cluster.prepare()
    clients = [StoreClient(cluster.endpoints, env, deadline_s=20.0) for _ in range(args.writers + 2)]
    witness = Witness(cluster.endpoints, env, random.Random(args.seed + 1))
    workers: list[asyncio.Task[None]] = []
    try:
        for member in cluster.members:
            await cluster.start(member)
        for client in clients:
            await client.start()
        await clients[0].put(b'/chaos-start', b'')
        record.started = record.last_ack = loop.time()
        say(f'{args.stores} members serve; breaking things for {args.seconds} s', record)
        watcher = tasks.start_detached('watcher', follow(clients[-1], record))
        workers = [
            tasks.start_detached(f'writer {i}', write(clients[i], f'w{i}', record, until)) for i in range(args.writers)
        ]
        workers.append(tasks.start_detached('counter', count(clients[-2], record, until)))
        faults = torment(cluster, clients[0], random.Random(args.seed), record, until)
        workers.append(tasks.start_detached('faults', faults))
        await witness.start(args.seconds)
        await asyncio.sleep(args.seconds)
        until.set()
        await asyncio.gather(*workers)
        say('healing, then comparing all members', record)
        states = await settle(cluster, env, record)
        wanted = sum(key != COUNTER for key in states[0])
        for _ in range(int(HEAL_S / 0.05)):
            if len(record.seen) >= wanted or watcher.done():
                break
            await asyncio.sleep(0.05)
        await tasks.stop(watcher)
        say('looking for one order of all operations', record)
        record.violation = await witness.judge()
        record.witnessed = len(witness.history.operations)
        record.deaths = cluster.deaths
        return judge(record, states) | {
            'unexplained': int(bool(record.violation)),
            'died by itself': len(record.deaths),
        }
    finally:
        until.set()
        await tasks.stop(*workers)
        await witness.close()
        for client in clients:
            await client.close()
        await cluster.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog='chaos', description=(__doc__ or '').splitlines()[0])
    parser.add_argument('--seconds', type=float, default=120.0)
    parser.add_argument('--minutes', type=float, help='instead of --seconds')
    parser.add_argument('--seed', type=int, default=random.SystemRandom().randrange(1 << 31))
    parser.add_argument('--stores', type=int, default=3)
    parser.add_argument('--writers', type=int, default=4)
    parser.add_argument('--data-dir', type=Path, help="keep the members' data and logs here (must be empty)")
    parser.add_argument('--flag', action='append', help='passed to every member, for example --flag=--tick-ms=10')
    args = parser.parse_args()
    if args.minutes is not None:
        args.seconds = args.minutes * 60
    log.setup('chaos', level='error')
    record = Record()
    with contextlib.ExitStack() as stack:
        directory = args.data_dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix='chaos-')))
        directory.mkdir(parents=True, exist_ok=True)
        try:
            figures = asyncio.run(drive(args, Env.real(args.seed), directory, record))
        except StoreError as e:
            print(f'chaos: the cluster did not answer: {e}', file=sys.stderr)
            for path in sorted(directory.glob('*.log')):
                print(f'--- {path.name}\n{path.read_text()[-2000:]}', file=sys.stderr)
            return 2
    for name, figure in figures.items():
        print(f'{name} {figure}')
    print(f'faults {record.faults} ({", ".join(f"{kind} {n}" for kind, n in sorted(record.by_kind.items()))})')
    print(f'operations in one order {record.witnessed}')
    for text in filter(None, (record.violation, *record.deaths)):
        print(text)
    print(f'longest write unavailability {record.longest_gap_s:.2f} s')
    bad = {name: figure for name, figure in figures.items() if name != 'acknowledged' and figure}
    if bad or not figures['acknowledged']:
        print(f'FAILED; again with --seed {args.seed}')
        return 1
    print(f'clean (seed {args.seed})')
    return 0


if __name__ == '__main__':
    sys.exit(main())
