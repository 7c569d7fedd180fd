"""`python -m kcontrol`: one controller manager."""

from __future__ import annotations

import sys

from kcontrol.config import ControlConfig
from kcontrol.manager import run
from kcore import process


def main() -> int:
    return process.main('kcontrol', run, ControlConfig.load(prog='kcontrol'))


if __name__ == '__main__':
    sys.exit(main())
