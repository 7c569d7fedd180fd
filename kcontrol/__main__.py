"""`python -m kcontrol`: one controller manager."""

from __future__ import annotations

import sys

from kcore import process

# Our logging comes first: it decides what structlog takes in.
# isort: split
from kcontrol.config import ControlConfig
from kcontrol.manager import run


def main() -> int:
    return process.main('kcontrol', run, ControlConfig.load(prog='kcontrol'))


if __name__ == '__main__':
    sys.exit(main())
