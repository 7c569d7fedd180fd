"""Planted bugs: does a checker find each? `python -m tests.sim.mutants [--jobs 2] [--only WORD]` prints the table.

Every bug is planted in a copy of the packages outside the tree, where the simulation then runs seed after seed until
one fails. A bug that is not found means that a checker is missing, not that the bug is harmless.
"""

# ruff: noqa: E501 — planted code is quoted as it stands
from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ('kcore', 'kstore', 'tests/sim', 'tests/kstore')


class Mutant(NamedTuple):
    """A bug in one place: `old` occurs there once and becomes `new`."""

    what: str
    world: str
    path: str
    old: str
    new: str
    seeds: int = 1500


MUTANTS = (
    # --- durability -----------------------------------------------------------------------------------------------
    Mutant('acknowledge before the write', 'store', 'kstore/node.py',
           '            if batch.payloads:\n                self._waiters.reached(2, batch.last)\n',
           '            for rd in islice(self._unsynced, open_):\n                self._send(core, rd.send_durable)\n'
           '            if batch.payloads:\n                self._waiters.reached(2, batch.last)\n'),
    Mutant('write without a sync', 'store', 'kstore/wal.py', '        file.sync()\n        self._writes += 1',
           '        self._writes += 1'),
    Mutant('leave half a batch on a full disk', 'store', 'kstore/wal.py', '            file.truncate(durable)\n', ''),
    Mutant('forget the vote in a restart', 'node', 'kstore/wal.py',
           'return HardState(term, vote, commit)', 'return HardState(term, NO_ONE, commit)'),
    Mutant('a failed sync is tried again', 'store', 'kstore/wal.py', '        file.sync()\n        self._writes += 1',
           '        try:\n            file.sync()\n        except OSError:\n            pass\n        self._writes += 1'),
    # --- raft -----------------------------------------------------------------------------------------------------
    Mutant('commit entries of an older term by counting', 'raft', 'kstore/raft/leader.py',
           'if index > log.committed and log.term(index) == self.term:', 'if index > log.committed:'),
    Mutant('vote for a log that is behind', 'raft', 'kstore/raft/roles.py',
           'granted = free and core.log.is_up_to_date(m.index, m.log_term)', 'granted = free'),
    Mutant('vote twice in a term', 'raft', 'kstore/raft/roles.py',
           'free = core.vote == m.frm or (core.vote == NO_ONE and core.leader == NO_ONE)',
           'free = core.leader == NO_ONE'),
    Mutant('an append always cuts the log', 'raft', 'kstore/raft/log.py',
           'if self.term(entry.index) != entry.term:', 'if entry.index > self.committed:'),
    Mutant('a heartbeat commits what a follower may not have', 'raft', 'kstore/raft/leader.py',
           'commit = min(pr.match, self._core.log.committed)', 'commit = self._core.log.committed'),
    Mutant('a refusal counts as a match', 'raft', 'kstore/raft/leader.py',
           '(self._append_refused if m.reject else self._append_accepted)(m, pr)', 'self._append_accepted(m, pr)'),
    Mutant('no pre-vote', 'raft', 'kstore/raft/roles.py',
           'if core.config.pre_vote and not transfer:', 'if False:'),
    Mutant('one majority is enough in a joint membership', 'raft', 'kstore/raft/quorum.py',
           'return min(reached, _agreed_by_half(conf.outgoing, value)) if conf.outgoing else reached',
           'return reached'),
    Mutant('an old snapshot replaces a longer log', 'raft', 'kstore/raft/roles.py',
           'if m.snapshot is not None and m.snapshot.index > log.committed:', 'if m.snapshot is not None:'),
    Mutant('a snapshot that the log proves replaces it', 'raft', 'kstore/raft/roles.py',
           'if log.matches(m.snapshot.index, m.snapshot.term):', 'if False:'),
    Mutant('a read needs no round of its own', 'raft', 'kstore/raft/leader.py',
           'if self._round == self._round_sent:', 'if self._round == 0:'),
    Mutant('a new leader reads before it committed', 'raft', 'kstore/raft/leader.py',
           'if not self._has_committed_own:\n            self._early', 'if False:\n            self._early'),
    # --- node -----------------------------------------------------------------------------------------------------
    Mutant('a waiter of an old term gets the result of another command', 'store', 'kstore/node.py',
           '        if leader != self.config.id or term != self._waiters.term:\n            self._fail_waiters()',
           '        pass'),
    Mutant('a read accepts the answer to an older question', 'node', 'kstore/reads.py',
           'if self._round and token == self._token:', 'if self._round:'),
    Mutant('a read does not wait for the state machine', 'store', 'kstore/reads.py',
           'while self._confirmed and self._confirmed[0][0] <= index:', 'while self._confirmed:'),
    Mutant('a lone leader answers reads at once', 'store', 'kstore/raft/leader.py',
           'while self._reads and self._reads[0].round <= confirmed:', 'while self._reads:'),
    # --- exactly once ---------------------------------------------------------------------------------------------
    Mutant('a snapshot leaves out the sessions', 'store', 'kstore/fsm.py',
           'if table is Table.META and key not in _COUNTERS:',
           'if table is Table.SESSIONS or (table is Table.META and key not in _COUNTERS):'),
    Mutant('sessions are not flushed', 'store', 'kstore/fsm.py', '        self.store.save()\n        self.sessions.save()',
           '        self.store.save()'),
    Mutant('a retry is not marked as one', 'store', 'kstore/proposals.py', '    parts[3] = True\n',
           '    parts[1] += 1 << 20\n'),
    Mutant('a full disk refuses what may have been done', 'store', 'kstore/proposals.py',
           'isinstance(result, LogFull) and not _may_be_applied(ticket)', 'isinstance(result, LogFull)'),
    Mutant('a swap is refused without asking who leads', 'store', 'kstore/contention.py',
           'self._proposals.read(lambda error: self._proved(line, arrived, error))', 'self._proved(line, arrived, None)'),
    # --- watches --------------------------------------------------------------------------------------------------
    Mutant('compaction takes the deletion at its own revision', 'store', 'kstore/mvcc/store.py',
           'if not record[12] and revision < target:', 'if not record[12] and revision <= target:'),
    Mutant('compaction takes the version that is still valid', 'store', 'kstore/mvcc/store.py',
           'if record[:12] != _NOWHERE:\n                doomed.append((Table.LOG, record[:12]))',
           'if record[12] and revision < target:\n                doomed.append((Table.LOG, log_key))'),
    Mutant('a watch is silent about a restored snapshot', 'store', 'kstore/watching.py',
           'subscription.behind = subscription.behind or published + 1', 'pass'),
    Mutant('a resumed watch begins one late', 'store', 'kstore/watchstream.py',
           '        self.next = revision + 1\n        if not batch.events:', '        self.next = revision + 2\n        if not batch.events:'),
    Mutant('a resumed watch repeats the last revision', 'store', 'kstore/watchstream.py',
           '        self.next = revision + 1\n        if not batch.events:', '        self.next = revision\n        if not batch.events:'),
    Mutant('a watch that joins a feed misses what came meanwhile', 'store', 'kstore/watching.py',
           '        if watch.position <= self._hub.published:\n            return\n        if subscription is None',
           '        if subscription is None'),
    Mutant('a watch of a compacted revision begins where it can', 'store', 'kstore/watching.py',
           '        if start < self._store.compacted:\n', '        start = max(start, self._store.compacted)\n        if False:\n'),
    Mutant('the previous value is the present one', 'store', 'kstore/mvcc/watch.py',
           'previous = (self._store.previous(change) if with_prev else None) or _NIL',
           'previous = (self._store.current(change.key) if with_prev else None) or _NIL'),
    # --- leases ---------------------------------------------------------------------------------------------------
    Mutant('a renewal needs no proof of leadership', 'store', 'kstore/leasekeeper.py',
           '        self._proposals.read(ready)\n\n    def describe', '        ready(None)\n\n    def describe'),
    Mutant('a lease is revived after its deadline', 'store', 'kstore/lease.py',
           'if lease is None or deadline is None or deadline <= now:', 'if lease is None or deadline is None:'),
    Mutant('a renewal keeps the old checkpoint', 'store', 'kstore/leasekeeper.py',
           'withdrawals = self._leases.needs_withdrawal([lease_id])', 'withdrawals: list[Any] = []'),
    Mutant('a renewal overlooks a checkpoint on its way', 'unit tests/kstore/test_leasekeeper.py', 'kstore/lease.py',
           'if e.remaining_s < e.ttl_s or e.id in self.on_the_way]', 'if e.remaining_s < e.ttl_s]'),
    Mutant('a new leader counts leases before all is applied', 'unit tests/kstore/test_leasekeeper.py', 'kstore/leasekeeper.py',
           '        self._proposals.read(ready)\n\n    def serve', '        ready(None)\n\n    def serve'),
    Mutant('a new leader starts every lease anew', 'store', 'kstore/lease.py',
           'now + lease.remaining_s for lease', 'now + lease.ttl_s for lease'),
    Mutant('a lease ends and its keys stay', 'store', 'kstore/fsm.py',
           'deletions = [txn.Delete(key, None, 0) for key in sorted(lease.keys)]', 'deletions: list[Any] = []'),
    Mutant('a restored snapshot keeps the old leases', 'store', 'kstore/mvcc/store.py',
           "        self.leases = LeaseBook()\n        for raw, ttl", '        for raw, ttl'),
    Mutant('a detached key goes with its old lease', 'store', 'kstore/mvcc/store.py',
           'if old_lease and old_lease != lease:', 'if False:'),
)  # fmt: skip


def plant(mutant: Mutant, into: Path) -> bool:
    """Copy the packages and plant the bug; False when the place to change is gone."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, into / package, ignore=shutil.ignore_patterns('__pycache__'))
    path = into / mutant.path
    text = path.read_text()
    if not mutant.old or text.count(mutant.old) != 1:
        return False
    path.write_text(text.replace(mutant.old, mutant.new))
    return True


def hunt(seeds: int, mutant: Mutant) -> tuple[Mutant, str, str]:
    """(mutant, first failing seed, reason)."""
    with tempfile.TemporaryDirectory(prefix='mutant-') as scratch:
        if not plant(mutant, Path(scratch)):
            return mutant, '?', 'the code has changed: plant it anew'
        kind, _, tests = mutant.world.partition(' ')
        if kind == 'unit':
            argv = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', tests]
            done = subprocess.run(argv, cwd=scratch, capture_output=True, text=True, check=False)
            red = [line.rpartition('::')[2] for line in done.stdout.splitlines() if line.startswith('FAILED')]
            return mutant, str(len(red)) if red else 'none', 'test ' + (red[0] if red else '')
        count = min(seeds, mutant.seeds)
        argv = [sys.executable, '-m', 'tests.sim', '--only', mutant.world, '--seeds', str(count), '--stop-at', '1']
        done = subprocess.run(argv, cwd=scratch, capture_output=True, text=True, check=False)
        first = next((line for line in done.stdout.splitlines() if ' seed ' in line), '')
        if not first:
            return mutant, f'none in {count}', done.stderr.strip().splitlines()[-1][:100]
        head, _, reason = first.partition(': ')
        return mutant, head.rpartition(' ')[2], reason


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m tests.sim.mutants', description=__doc__)
    parser.add_argument('--jobs', type=int, default=1)
    parser.add_argument('--seeds', type=int, default=1500, help='at most so many a bug')
    parser.add_argument('--only', default='', help='bugs whose description contains this')
    args = parser.parse_args()
    chosen = [m for m in MUTANTS if args.only in m.what]
    missed = 0
    print('| bug | world | first failing seed | found by |\n|---|---|---|---|')
    with ThreadPoolExecutor(args.jobs) as pool:
        for mutant, seed, reason in pool.map(partial(hunt, args.seeds), chosen):
            missed += not seed.isdigit()
            print(f'| {mutant.what} | {mutant.world} | {seed} | {reason[:110].replace("|", "/")} |', flush=True)
    print(f'{len(chosen) - missed} of {len(chosen)} found', file=sys.stderr)
    return 1 if missed else 0


if __name__ == '__main__':
    sys.exit(main())
