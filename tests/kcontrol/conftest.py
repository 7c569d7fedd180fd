"""Fixtures: an API (the small fake, or the real one in this process), controllers on it, a pretended node agent."""

from __future__ import annotations

import asyncio
import importlib.util
import ipaddress
import json
import os
import socket
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kclient.api import Client
from kclient.discovery import discover
from kclient.errors import ApiError, NotFound
from kclient.informer import Informer
from kclient.kubeconfig import ClientConfig
from kcontrol.config import ControlConfig
from kcontrol.controllers import CONTROLLERS
from kcontrol.controllers.daemonset.placement import node_of
from kcontrol.runner import Runner, served_only
from kcore.env import Env
from kcore.meta.gvk import NODES, PODS
from kcore.meta.objects import deleting, key_of
from kcore.meta.times import format_time

GOLDEN = Path(__file__).parent.parent / 'golden' / 'plans'
NOW = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)


def _fake_api():
    name = 'fake_api'
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parent.parent / 'kclient' / 'fake_api.py')
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name].FakeApi()


@pytest.fixture
def env() -> Env:
    return Env.real(seed=1)


@pytest.fixture
def now() -> datetime:
    return NOW


@pytest.fixture
def ago():
    """RFC 3339 text of so many seconds before `now`."""
    return lambda seconds: format_time(NOW - timedelta(seconds=seconds))


@pytest.fixture
def golden():
    """Compare with a file under tests/golden/plans; KUBELING_GOLDEN=write regenerates it."""

    def check(name: str, value: object) -> None:
        path = GOLDEN / f'{name}.json'
        text = json.dumps(value, indent=1, sort_keys=True, default=list) + '\n'
        if os.environ.get('KUBELING_GOLDEN') == 'write':
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert path.read_text() == text, f'{path.name} differs; regenerate with KUBELING_GOLDEN=write and review'

    return check


@pytest.fixture
def until():
    async def wait(condition, deadline_s: float = 60.0):
        async with asyncio.timeout(deadline_s):
            while True:
                held = condition()
                if asyncio.iscoroutine(held):
                    held = await held
                if held:
                    return held
                await asyncio.sleep(0.02)

    return wait


# --- the two API servers ----------------------------------------------------------------------------------------


@pytest.fixture
async def fake():
    api = _fake_api()
    await api.start()
    for name in ('default', 'kube-system'):
        api.put('namespaces', {'metadata': {'name': name}, 'spec': {'finalizers': ['kubernetes']}})
    yield api
    await api.stop()


def _name(cn: str, org: str = '') -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, cn)]
    return x509.Name(attributes + ([x509.NameAttribute(NameOID.ORGANIZATION_NAME, org)] if org else []))


def _sign(subject: x509.Name, key, issuer: x509.Name, issuer_key, *, ca: bool) -> bytes:
    start = datetime.now(UTC) - timedelta(hours=1)
    builder = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(start)
        .not_valid_after(start + timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )  # fmt: skip
    if not ca:
        address = x509.IPAddress(ipaddress.ip_address('127.0.0.1'))
        builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope='session')
def pki(tmp_path_factory):
    """ca, serving and client certificates: name → PEM file."""
    folder = tmp_path_factory.mktemp('pki')
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = _name('test-ca')
    (folder / 'ca.crt').write_bytes(_sign(ca_name, ca_key, ca_name, ca_key, ca=True))
    names = {'api': ('kube-apiserver', ''), 'admin': ('admin', 'system:masters'),
             'manager': ('system:kube-controller-manager', ''), 'scheduler': ('system:kube-scheduler', '')}  # fmt: skip
    for name, (cn, org) in names.items():
        key = ec.generate_private_key(ec.SECP256R1())
        (folder / f'{name}.crt').write_bytes(_sign(_name(cn, org), key, ca_name, ca_key, ca=False))
        pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        (folder / f'{name}.key').write_bytes(key.private_bytes(*pem))
    return folder


@pytest.fixture
async def kapi(pki, env, monkeypatch):
    """The real API server over memory://, in this process. Yields user name → ClientConfig."""
    from kapi.app import run
    from kapi.config import ApiConfig

    monkeypatch.setattr('kapi.app.SHUTDOWN_S', 0.05)

    with socket.create_server(('127.0.0.1', 0)) as probe:
        port = probe.getsockname()[1]
    config = ApiConfig(
        listen=f'127.0.0.1:{port}', storage='memory://', tls_cert=pki / 'api.crt', tls_key=pki / 'api.key',
        client_ca=pki / 'ca.crt',
    )  # fmt: skip
    ready = asyncio.Event()
    task = asyncio.ensure_future(run(config, env, ready.set))
    waiting = asyncio.ensure_future(ready.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()

    def user(name: str) -> ClientConfig:
        return ClientConfig(
            (f'https://127.0.0.1:{port}',), (pki / 'ca.crt').read_bytes(), (pki / f'{name}.crt').read_bytes(),
            (pki / f'{name}.key').read_bytes(),
        )  # fmt: skip

    yield user
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(params=['fake', 'kapi'])
def config_of(request):
    """user name → ClientConfig, on either API."""
    if request.param == 'kapi':
        return request.getfixturevalue('kapi')
    api = request.getfixturevalue('fake')
    return lambda _user: ClientConfig((api.url,), ca_data=b'CA')


@pytest.fixture
async def admin(config_of, env):
    async with Client(config_of('admin'), env, user_agent='admin') as client:
        yield client


# --- controllers and a pretended node agent ------------------------------------------------------------------------


@pytest.fixture
async def background():
    """Start coroutines that end with the test."""
    tasks: list[asyncio.Task] = []

    def start(coro) -> asyncio.Task:
        tasks.append(asyncio.ensure_future(coro))
        return tasks[-1]

    yield start
    for task in reversed(tasks):
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Agent:
    """Binds pods to its node, calls them ready, and lets deleted ones go."""

    def __init__(self, client: Client, node: str) -> None:
        self.client, self.node = client, node
        self.has_bindings = client.config.servers[0].startswith('https')
        """The small fake has none."""
        self.nodes = {node}
        """All nodes that it plays; unbound pods go where their affinity says, else to the first."""
        self.ready = True
        """Whether pods become ready."""
        self.healthy = lambda pod: True
        """The same, pod by pod."""
        self.binds = True
        """Whether it plays the scheduler, too."""
        self.alive = True
        self.finish = lambda pod: None
        """The phase in which a running pod ends, or None."""
        self.pods = Informer(client, PODS)
        self._work: asyncio.Queue[str] = asyncio.Queue()
        self.lowest_available = 10**6
        self.watch_label = ''

    async def run(self) -> None:
        await self._register(self.node)
        self.pods.on_change(self._changed)
        async with asyncio.TaskGroup() as group:
            group.create_task(self.pods.run())
            group.create_task(self._loop())

    async def join(self, *nodes: str) -> None:
        for node in nodes:
            await self._register(node)
            self.nodes.add(node)

    async def _register(self, node: str) -> None:
        """Without the taint that a new node carries until it is ready."""
        await self.client.create(NODES, {'metadata': {'name': node}})
        await self.client.patch(NODES, node, {'spec': {'taints': None}})

    def _changed(self, old, new) -> None:
        self._work.put_nowait(key_of(new if new is not None else old))

    def available(self, label: str) -> int:
        return sum(
            p['metadata'].get('labels', {}).get('app') == label and not deleting(p)
            and any(c['type'] == 'Ready' and c['status'] == 'True' for c in p.get('status', {}).get('conditions', ()))
            for p in self.pods.store.list()
        )  # fmt: skip

    def poke(self) -> None:
        for key in self.pods.store:
            self._work.put_nowait(key)

    def place(self, pod) -> str:
        """The node for a pod that says nothing of nodes."""
        return self.node

    def _becomes_ready(self, pod) -> bool:
        fresh = not pod.get('status', {}).get('podIP') and not deleting(pod)
        return fresh and self.ready and self.healthy(pod)

    async def _loop(self) -> None:
        number = 0
        while True:
            key = await self._work.get()
            pod = self.pods.store.get(key)
            if pod is None or not self.alive:
                continue
            number += 1
            try:
                await self._advance(pod, number)
            except (NotFound, ApiError):
                continue

    async def _advance(self, pod, number: int) -> None:
        meta, bound = pod['metadata'], pod['spec'].get('nodeName')
        if bound not in (None, '') and bound not in self.nodes:
            return
        if deleting(pod) and bound:
            await self.client.delete(PODS, meta['name'], meta['namespace'], grace_period_s=0, uid=meta['uid'])
        elif not bound and self.binds and not deleting(pod):
            named = {'name': meta['name'], 'namespace': meta['namespace']}
            binding = {
                'apiVersion': 'v1', 'kind': 'Binding', 'metadata': named,
                'target': {'apiVersion': 'v1', 'kind': 'Node', 'name': node_of(pod) or self.place(pod)},
            }  # fmt: skip
            if self.has_bindings:
                await self.client.create(PODS, binding, subresource='binding')
            else:
                await self.client.patch(PODS, meta['name'], {'spec': {'nodeName': self.node}}, meta['namespace'])
        elif bound and self._becomes_ready(pod):
            stamp = format_time(self.client.env.clock.wall())
            ready = {'type': 'Ready', 'status': 'True', 'lastTransitionTime': stamp}
            status = {
                'phase': self.finish(pod) or 'Running',
                'podIP': f'127.64.{number // 250}.{number % 250 + 1}',
                'startTime': stamp,
                'conditions': [ready],
            }
            await self.client.patch(PODS, meta['name'], {'status': status}, meta['namespace'], subresource='status')


@pytest.fixture
async def agent(admin, background, until):
    agent = Agent(admin, 'node-1')
    background(agent.run())
    await until(lambda: agent.pods.has_synced)
    return agent


@pytest.fixture
def settings(tmp_path):
    def make(**changes) -> ControlConfig:
        return ControlConfig(**{'kubeconfig': tmp_path / 'unused', 'identity': 'test', **changes})

    return make


@pytest.fixture
async def controllers(config_of, env, settings, background, until):
    """Run all controllers, or those named."""
    started: list[tuple[Client, asyncio.Task]] = []

    async def start(*names: str, **changes) -> Runner:
        client = Client(config_of('manager'), env, user_agent='manager')
        chosen = [declared for declared in CONTROLLERS if not names or declared.name in names]
        runner = Runner(client, env, settings(**changes), served_only(chosen, await discover(client)))
        started.append((client, background(runner.run())))
        return runner

    yield start
    for client, task in started:  # a runner that ends sends its last events, which takes an open client
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.close()


@pytest.fixture
async def exists():
    async def ask(client: Client, resource, name: str, namespace: str | None = None):
        try:
            return await client.get(resource, name, namespace)
        except NotFound:
            return None

    return ask
