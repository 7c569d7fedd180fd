"""`python -m bench put|get|watch|cas|lease|failover|schedule [--smoke] [--seconds S] [--runs N]`."""

from __future__ import annotations

import argparse
import importlib
import sys

from bench.common import Settings, etcd_binary
from kcore import log

NAMES = ('put', 'get', 'watch', 'cas', 'lease', 'failover', 'schedule')


def main() -> int:
    parser = argparse.ArgumentParser(prog='bench', description='Measure the store; JSON on standard output.')
    parser.add_argument('name', choices=(*NAMES, 'all'))
    parser.add_argument('--smoke', action='store_true', help='a second of everything, to see that it works')
    parser.add_argument('--seconds', type=float, help='length of one measurement')
    parser.add_argument('--runs', type=int, default=1, help='measurements of each case; the median is shown')
    parser.add_argument('--vs', choices=('etcd',), help='measure a peer in the same run')
    args = parser.parse_args()
    log.setup('bench', level='error')
    if args.vs:
        found = etcd_binary()
        what = f'etcd {found[1]} is at {found[0]}, but ' if found else 'there is no etcd here, and '
        print(f'bench: {what}no gRPC client to load it with; measuring kubeling only', file=sys.stderr)
    settings = Settings(args.seconds or (0.3 if args.smoke else 4.0), args.runs, args.smoke)
    for name in NAMES if args.name == 'all' else (args.name,):
        importlib.import_module(f'bench.{name}').run(settings)
    return 0


if __name__ == '__main__':
    sys.exit(main())
