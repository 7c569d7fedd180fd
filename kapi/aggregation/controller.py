"""APIServices kept true: one for every group that is served here, and a probe of every server that is elsewhere.

Every API server runs this and writes the same. Source: kube-aggregator pkg/controllers/{autoregister,status/remote}.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import aiohttp
import orjson
import structlog

from kapi.aggregation.aggregator import PREFIX, Remote
from kapi.aggregation.endpoints import EndpointUnknown
from kapi.aggregation.trust import publish_trust
from kapi.authn.user import SYSTEM
from kapi.dialed import said
from kapi.errors import AlreadyExists, ApiError, NotFound
from kapi.kinds.apiregistration.apiservice import KIND
from kapi.registry.options import DeleteOptions, WriteOptions
from kapi.registry.store import Write
from kapi.storage.base import StorageError
from kapi.storage.watchers import Overflow
from kcore.meta.objects import condition_is, get_condition, set_condition

if TYPE_CHECKING:
    from kapi.server.service import ApiServer

Obj = dict[str, Any]
log = structlog.get_logger('kapi.aggregation')

PROBE_INTERVAL_S = 5.0
"""How often a remote server is asked whether it is there."""
PROBE_TIMEOUT_S = 5.0
PROBE_BYTES_MAX = 4 * 1024 * 1024
"""A larger discovery document is not read."""
MANAGED = 'kube-aggregator.kubernetes.io/automanaged'
LOCAL_PRIORITY = 17_900
CUSTOM_PRIORITY = 1_000
AGGREGATED = 'application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json'


@dataclass(frozen=True, slots=True)
class Health:
    """The Available condition of one remote server."""

    status: str
    reason: str
    message: str


PASSED = Health('True', 'Passed', 'all checks passed')


class ApiServices:
    """The control loop over all APIServices."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self._generation = -1

    async def run(self) -> NoReturn:
        await publish_trust(self._server)
        cache = self._server.cache
        while True:
            watcher = cache.subscribe(PREFIX, PREFIX, cache.revision, None)
            try:
                while True:
                    await self._pass()
                    try:
                        async with asyncio.timeout(PROBE_INTERVAL_S):
                            await watcher.take()
                    except TimeoutError:
                        continue
            except Overflow:
                continue
            finally:
                cache.unsubscribe(PREFIX, PREFIX, watcher)

    async def _pass(self) -> None:
        server = self._server
        server.custom.sync()
        try:
            if self._generation != server.catalog.generation or self._damaged():
                generation = server.catalog.generation
                await self._register_local()
                self._generation = generation
            await asyncio.gather(*(self._probe(r) for r in server.aggregator.remotes()))
        except (ApiError, StorageError) as e:
            log.warning('APIServices were not brought up to date', err=str(e))

    # — local groups —

    def _wanted(self) -> dict[str, Obj]:
        """Name → APIService of every group and version in the catalog."""
        found: dict[str, Obj] = {}
        for kind in self._server.catalog:
            r = kind.resource
            name = f'{r.version}.{r.group}'
            if name in found:
                continue
            custom = kind.conversion is not None
            found[name] = {
                'apiVersion': KIND.resource.api_version,
                'kind': KIND.resource.kind,
                'metadata': {'name': name, 'labels': {MANAGED: 'true' if custom else 'onstart'}},
                'spec': {
                    'group': r.group, 'version': r.version, 'versionPriority': 100 if custom else 15,
                    'groupPriorityMinimum': CUSTOM_PRIORITY if custom else LOCAL_PRIORITY,
                },
            }  # fmt: skip
        return found

    def _damaged(self) -> bool:
        """Whether somebody took away or has not yet settled an APIService of ours."""
        entries = self._server.cache.resource(PREFIX).entries
        ours = [e.obj for e in entries.values() if MANAGED in (e.obj['metadata'].get('labels') or {})]
        return not all(condition_is(o, 'Available') for o in ours) or len(ours) < len(self._wanted())

    async def _register_local(self) -> None:
        server = self._server
        wanted, entries = self._wanted(), server.cache.resource(PREFIX).entries
        await asyncio.gather(*(self._create(o) for n, o in wanted.items() if PREFIX + n not in entries))
        for entry in list(entries.values()):
            name, labels = entry.obj['metadata']['name'], entry.obj['metadata'].get('labels') or {}
            if labels.get(MANAGED) == 'true' and name not in wanted:
                try:
                    await server.registry.delete(KIND, '', name, DeleteOptions(), Write(SYSTEM))
                except NotFound:
                    continue
            elif not (entry.obj.get('spec') or {}).get('service') and not condition_is(entry.obj, 'Available'):
                why = 'Local APIServices are always available'
                await self._set(name, Health('True', 'Local', why))

    async def _create(self, obj: Obj) -> None:
        write = Write(SYSTEM, WriteOptions(field_manager='kube-apiserver'))
        try:
            await self._server.registry.create(KIND, '', obj, write)
        except AlreadyExists:
            return  # another API server was faster

    # — remote groups —

    async def _probe(self, remote: Remote) -> None:
        health = await self._health(remote)
        await self._set(remote.name, health)
        if health.status == 'True':
            await self._learn(remote)

    async def _health(self, remote: Remote) -> Health:
        backend = remote.backend
        path = f'/apis/{remote.group}/{remote.version}'
        try:
            url = self._server.transport.url(backend, path)
        except EndpointUnknown as e:
            reason = 'ServiceNotFound' if 'not found' in str(e) else 'MissingEndpoints'
            if 'service port' in str(e):
                reason = 'ServicePortError'
            return Health('False', reason, str(e))
        try:
            status, _ = await self._fetch(remote, path)
        except TimeoutError:
            return Health('False', 'FailedDiscoveryCheck', _failed(url, 'context deadline exceeded'))
        except (aiohttp.ClientError, ssl.SSLError, OSError) as e:
            return Health('False', 'FailedDiscoveryCheck', _failed(url, said(e)))
        if not 200 <= status < 300:
            return Health(
                'False',
                'FailedDiscoveryCheck',
                f'failing or missing response from {url}: bad status from {url}: {status}',
            )
        return PASSED

    async def _fetch(self, remote: Remote, path: str, accept: str = 'application/json') -> tuple[int, Any]:
        headers = {'Accept': accept, 'X-Remote-User': 'system:kube-aggregator', 'X-Remote-Group': 'system:masters'}
        async with (
            asyncio.timeout(PROBE_TIMEOUT_S),
            self._server.transport.request(remote.backend, 'GET', path, headers=headers) as reply,
        ):
            body = await reply.content.read(PROBE_BYTES_MAX)
            try:
                return reply.status, orjson.loads(body)
            except orjson.JSONDecodeError:
                return reply.status, None

    async def _learn(self, remote: Remote) -> None:
        """Its resources, for aggregated discovery, and where its OpenAPI is."""
        try:
            resources = await self._resources(remote)
            status, index = await self._fetch(remote, '/openapi/v3')
        except (TimeoutError, aiohttp.ClientError, OSError) as e:
            log.info('discovery of an aggregated server was not read', apiservice=remote.name, err=str(e))
            return
        paths = index.get('paths') if status == 200 and isinstance(index, dict) else None
        own = (paths or {}).get(f'apis/{remote.group}/{remote.version}') or {}
        self._server.aggregator.learned(remote.group, remote.version, resources, own.get('serverRelativeURL') or '')

    async def _resources(self, remote: Remote) -> list[Obj]:
        status, found = await self._fetch(remote, '/apis', AGGREGATED)
        if status == 200 and isinstance(found, dict) and found.get('kind') == 'APIGroupDiscoveryList':
            for item in found.get('items') or ():
                if (item.get('metadata') or {}).get('name') != remote.group:
                    continue
                for version in item.get('versions') or ():
                    if version.get('version') == remote.version:
                        return list(version.get('resources') or ())
        _, listed = await self._fetch(remote, f'/apis/{remote.group}/{remote.version}')
        return list(_aggregated((listed or {}).get('resources') or (), remote)) if isinstance(listed, dict) else []

    async def _set(self, name: str, health: Health) -> None:
        entry = self._server.cache.peek(PREFIX + name)
        if entry is None:
            return
        now = self._server.env.clock.wall()

        known = get_condition(entry.obj, 'Available') or {}
        if (known.get('status'), known.get('reason')) == (health.status, health.reason):
            return  # several servers may word the same failure differently; none overwrites another

        async def change(obj: Obj) -> Obj:
            set_condition(obj, 'Available', health.status, now, reason=health.reason, message=health.message)
            return obj

        write = Write(SYSTEM, WriteOptions(field_manager='kube-apiserver'), subresource='status')
        try:
            await self._server.registry.update(KIND, '', name, change, write)
        except NotFound:
            return


def _failed(url: str, why: str) -> str:
    return f'failing or missing response from {url}: Get "{url}": {why}'


def _aggregated(resources: Any, remote: Remote) -> Iterator[Obj]:
    """A legacy resource list in the aggregated form."""
    parents: dict[str, Obj] = {}
    for r in resources:
        name, _, sub = str(r.get('name', '')).partition('/')
        kind = {
            'group': r.get('group') or remote.group, 'version': r.get('version') or remote.version,
            'kind': r.get('kind', ''),
        }  # fmt: skip
        if not sub:
            parents[name] = {
                'resource': name, 'responseKind': kind, 'scope': 'Namespaced' if r.get('namespaced') else 'Cluster',
                'singularResource': r.get('singularName') or '', 'verbs': r.get('verbs') or [],
                **{k: r[k] for k in ('shortNames', 'categories') if r.get(k)},
            }  # fmt: skip
        elif name in parents:
            entry = {'subresource': sub, 'responseKind': kind, 'verbs': r.get('verbs') or []}
            parents[name].setdefault('subresources', []).append(entry)
    yield from parents.values()
