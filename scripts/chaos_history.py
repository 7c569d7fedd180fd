"""The simulation's clients and checkers against real processes.

Outside there is no ledger of what members did, so a watch of everything from the first revision on takes its place:
that watch, the answers of all clients and the other watches must fit each other.
"""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from kcore import tasks
from kcore.env import Env
from kstore.client import StoreClient
from kstore.errors import LeaseNotFound, StoreError
from tests.sim.kstore import judges
from tests.sim.kstore.history import NEVER, History, Operation, plain
from tests.sim.kstore.ledger import Ended, Ledger
from tests.sim.kstore.raft_world import Violation
from tests.sim.kstore.workload import Workload

OURS = (b'/k/', b'/l/')
"""What the witnesses write; nobody else does."""
PACE_S = 0.25
"""Mean pause between two requests of one of the witnesses: the order of all of them has to be found afterwards."""
CLIENTS = 6
FINISH_S = 30.0
"""Longest wait at the end for clients and watches."""


class Witness:
    """Clients whose every request and answer is written down."""

    def __init__(self, endpoints: Sequence[tuple[str, int]], env: Env, rng: random.Random) -> None:
        self.history = History()
        self._rng = rng
        self._clients = [StoreClient(endpoints, env, deadline_s=5.0) for _ in range(CLIENTS)]
        self._workers: list[asyncio.Task[None]] = []
        self._watchers: list[asyncio.Task[None]] = []
        self._ledger = Ledger(self.history.now, asyncio.get_running_loop().time)
        self._more = asyncio.Event()
        """The ledger has grown."""

    async def start(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        for client in self._clients:
            await client.start()
        work = self._work = Workload(self.history, self._rng, loop.time() + seconds, PACE_S)
        c = self._clients
        self._workers = [tasks.start_detached(f'keys {n}', work.keys(f'c{n}', c[n])) for n in range(3)]
        self._workers.append(tasks.start_detached('leases', work.leases('l', c[3], (2, 5, 15))))
        self._watchers = [tasks.start_detached('witness', work.watcher('w', c[4]))]
        self._watchers.append(tasks.start_detached('ledger', self._write_down(c[5])))

    async def _write_down(self, client: StoreClient) -> None:
        """Everything that happens, of others too: revisions are shared."""
        leased: dict[bytes, int] = {}
        ledger = self._ledger
        async with client.watch(b'/', b'0', revision=2) as stream:
            async for batch in stream:
                for e in batch.events:
                    key, revision = e.kv.key, e.kv.mod_revision
                    event = (e.type == 'put', key, plain(e.kv) if e.type == 'put' else None)
                    ledger.events[revision] = (*ledger.events.get(revision, ()), event)
                    ledger.revision = max(ledger.revision, revision)
                    lease = leased.pop(key, 0)
                    if e.type == 'put' and e.kv.lease:
                        leased[key] = e.kv.lease
                    elif e.type == 'delete' and lease:
                        ledger.ended.setdefault(lease, Ended(revision, self.history.now(), ledger.clock()))
                self._more.set()

    async def judge(self) -> str:
        """What is wrong; empty when nothing is."""
        async with asyncio.timeout(FINISH_S):
            await asyncio.gather(*self._workers)
            last = await self._clients[0].put(b'/end', b'')
            while self._ledger.revision < last.revision:
                self._more.clear()
                await self._more.wait()
        for run in self.history.watches:
            run.closed = True  # how far the last one came is compared up to there
        await tasks.stop(*self._watchers)
        try:
            self._check()
        except Violation as e:
            return str(e)
        return ''

    def _check(self) -> None:
        history, ledger = self.history, self._ledger
        for op in history.operations:  # a lease without keys ends unseen: its refusals cannot be judged from here
            if op.kind == 'gone' or isinstance(op.result, LeaseNotFound):
                op.end, op.result, op.kind, op.hint = NEVER, None, 'get', -1
        judges.glimpses(history, ledger)
        judges.watch_guarantees(history, ledger)
        judges.previous_values(history, ledger, ledger.revision)
        for lease in history.leases.values():
            ended = ledger.ended.get(lease.id)
            if ended is not None and not lease.revoked:
                judges.not_early(lease, ended)
        dense = _Dense(ledger)
        for op in history.operations:
            dense.operation(op)
        judges.linearizability(history, dense.ledger)

    async def close(self) -> None:
        await tasks.stop(*(t for t in (*self._workers, *self._watchers) if not t.done()))
        for client in self._clients:
            try:
                await client.close()
            except StoreError:
                continue


class _Dense:
    """Revisions counted as if only the witnesses had written, so that the search need not step over everyone else's."""

    def __init__(self, ledger: Ledger) -> None:
        self._ours = [r for r in sorted(ledger.events) if any(e[1].startswith(OURS) for e in ledger.events[r])]
        self.ledger = Ledger(ledger.now, ledger.clock)
        self.ledger.revision = len(self._ours) + 1
        self.ledger.events = {
            self._at(r): tuple((put, key, self._version(v)) for put, key, v in ledger.events[r]) for r in self._ours
        }
        self.ledger.ended = {lease: Ended(self._at(e.revision), e.moment, e.at_s) for lease, e in ledger.ended.items()}

    def _at(self, revision: int) -> int:
        return bisect_right(self._ours, revision) + 1

    def _version(self, version: Any) -> Any:
        if version is None:
            return None
        value, create, mod, count, lease = version
        return value, self._at(create), self._at(mod), count, lease

    def _expected(self, mod: int) -> int:
        return self._at(mod) if mod else 0

    def operation(self, op: Operation) -> None:
        """Rewrite one operation and its answer."""
        if op.kind == 'cas':
            key, mod, value = op.arguments
            op.arguments = key, self._expected(mod), value
        elif op.kind == 'txn':
            compares, writes = op.arguments
            op.arguments = tuple((key, self._expected(mod)) for key, mod in compares), writes
        if op.end == NEVER or isinstance(op.result, Exception):
            return
        if op.kind == 'put':
            op.result = self._at(op.result)
        elif op.kind == 'get':
            op.result = self._at(op.result[0]), self._version(op.result[1])
        elif op.kind == 'cas':
            op.result = self._at(op.result[0]), op.result[1], self._version(op.result[2])
        else:
            op.result = self._at(op.result[0]), op.result[1]
