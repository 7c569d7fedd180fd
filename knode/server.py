"""The kubelet's own HTTPS API: logs, health, pods; streams are in `knode.streams`, figures in `knode.stats`.

Who may use it is `knode.access`'s matter. Beside it, when asked for: `/healthz` for those who only want to know whether
the agent lives, and an open, read-only part without TLS. Errors are plain text with kubelet's words, which the API
server turns into a Status.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web
from multidict import CIMultiDict

from kcore.config import split_address
from kcore.env import Env
from kcore.meta.times import parse_time
from kcore.tls import Identity
from knode.access import Access
from knode.config import NodeConfig
from knode.errors import BadRequestError, NotFoundError, ProtocolRefused
from knode.logs import LogOptions, read_log
from knode.pods.manager import PodManager
from knode.pods.model import containers_of
from knode.pods.worker import PodWorker
from knode.runtime.driver import Record
from knode.stats.handlers import StatsHandlers
from knode.streams.handlers import StreamHandlers
from knode.traffic import Traffic

log = structlog.get_logger('knode.server')

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class NodeServer:
    def __init__(self, config: NodeConfig, env: Env, manager: PodManager, stats: StatsHandlers, access: Access) -> None:
        self._config, self._env, self._manager, self._stats, self._access = config, env, manager, stats, access
        self._traffic = Traffic(env.clock, stats.registry)
        self._runners: list[web.AppRunner] = []
        self.port = 0

    async def start(self) -> None:
        """Raises OSError when the address is taken or a certificate cannot be read."""
        config = self._config
        if config.healthz_listen:
            health = web.Application()
            self._add_health(health)
            await self._listen(health, config.healthz_listen, None)
        if config.read_only_listen:
            await self._listen(
                self._reading(web.Application(middlewares=[self._traffic.counted('readonly'), _errors])),
                config.read_only_listen,
                None,
            )
        app = self._reading(web.Application(middlewares=[self._traffic.counted('readwrite'), self._guard, _errors]))
        app.router.add_get('/containerLogs/{namespace}/{pod}/{container}', self._logs)
        app.router.add_get('/configz', self._stats.configz)
        app.router.add_get('/runningpods/', self._running_pods)
        app.router.add_get('/runningpods', self._running_pods)
        app.router.add_post('/checkpoint/{namespace}/{pod}/{container}', self._checkpoint)
        StreamHandlers(self._manager).add_routes(app.router)
        self.port = await self._listen(app, config.listen, self._tls())

    def _reading(self, app: web.Application) -> web.Application:
        """What anybody may see where somebody has opened a read-only port."""
        self._add_health(app)
        app.router.add_get('/pods', self._pods)
        self._stats.add_routes(app.router)
        return app

    def _add_health(self, app: web.Application) -> None:
        for path in ('/healthz', '/healthz/ping'):
            app.router.add_get(path, self._healthz)

    async def _listen(self, app: web.Application, address: str, tls: ssl.SSLContext | None) -> int:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        self._runners.append(runner)
        host, port = split_address(address)
        await web.TCPSite(runner, host, port, ssl_context=tls).start()
        return int(runner.addresses[0][1])

    def _tls(self) -> ssl.SSLContext | None:
        c = self._config
        if c.tls_cert is None or c.tls_key is None or c.client_ca is None:
            return None
        # Who shows no certificate may still have a token.
        wanted = ssl.CERT_OPTIONAL if c.authorization_mode == 'Webhook' else ssl.CERT_REQUIRED
        return Identity(self._env, (c.tls_cert, c.tls_key), (c.client_ca,), client_certificates=wanted).server()

    async def close(self) -> None:
        for runner in self._runners:
            await runner.cleanup()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        return await self._access.refusal(request) or await handler(request)

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.Response(text='ok')

    async def _pods(self, request: web.Request) -> web.Response:
        return _pod_list([{**w.pod, 'status': w.status} for w in self._manager.workers.values()])

    async def _running_pods(self, request: web.Request) -> web.Response:
        """What the runtime knows, whatever the API says."""
        items = []
        for worker in self._manager.workers.values():
            running = [r for records in worker.records().values() for r in records if r.running]
            meta = {k: worker.pod['metadata'][k] for k in ('name', 'namespace', 'uid')}
            containers = [{'name': r.name, 'image': r.meta.get('image', ''), 'resources': {}} for r in running]
            if containers:
                items.append({'metadata': meta, 'spec': {'containers': containers}, 'status': {}})
        return _pod_list(items)

    async def _checkpoint(self, request: web.Request) -> web.Response:
        """Processes of a host cannot be frozen to disk; the answer is that of a runtime without this ability."""
        where = request.match_info
        worker, container = self._manager.find(where['namespace'], where['pod']), where['container']
        if worker is None:
            raise NotFoundError('pod does not exist')
        if container not in {c['name'] for c, _ in containers_of(worker.pod['spec'])}:
            raise NotFoundError(f'container {container} does not exist')
        why = 'rpc error: code = Unimplemented desc = method CheckpointContainer not implemented'
        text = f'checkpointing of {where["namespace"]}/{where["pod"]}/{container} failed ({why})'
        return web.Response(status=500, text=text)

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        where = request.match_info
        worker = self._manager.find(where['namespace'], where['pod'])
        if worker is None:
            raise NotFoundError(f'pod "{where["pod"]}" not found\n')
        options = log_options(request.query, self._env)
        record = find_record(worker, where['container'], previous=_flag(request.query, 'previous'))
        response = web.StreamResponse(headers={'Content-Type': 'text/plain'})
        response.enable_chunked_encoding()
        await response.prepare(request)
        changed = asyncio.Event()
        worker.listeners.add(changed)
        try:
            async for text in read_log(Path(record.log), options, lambda: _ended(worker, record), changed):
                await response.write(text)
            await response.write_eof()
        except ConnectionError:
            log.debug('log reader left', object=worker.key)
        finally:
            worker.listeners.discard(changed)
        return response


def _pod_list(items: Sequence[Mapping[str, Any]]) -> web.Response:
    return web.json_response({'kind': 'PodList', 'apiVersion': 'v1', 'metadata': {}, 'items': items})


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except NotFoundError as e:
        return web.Response(status=404, text=str(e))
    except (BadRequestError, ValueError) as e:
        return web.Response(status=400, text=str(e))
    except ProtocolRefused as e:
        return web.Response(status=403, text=str(e), headers=CIMultiDict(e.headers))


def _ended(worker: PodWorker, record: Record) -> bool:
    return not any(r.id == record.id and r.running for rs in worker.records().values() for r in rs)


def _flag(query: Mapping[str, str], name: str) -> bool:
    return query.get(name, '').lower() in {'true', '1', 't'}


def log_options(query: Mapping[str, str], env: Env) -> LogOptions:
    """Raises BadRequestError naming the parameter."""
    numbers: dict[str, int | None] = {}
    for name in ('tailLines', 'limitBytes', 'sinceSeconds'):
        try:
            numbers[name] = int(query[name]) if query.get(name) else None
        except ValueError:
            raise BadRequestError(f'{name}: must be a whole number, not {query[name]!r}') from None
    since = None
    if numbers['sinceSeconds'] is not None:
        since = env.clock.wall() - timedelta(seconds=numbers['sinceSeconds'])
    elif query.get('sinceTime'):
        since = parse_time(query['sinceTime'])
    stream = query.get('stream') or 'All'
    if stream not in {'All', 'Stdout', 'Stderr'}:
        raise BadRequestError(f'stream: must be All, Stdout or Stderr, not {stream!r}')
    return LogOptions(
        follow=_flag(query, 'follow'), timestamps=_flag(query, 'timestamps'), tail_lines=numbers['tailLines'],
        limit_bytes=numbers['limitBytes'], since=since, stream=stream,
    )  # fmt: skip


def find_record(worker: PodWorker, container: str, *, previous: bool) -> Record:
    """The attempt whose log is asked for. Raises BadRequestError, NotFoundError in kubelet's words."""
    name = worker.pod['metadata']['name']
    spec = worker.pod['spec']
    known = [c['name'] for key in ('containers', 'initContainers', 'ephemeralContainers') for c in spec.get(key) or ()]
    if container not in known:
        raise BadRequestError(f'container {container} is not valid for pod {name}')
    records = worker.records().get(container) or []
    if previous:
        older = records[:-1] if records and (records[-1].running or len(records) > 1) else records
        if not older:
            raise BadRequestError(f'previous terminated container "{container}" in pod "{name}" not found')
        return older[-1]
    if not records:
        raise BadRequestError(
            f'container "{container}" in pod "{name}" is waiting to start: {_waiting(worker, container)}'
        )
    return records[-1]


def _waiting(worker: PodWorker, container: str) -> str:
    wait = worker.view().waits.get(container)
    if wait is None:
        return 'PodInitializing' if worker.pod['spec'].get('initContainers') else 'ContainerCreating'
    if wait.reason in {'ErrImagePull', 'ImagePullBackOff'}:
        return 'trying and failing to pull image'
    if wait.reason == 'InvalidImageName':
        return 'image name is invalid'
    return wait.reason
