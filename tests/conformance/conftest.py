"""Fixtures for tests that re-express upstream's conformance suite: the API server's own, kubectl on it, a cluster."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from tests.e2e.conftest import LocalCluster, is_free, kubectls
from tests.kapi.crd.conftest import custom, define  # noqa: F401 — fixtures

_SPEC = importlib.util.spec_from_file_location('kapi_fixtures', Path(__file__).parent.parent / 'kapi' / 'conftest.py')
assert _SPEC is not None
assert _SPEC.loader is not None
_KAPI = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_KAPI)
authority, serve, world, api, env = _KAPI.authority, _KAPI.serve, _KAPI.world, _KAPI.api, _KAPI.env

KUBECTL_TIMEOUT_S = 60


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker('as_root') and os.geteuid() != 0:
        pytest.skip('only root can run containers as other users')


class Kubectl:
    """The newest kubectl of this machine, on the API server in this process."""

    def __init__(self, program: str, home: Path, kubeconfig: Path) -> None:
        self._program = program
        self._env = {**os.environ, 'KUBECONFIG': str(kubeconfig), 'HOME': str(home)}

    async def start(self, *words: str, **kw: Any) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(self._program, *words, env=self._env, **kw)

    async def __call__(self, *words: str, stdin: Any = None, fails: bool = False) -> str:
        """What it says, both streams; its exit code must be as expected. `stdin` is text, or an object sent as JSON."""
        pipe = asyncio.subprocess.PIPE
        body = stdin if isinstance(stdin, str) or stdin is None else orjson.dumps(stdin).decode()
        process = await self.start(*words, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
        async with asyncio.timeout(KUBECTL_TIMEOUT_S):
            out, _ = await process.communicate(body.encode() if body is not None else None)
        assert (process.returncode != 0) is fails, out.decode()
        return out.decode()


@pytest.fixture
async def kubectl(world: SimpleNamespace, authority: Any, tmp_path: Path) -> Kubectl:
    program = next(iter(kubectls().values()), None)
    if program is None:
        pytest.skip('no kubectl from 1.27 on this machine')
    cert, key = authority.issue('user-admin-system-masters', 'admin', 'system:masters')
    cluster = {'server': world.base, 'certificate-authority': str(authority.directory / 'ca.crt')}
    config = {
        'apiVersion': 'v1', 'kind': 'Config', 'current-context': 'c',
        'clusters': [{'name': 'c', 'cluster': cluster}],
        'users': [{'name': 'u', 'user': {'client-certificate': str(cert), 'client-key': str(key)}}],
        'contexts': [{'name': 'c', 'context': {'cluster': 'c', 'user': 'u'}}],
    }  # fmt: skip
    path = tmp_path / 'kubeconfig'
    path.write_bytes(orjson.dumps(config))
    return Kubectl(program, tmp_path, path)


@pytest.fixture(scope='session')
def cluster(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[LocalCluster]:
    worker = int(worker_id.removeprefix('gw')) if worker_id.startswith('gw') else 9
    base = next(b for b in range(11_000 + worker * 500, 19_000, 100) if is_free(b))
    made = LocalCluster(tmp_path_factory.mktemp('conformance') / 'cluster', base)
    made.settings['KNODE_SYNC_FREQUENCY_S'] = '1'
    made.up('--stores', '1', '--nodes', '1')
    yield made
    made.down()
