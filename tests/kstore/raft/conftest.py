"""`--rewrite` regenerates golden scenarios; it is known when this directory is named on the command line."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption('--rewrite', action='store_true', help='replace expected output by the actual one')


@pytest.fixture
def rewrite(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption('--rewrite', default=False))
