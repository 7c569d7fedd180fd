"""For all rooms: examples are judged by what they show, never by how long a busy machine takes to make them; and what
a run leaves behind shows no secret."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from tests.hush import leaks

WHOLE_ROOMS = ('tests/conformance/', 'tests/bench/')
WHOLE_FIXTURES = frozenset({'authority', 'pki', 'stores', 'config_of[kapi]'})
"""Who asks for certificates, or for members of a store, runs whole servers with them."""

settings.register_profile(
    'kubeling', deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile('kubeling')


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tells the tests of whole servers from those that `./scripts/check` has the time for."""
    for item in items:
        params = item.callspec.params if hasattr(item, 'callspec') else {}
        asked = {*getattr(item, 'fixturenames', ()), *(f'{name}[{value}]' for name, value in params.items())}
        if item.nodeid.startswith(WHOLE_ROOMS) or WHOLE_FIXTURES & asked:
            item.add_marker(pytest.mark.whole)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """After the last test, where all workers' directories are: a secret in clear text fails the run."""
    factory = getattr(session.config, '_tmp_path_factory', None)
    if hasattr(session.config, 'workerinput') or factory is None or factory._basetemp is None:
        return
    if found := leaks(factory.getbasetemp()):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter = session.config.pluginmanager.get_plugin('terminalreporter')
        reporter.write_line('')
        for line in found:
            reporter.write_line(f'SECRET IN CLEAR TEXT {line}', red=True)
