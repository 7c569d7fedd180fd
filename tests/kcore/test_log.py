"""Logging, as each process sets it up."""

from __future__ import annotations

import subprocess
import sys

import pytest

START = """
import runpy, sys
sys.argv = [sys.argv[1], '--help']
try:
    runpy.run_module(sys.argv[0], run_name='__main__')
except SystemExit:
    print('structlog' in sys.modules, 'rich' in sys.modules)
"""


@pytest.mark.e2e
@pytest.mark.parametrize('package', ['kstore', 'kapi', 'kcontrol', 'knode'])
def test_no_component_carries_what_draws_tracebacks_on_terminals(package: str) -> None:
    said = subprocess.run([sys.executable, '-c', START, package], check=True, capture_output=True, text=True)
    assert said.stdout.splitlines()[-1] == 'True False'
