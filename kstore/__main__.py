"""`python -m kstore --id 1 ...` runs a member; `python -m kstore status|get|put|...` talks to one."""

from __future__ import annotations

import sys

from kcore import process
from kstore.config import StoreConfig


def main(argv: list[str]) -> int:
    if argv and not argv[0].startswith('-'):
        from kstore.cli import main as cli  # noqa: PLC0415 — a member's start does not need it

        return cli(argv)
    from kstore.server import run  # noqa: PLC0415 — and the command line does not need this

    return process.main('kstore', run, StoreConfig.load(argv, prog='kstore'))


if __name__ == '__main__':
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:  # while modules are still being loaded
        sys.exit(130)
