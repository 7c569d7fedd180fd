"""A real API server on memory:// in a thread, and `kctl` called in this process against it."""

from __future__ import annotations

import asyncio
import io
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from kapi.app import run as run_api
from kapi.config import ApiConfig
from kcore.env import Env
from kctl.local.pki import Authority, Leaf, kubeconfig
from kctl.main import main

Kctl = Callable[..., SimpleNamespace]


@pytest.fixture(scope='session')
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The kubeconfig of a server that lives as long as the tests."""
    folder = tmp_path_factory.mktemp('api')
    env = Env.real()
    authority = Authority(folder, env)
    cert, key = authority.ensure(Leaf('api', 'kube-apiserver', serves=('localhost', '127.0.0.1')))
    admin = authority.ensure(Leaf('admin', 'kubernetes-admin', ('system:masters',)))
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    config = ApiConfig(
        listen=f'127.0.0.1:{port}', storage='memory://', tls_cert=cert, tls_key=key, client_ca=folder / 'ca.crt'
    )
    path = folder / 'kubeconfig'
    pems = [env.disk.read(p) for p in admin]
    path.write_bytes(kubeconfig([f'https://127.0.0.1:{port}'], authority.certificate_pem, *pems, 'kubernetes-admin'))
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    task = loop.create_task(run_api(config, env, ready.set))

    def serve() -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            left = asyncio.all_tasks(loop)
            for other in left:
                other.cancel()
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()

    thread = threading.Thread(target=serve)
    thread.start()
    assert ready.wait(30)
    yield path
    loop.call_soon_threadsafe(task.cancel)
    thread.join(10)


@pytest.fixture
def kctl(server: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Kctl:
    """`kctl('get', 'pods')` → code, out, err."""
    monkeypatch.setenv('KUBECONFIG', str(server))

    def call(*args: str, stdin: str = '') -> SimpleNamespace:
        monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(io.BytesIO(stdin.encode())))
        capfdbinary.readouterr()
        code = main(args)
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        return SimpleNamespace(code=code, out=out.decode(), err=err.decode())

    return call


@pytest.fixture
def space(kctl: Kctl, request: pytest.FixtureRequest) -> Kctl:
    """`kctl` in a namespace of its own."""
    name = 'n' + str(abs(hash(request.node.nodeid)))[:12]
    assert kctl('create', 'namespace', name).code == 0

    def call(*args: str, stdin: str = '') -> SimpleNamespace:
        return kctl('-n', name, *args, stdin=stdin)

    return call
