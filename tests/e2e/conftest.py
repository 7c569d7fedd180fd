"""Clusters of real processes, started and stopped the way a person does it."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from kcore.env import Env
from kctl.local.claims import claims
from kctl.local.layout import Layout

ROOT = Path(__file__).resolve().parent.parent.parent
KUBECTL_VERSIONS = ('1.33', '1.32', '1.31', '1.30', '1.29', '1.28', '1.27')
OLDEST_MINOR = 27
COMMAND_TIMEOUT_S = 90


def kubectls() -> dict[str, str]:
    """Every kubectl found: `kubectl.1.32` on the PATH or beside the dispatcher that a `kubectl` may be, else that."""
    plain = shutil.which('kubectl')
    found = {}
    for version in KUBECTL_VERSIONS:
        beside = Path(plain).resolve().parent / f'kubectl.{version}' if plain else None
        path = shutil.which(f'kubectl.{version}') or (str(beside) if beside is not None and beside.exists() else None)
        if path:
            found[version] = path
    return found or ({'PATH': plain} if plain and _minor(plain) >= OLDEST_MINOR else {})


def _minor(kubectl: str) -> int:
    """1.20's `wait` knows no JSONPath, and it reads no OpenAPI v3: too old to speak for today's clients."""
    done = subprocess.run([kubectl, 'version', '--client', '-o', 'json'], capture_output=True, check=False, timeout=30)
    return int(json.loads(done.stdout)['clientVersion']['minor'].rstrip('+')) if done.returncode == 0 else 0


class LocalCluster:
    """A data directory, its ports, and the commands that a person would type."""

    def __init__(self, data: Path, port_base: int) -> None:
        self.data, self.port_base = data, port_base
        self.settings: dict[str, str] = {}
        """Environment variables that configure the components."""
        self.kubectl_path = next(iter(kubectls().values()), None)

    @property
    def environment(self) -> dict[str, str]:
        home = self.data.parent / 'home'
        home.mkdir(exist_ok=True)
        path = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
        return {
            'PATH': path, 'HOME': str(home), 'KUBECONFIG': str(self.data / 'kubeconfig'),
            'KAPI_AUDIT_LOG_PATH': str(self.data.parent / 'audit.log'), 'KAPI_AUDIT_POLICY_FILE': str(self._tell_all()),
            **self.settings,
        }  # fmt: skip

    def _tell_all(self) -> Path:
        """An audit policy that keeps what it may, so that the search for secrets after the run has much to read."""
        policy = self.data.parent / 'audit-policy.yaml'
        if not policy.exists():
            policy.write_text('rules: [{level: RequestResponse}]')
        return policy

    def run(self, *argv: str, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            argv, cwd=ROOT, env=self.environment, input=stdin, capture_output=True, text=True, check=False,
            timeout=COMMAND_TIMEOUT_S,
        )  # fmt: skip
        if check and done.returncode != 0:
            raise AssertionError(f'{" ".join(argv)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}')
        return done

    def kctl(self, *argv: str, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, '-m', 'kctl', *argv, check=check, stdin=stdin)

    def kubectl(self, *argv: str, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        if self.kubectl_path is None:
            pytest.skip('no kubectl from 1.27 on this machine')
        return self.run(self.kubectl_path, *argv, check=check, stdin=stdin)

    def up(self, *flags: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        where = ('--data-dir', str(self.data), '--port-base', str(self.port_base))
        return self.kctl('cluster', 'up', *where, *flags, check=check)

    def down(self) -> subprocess.CompletedProcess[str]:
        return self.kctl('cluster', 'down', '--data-dir', str(self.data))

    def kill(self, who: str, signal: str = 'KILL') -> str:
        return self.kctl('cluster', 'kill', who, '--data-dir', str(self.data), '--signal', signal).stdout

    def get(self, *what: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kctl('get', *what, '-o', 'json').stdout)
        return found

    def processes(self) -> list[psutil.Process]:
        """Everything alive that belongs to this data directory: components, shims, containers."""
        mine = []
        for process in psutil.process_iter():
            try:
                text = ' '.join(process.cmdline()) + str(process.environ().get('KUBELING_DATA', ''))
                held = [f.path for f in process.open_files()]
            except psutil.Error:
                continue
            if process.pid != os.getpid() and (str(self.data) in text or any(str(self.data) in f for f in held)):
                mine.append(process)
        return mine


PORT_BASES = range(20000, 30000, 100)


def is_free(base: int) -> bool:
    """Whether nobody has the addresses that a cluster with this port base would use first."""
    layout = Layout(Path(), port_base=base)
    if layout.block in {claim.block for claim in claims(Env.real())}:
        return False
    for address in (layout.address('api', 1), layout.address('store', 1), layout.address('node', 1)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError:
                return False
    return True


@pytest.fixture(scope='session')
def port_bases(worker_id: str) -> Iterator[int]:
    """Port bases for this test worker: a hundred ports and a block of addresses each, in use by nobody."""
    worker = int(worker_id.removeprefix('gw')) if worker_id.startswith('gw') else 9
    start = worker * 1000 % 10_000
    return (base for base in (*PORT_BASES[start // 100 :], *PORT_BASES[: start // 100]) if is_free(base))


@pytest.fixture
def new_cluster(tmp_path: Path, port_bases: Iterator[int]) -> Iterator[Callable[[], LocalCluster]]:
    """Makes clusters of a test's own; whatever still runs at its end is stopped."""
    made: list[LocalCluster] = []

    def make() -> LocalCluster:
        made.append(LocalCluster(tmp_path / f'cluster-{len(made)}', next(port_bases)))
        return made[-1]

    yield make
    for cluster in made:
        if (cluster.data / 'cluster.json').exists():
            cluster.down()


@pytest.fixture(scope='session')
def cluster(tmp_path_factory: pytest.TempPathFactory, port_bases: Iterator[int]) -> Iterator[LocalCluster]:
    """One cluster that the tests of a worker share; each test works in a namespace of its own."""
    shared = LocalCluster(tmp_path_factory.mktemp('shared') / 'cluster', next(port_bases))
    shared.up()
    yield shared
    shared.down()


@pytest.fixture
def namespace(cluster: LocalCluster, request: pytest.FixtureRequest) -> Iterator[str]:
    name = re.sub(r'[^a-z0-9]+', '-', request.node.name.lower()).strip('-')[-50:].strip('-')
    manifest = {'apiVersion': 'v1', 'kind': 'Namespace', 'metadata': {'name': name}}
    cluster.kctl('create', '-f', '-', stdin=json.dumps(manifest))
    yield name
    cluster.kctl('delete', 'namespace', name, '--wait=false')


@pytest.fixture(params=list(kubectls().items()) or [('none', '')], ids=lambda p: p[0])
def each_kubectl(
    request: pytest.FixtureRequest, cluster: LocalCluster
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command with each kubectl version found on the machine."""
    _, path = request.param
    if not path:
        pytest.skip('no kubectl from 1.27 on this machine')

    def run(*argv: str, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return cluster.run(path, *argv, check=check, stdin=stdin)

    return run
