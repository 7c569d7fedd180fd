"""`python -m knode`: one node agent in this process."""

from __future__ import annotations

import sys

from kcore import process
from knode.agent import run
from knode.config import NodeConfig

if __name__ == '__main__':
    sys.exit(process.main('knode', run, NodeConfig.load(prog='knode')))
