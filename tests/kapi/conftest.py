"""Fixtures: a certificate authority, an API server on a real TLS socket, and a small client for it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import io
import ipaddress
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kapi.app import tls_context
from kapi.config import ApiConfig
from kapi.server import bootstrap
from kapi.server.listener import Listener
from kapi.server.service import ApiServer
from kapi.storage.urls import open_storage
from kcore import tasks
from kcore.env import Env

Obj = dict[str, Any]


class Authority:
    """A CA that writes certificates into a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, 'test-ca')])
        self.now = datetime.datetime.now(datetime.UTC)
        basic = x509.BasicConstraints(ca=True, path_length=None)
        self.cert = self._build(self.name, self.key).add_extension(basic, critical=True).sign(self.key, hashes.SHA256())
        (directory / 'ca.crt').write_bytes(self.cert.public_bytes(serialization.Encoding.PEM))

    def _build(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        day = datetime.timedelta(days=1)
        return (
            x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(self.now - day).not_valid_after(self.now + day)
        )  # fmt: skip

    def issue(self, file: str, user: str, *groups: str, host: str = 'localhost') -> tuple[Path, Path]:
        cert_path, key_path = self.directory / f'{file}.crt', self.directory / f'{file}.key'
        if cert_path.exists():
            return cert_path, key_path
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, g) for g in groups]
        subject = x509.Name([*names, x509.NameAttribute(NameOID.COMMON_NAME, user)])
        alternatives = [x509.DNSName(host), x509.IPAddress(ipaddress.ip_address('127.0.0.1'))]
        built = self._build(subject, key).add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        cert = built.sign(self.key, hashes.SHA256())
        cert_path.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        form, plain = serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        key_path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
        return cert_path, key_path


@pytest.fixture(scope='session')
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp('pki'))


class Api:
    """A client of one server as one user: `await api.get(path)` gives a reply with `.status`, `.json`, `.headers`."""

    def __init__(self, base: str, session: aiohttp.ClientSession) -> None:
        self.base = base
        self.session = session

    async def call(self, method: str, path: str, body: Any = None, **kw: Any) -> SimpleNamespace:
        headers = dict(kw.pop('headers', {}))
        if body is not None and not isinstance(body, bytes):
            body = orjson.dumps(body)
        if body is not None:
            headers.setdefault('Content-Type', kw.pop('content_type', 'application/json'))
            body = io.BytesIO(body) if len(body) > 1_000_000 else body
        async with self.session.request(method, self.base + path, data=body, headers=headers, **kw) as reply:
            data = await reply.read()
            is_json = reply.content_type == 'application/json' and data
            found = orjson.loads(data) if is_json else None
            return SimpleNamespace(status=reply.status, json=found, text=data.decode(), headers=reply.headers)

    async def get(self, path: str, **kw: Any) -> SimpleNamespace:
        return await self.call('GET', path, **kw)

    async def post(self, path: str, body: Any, **kw: Any) -> SimpleNamespace:
        return await self.call('POST', path, body, **kw)

    async def put(self, path: str, body: Any, **kw: Any) -> SimpleNamespace:
        return await self.call('PUT', path, body, **kw)

    async def delete(self, path: str, body: Any = None, **kw: Any) -> SimpleNamespace:
        return await self.call('DELETE', path, body, **kw)

    async def patch(self, path: str, body: Any, kind: str = 'merge-patch', **kw: Any) -> SimpleNamespace:
        suffix = 'yaml' if kind == 'apply-patch' else 'json'
        return await self.call('PATCH', path, body, content_type=f'application/{kind}+{suffix}', **kw)

    @contextlib.asynccontextmanager
    async def watch(self, path: str, **kw: Any) -> AsyncIterator[Callable[[], Any]]:
        """`async with api.watch(path) as event: e = await event()`."""
        async with self.session.get(self.base + path, **kw) as reply:
            assert reply.status == 200, await reply.text()

            async def event() -> Obj:
                async with asyncio.timeout(10):
                    line = await reply.content.readline()
                if not line:
                    raise EOFError
                return orjson.loads(line)

            yield event


@contextlib.asynccontextmanager
async def serving(authority: Authority, storage: Any = None, **settings: Any) -> AsyncIterator[SimpleNamespace]:
    env = Env.real(seed=1)
    cert, key = authority.issue('server', 'kubernetes')
    ca = authority.directory / 'ca.crt'
    config = ApiConfig(listen='127.0.0.1:0', tls_cert=cert, tls_key=key, client_ca=ca, **settings)
    server = ApiServer(config, env, storage or open_storage('memory://', env))
    await server.cache.start()
    follower = tasks.start_detached('cache', server.cache.run())
    await bootstrap.bootstrap(server)
    listener = Listener(server.handle, turns=server.fairness.turns)
    runner = web.ServerRunner(listener, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, '127.0.0.1', 0, ssl_context=tls_context(config, env))
    await site.start()
    base = f'https://127.0.0.1:{runner.addresses[0][1]}'
    async with contextlib.AsyncExitStack() as stack:

        async def user(name: str = '', *groups: str) -> Api:
            tls = ssl.create_default_context(cafile=str(ca))
            if name:
                tls.load_cert_chain(
                    *authority.issue(
                        f'user-{name.replace(":", "-")}-{"-".join(groups).replace(":", "-")}', name, *groups
                    )
                )
            connector = aiohttp.TCPConnector(ssl=tls, limit=0)
            return Api(base, await stack.enter_async_context(aiohttp.ClientSession(connector=connector)))

        yield SimpleNamespace(server=server, base=base, user=user, config=config)
    await runner.cleanup()
    await tasks.stop(follower)
    await server.close()


@pytest.fixture(scope='session')
def serve(authority: Authority) -> Callable[..., Any]:
    def start(storage: Any = None, **settings: Any) -> Any:
        return serving(authority, storage, **settings)

    return start


@pytest.fixture
async def world(serve: Callable[..., Any]) -> AsyncIterator[SimpleNamespace]:
    async with serve() as running:
        yield running


@pytest.fixture
async def api(world: SimpleNamespace) -> Api:
    return await world.user('admin', 'system:masters')


@pytest.fixture
def env() -> Env:
    return Env.real(seed=1)
