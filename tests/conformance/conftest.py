"""The API server's own fixtures, for tests that re-express upstream's conformance suite."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_SPEC = importlib.util.spec_from_file_location('kapi_fixtures', Path(__file__).parent.parent / 'kapi' / 'conftest.py')
assert _SPEC is not None
assert _SPEC.loader is not None
_KAPI = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_KAPI)
authority, serve, world, api, env = _KAPI.authority, _KAPI.serve, _KAPI.world, _KAPI.api, _KAPI.env
