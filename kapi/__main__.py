"""`python -m kapi`: one API server."""

from __future__ import annotations

import sys

from kcore import process

# Our logging comes first: it decides what structlog takes in.
# isort: split
from kapi import app
from kapi.config import ApiConfig

if __name__ == '__main__':
    sys.exit(process.main('kapi', app.run, ApiConfig.load(prog='kapi')))
