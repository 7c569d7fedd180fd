"""Run many simulation seeds: `python -m tests.sim --seeds 1000 --start 0 --jobs 2 [--only raft|node]`.

Prints each failing seed with its reason, and exits non-zero if there was one. A seed replays by itself:
`python -m tests.sim --only node --start 77 --seeds 1`.
"""

from __future__ import annotations

import argparse
import logging
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import structlog

from tests.sim.kstore import node_world, raft_world

WORLDS = {'raft': raft_world.simulate, 'node': node_world.simulate}


def one(world: str, seed: int) -> tuple[str, int, str]:
    """The reason of the failure, or an empty text."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        WORLDS[world](seed)
    except Exception as e:
        return world, seed, f'{type(e).__name__}: {e}'
    return world, seed, ''


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m tests.sim', description=__doc__)
    parser.add_argument('--seeds', type=int, default=100, help='how many')
    parser.add_argument('--start', type=int, default=0, help='the first one')
    parser.add_argument('--jobs', type=int, default=1, help='processes')
    parser.add_argument('--only', choices=sorted(WORLDS), help='one world instead of all')
    args = parser.parse_args()
    failed = 0
    seeds = range(args.start, args.start + args.seeds)
    with ProcessPoolExecutor(args.jobs) as pool:
        for name in [args.only] if args.only else WORLDS:
            for world, seed, reason in pool.map(partial(one, name), seeds, chunksize=4):
                if reason:
                    failed += 1
                    print(f'{world} seed {seed}: {reason}', flush=True)
            print(f'{name}: {args.seeds} seeds from {args.start} done', file=sys.stderr, flush=True)
    print(f'{failed} failed', file=sys.stderr)
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
