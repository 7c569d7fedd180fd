"""`python -m kapi`: one API server."""

from __future__ import annotations

import sys

from kapi import app
from kapi.config import ApiConfig
from kcore import process

if __name__ == '__main__':
    sys.exit(process.main('kapi', app.run, ApiConfig.load(prog='kapi')))
