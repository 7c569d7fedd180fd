"""What one request costs on its way through the API server, stage by stage, in microseconds; no socket, one process.

The caller shows a client certificate and is allowed by RBAC, as a controller is, so every stage has its usual work.
Figures are medians over single calls, which a busy machine disturbs little.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import orjson
import uvloop
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from multidict import CIMultiDict

from bench.api import PODS, pod
from bench.common import Figures, Settings, emit, now
from kapi.admission.chain import Attributes, Chain
from kapi.config import ApiConfig
from kapi.server import bootstrap, requestinfo
from kapi.server.context import Context, Reply
from kapi.server.pipeline import PIPELINE
from kapi.server.respond import finish
from kapi.server.service import ApiServer
from kapi.storage.urls import open_storage
from kcore import tasks
from kcore.env import Env
from kctl.local.pki import Authority, Leaf

CALLS, SMOKE_CALLS = 3_000, 30
WARM_CALLS = 20
MERGE = 'application/merge-patch+json'
Samples = dict[str, list[float]]
Make = Callable[[int], tuple[str, str, bytes, str]]
"""From the turn to method, path, body and media type."""
CHAIN = ('authenticate', 'audit', 'fairness', 'in_flight_limit', 'impersonate', 'authorize')
"""The stages that judge a request before it is handled; with admission they are the chain."""


class Body:
    """A request body that has arrived."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def at_eof(self) -> bool:
        return not self._data

    async def iter_any(self) -> AsyncIterator[bytes]:
        yield self._data


class TimedChain:
    """The admission chain, and how long it took."""

    def __init__(self, inner: Chain, samples: Samples) -> None:
        self._inner, self._samples = inner, samples

    async def mutate(self, a: Attributes) -> None:
        await self._timed('admission mutate', self._inner.mutate(a))

    async def validate(self, a: Attributes) -> None:
        await self._timed('admission validate', self._inner.validate(a))

    async def _timed(self, name: str, call: Awaitable[None]) -> None:
        begun = now()
        await call
        self._samples.setdefault(name, []).append(now() - begun)


@asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[tuple[ApiServer, bytes]]:
    """A server on memory, and the certificate of a user whom RBAC lets edit everything."""
    env = Env.real(seed=1)
    authority = Authority(directory, env)
    cert, key = authority.ensure(Leaf('apiserver', 'kube-apiserver', serves=('127.0.0.1',)))
    dev, _ = authority.ensure(Leaf('dev', 'dev', groups=('devs',)))
    flags = ['--tls-cert', str(cert), '--tls-key', str(key), '--client-ca', str(authority.file)]
    config = ApiConfig.load(flags, prog='bench')
    server = ApiServer(config, env, open_storage('memory://', env))
    await server.cache.start()
    follower = tasks.start_detached('cache', server.cache.run())
    await bootstrap.bootstrap(server)
    group = 'rbac.authorization.k8s.io'
    binding = {
        'apiVersion': f'{group}/v1', 'kind': 'ClusterRoleBinding', 'metadata': {'name': 'devs', 'uid': 'u'},
        'roleRef': {'kind': 'ClusterRole', 'name': 'edit', 'apiGroup': group},
        'subjects': [{'kind': 'Group', 'name': 'devs', 'apiGroup': group}],
    }  # fmt: skip
    await server.cache.create(f'/registry/{group}/clusterrolebindings/devs', orjson.dumps(binding))
    await server.cache.fresh()
    try:
        yield server, x509.load_pem_x509_certificate(dev.read_bytes()).public_bytes(Encoding.DER)
    finally:
        await tasks.stop(follower)
        await server.close()


def incoming(der: bytes, method: str, path: str, body: bytes, media: str) -> web.BaseRequest:
    tls = SimpleNamespace(getpeercert=lambda binary: der)
    transport = SimpleNamespace(get_extra_info=lambda name, default=None: tls if name == 'ssl_object' else default)
    headers = CIMultiDict({'Accept': 'application/json', 'User-Agent': 'bench/1', 'Content-Type': media,
                           'Content-Length': str(len(body)), 'Host': 'x'})  # fmt: skip
    return make_mocked_request(method, path, headers, transport=cast(Any, transport), payload=cast(Any, Body(body)))


def context(server: ApiServer, raw: web.BaseRequest) -> Context:
    return Context(server, raw, requestinfo.of(raw.method, raw.raw_path), server.env.new_uid())


async def once(server: ApiServer, raw: web.BaseRequest, samples: Samples, wanted: int) -> None:
    """One request as `pipeline.serve` does it, each stage timed."""
    begun = last = now()

    def lap(name: str) -> None:
        nonlocal last
        samples.setdefault(name, []).append((at := now()) - last)
        last = at

    ctx = context(server, raw)
    lap('parse')
    async with asyncio.timeout(None) as ctx.deadline:
        for stage in PIPELINE:
            await stage(ctx)
            lap('handler' if stage.__name__ == 'dispatch' else stage.__name__)
    server.deadlines.drop(ctx.deadline)
    for undo in ctx.on_exit:
        undo()
    lap('leave')
    reply = ctx.reply
    assert isinstance(reply, Reply), 'an object, not a stream'
    assert reply.status == wanted, reply.body
    await finish(ctx, reply)
    lap('finish')
    samples.setdefault('total', []).append(last - begun)


async def measure(settings: Settings, case: str, make: Make, wanted: int) -> None:
    count = SMOKE_CALLS if settings.smoke else CALLS
    samples: Samples = {}
    with tempfile.TemporaryDirectory(prefix='bench-chain-') as directory:
        async with serving(Path(directory)) as (server, der):
            server.registry.admission = cast(Chain, TimedChain(server.registry.admission, samples))
            seed = incoming(der, 'POST', PODS, pod('seed'), 'application/json')
            await once(server, seed, samples, 201)
            for i in range(-WARM_CALLS, count):
                if i == 0:
                    samples.clear()
                method, path, body, media = make(i)
                await once(server, incoming(der, method, path, body, media), samples, wanted)
    figures = Figures()
    medians = {name: statistics.median(times) * 1e6 for name, times in samples.items()}
    figures.add(chain_us=sum(us for name, us in medians.items() if name in CHAIN or name.startswith('admission')))
    figures.add(**{f'{name.replace(" ", "_")}_us': us for name, us in medians.items()})
    emit('chain', case, figures)


def cases() -> dict[str, tuple[Make, int]]:
    note = b'{"metadata":{"annotations":{"turn":"%d"}}}'
    return {
        'get': (lambda i: ('GET', f'{PODS}/seed', b'', 'application/json'), 200),
        'create': (lambda i: ('POST', PODS, pod(f'p{i}'), 'application/json'), 201),
        'patch': (lambda i: ('PATCH', f'{PODS}/seed', note % (i + WARM_CALLS), MERGE), 200),
    }


def run(settings: Settings) -> None:
    for case, (make, wanted) in cases().items():
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(measure(settings, case, make, wanted))
