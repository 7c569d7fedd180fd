"""One command for the house's checks: `./scripts/check` (about a minute) and `./scripts/test` (`--all`).

Each step is printed with its time; the first failing step's output is shown in full and ends the run.
Arguments after `--` go to pytest: `./scripts/test -- -k rollout`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
QUICK = 'not e2e and not sim and not whole'
ROOMS = {
    'tests of whole servers': 'whole and not e2e and not sim',
    'simulations': 'sim',
    'tests on real processes': 'e2e',
}
"""What `--all` adds: name → marker."""


ENV = {
    **os.environ,
    'PYTHONDONTWRITEBYTECODE': '',
    'PYTHONPYCACHEPREFIX': os.environ.get('PYTHONPYCACHEPREFIX') or str(ROOT / '.pytest_cache' / 'pycache'),
}
"""Each worker collects all tests, and compiling those takes it longer than anything else: once is enough."""


def step(name: str, *argv: str) -> None:
    print(f'· {name}', flush=True)
    began = time.monotonic()
    done = subprocess.run(argv, cwd=ROOT, check=False, env=ENV)
    if done.returncode != 0:
        print(f'✗ {name} failed after {time.monotonic() - began:.1f} s', flush=True)
        sys.exit(1)
    print(f'✓ {name}  {time.monotonic() - began:.1f} s', flush=True)


def pytest(name: str, marker: str, *more: str) -> None:
    workers = ('-n', str(max(2, os.cpu_count() or 1)), '--dist', 'loadgroup')
    step(name, sys.executable, '-m', 'pytest', '-m', marker, *workers, *more)


def main() -> None:
    parser = argparse.ArgumentParser(description='House checks.')
    parser.add_argument('--all', action='store_true', help=f'also {", ".join(ROOMS)}')
    parser.add_argument('pytest', nargs='*', help='arguments for pytest, after --')
    args = parser.parse_args()
    if not args.pytest:
        step('format', str(BIN / 'ruff'), 'format', '--check', '.')
        step('lint', str(BIN / 'ruff'), 'check', '.')
        step('types', str(BIN / 'mypy'))
    pytest('unit tests', QUICK, *args.pytest)
    if args.all:
        for name, marker in ROOMS.items():
            pytest(name, marker, *args.pytest)
    print('all checks passed')


if __name__ == '__main__':
    main()
