"""Run many simulation seeds: `python -m tests.sim --seeds 1000 --start 0 --jobs 2 [--only raft|node|store]`.

Without `--only` the seeds are divided: of ten, six go to bare Raft cores, one to nodes and three to the whole store.
Prints each failing seed with its reason, and exits non-zero if there was one. A seed replays by itself:
`python -m tests.sim --only node --start 77 --seeds 1`.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from typing import Any

import structlog

from tests.sim.kstore import node_world, raft_world, store_world

WORLDS: dict[str, Callable[[int], Any]] = {
    'raft': raft_world.simulate,
    'node': node_world.simulate,
    'store': store_world.simulate,
}
SHARES = ('raft', 'store', 'raft', 'node', 'raft', 'raft', 'store', 'raft', 'store', 'raft')
"""Which world gets seed n, by n modulo ten."""
REPORT_S = 10.0


def one(case: tuple[str, int]) -> tuple[str, int, str]:
    """The reason of the failure, or an empty text."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    world, seed = case
    try:
        WORLDS[world](seed)
    except Exception as e:
        return world, seed, f'{type(e).__name__}: {e}'
    return world, seed, ''


def cases(start: int, seeds: int, only: str | None) -> Iterator[tuple[str, int]]:
    for seed in range(start, start + seeds):
        yield only or SHARES[seed % len(SHARES)], seed


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m tests.sim', description=__doc__)
    parser.add_argument('--seeds', type=int, default=100, help='how many')
    parser.add_argument('--start', type=int, default=0, help='the first one')
    parser.add_argument('--jobs', type=int, default=1, help='processes')
    parser.add_argument('--only', choices=sorted(WORLDS), help='one world instead of all')
    parser.add_argument('--stop-at', type=int, default=0, help='give up after so many failures; 0: never')
    args = parser.parse_args()
    began = reported = time.monotonic()
    failed = done = 0
    counts: dict[str, int] = {}
    with ProcessPoolExecutor(args.jobs) as pool:
        todo = cases(args.start, args.seeds, args.only)
        size = 2 if args.stop_at else 40  # seeds behind the one that ends it would be for nothing
        while batch := list(islice(todo, size * args.jobs)):
            for world, seed, reason in pool.map(one, batch, chunksize=min(size, 4)):
                done += 1
                counts[world] = counts.get(world, 0) + 1
                if reason:
                    failed += 1
                    print(f'{world} seed {seed}: {reason[:2000]}', flush=True)
            if time.monotonic() - reported > REPORT_S:
                reported = time.monotonic()
                print(f'{done} of {args.seeds} seeds, {failed} failed', file=sys.stderr, flush=True)
            if args.stop_at and failed >= args.stop_at:
                break
    split = ', '.join(f'{world} {count}' for world, count in sorted(counts.items()))
    print(f'{done} seeds ({split}) in {time.monotonic() - began:.0f} s, {failed} failed', file=sys.stderr)
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
