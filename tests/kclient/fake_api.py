"""A small API server on loopback for tests of clients and controllers, which can misbehave on purpose.

Objects live in a dict; each write takes the next revision. Faults: `drop_watches()` cuts all streams, `compact()` makes
old revisions answer 410, `lose(n)` swallows the next n events, `fail_next` answers with given statuses.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime

import orjson
from aiohttp import web

from kcore.meta.patch import merge_patch
from kcore.meta.selectors import parse_label_selector


@dataclass
class Kind:
    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True


KINDS = [
    Kind('', 'v1', 'namespaces', 'Namespace', namespaced=False),
    Kind('', 'v1', 'nodes', 'Node', namespaced=False),
    Kind('', 'v1', 'pods', 'Pod'),
    Kind('', 'v1', 'events', 'Event'),
    Kind('', 'v1', 'configmaps', 'ConfigMap'),
    Kind('', 'v1', 'services', 'Service'),
    Kind('', 'v1', 'serviceaccounts', 'ServiceAccount'),
    Kind('', 'v1', 'endpoints', 'Endpoints'),
    Kind('coordination.k8s.io', 'v1', 'leases', 'Lease'),
    Kind('discovery.k8s.io', 'v1', 'endpointslices', 'EndpointSlice'),
    Kind('apps', 'v1', 'deployments', 'Deployment'),
    Kind('apps', 'v1', 'replicasets', 'ReplicaSet'),
    Kind('batch', 'v1', 'jobs', 'Job'),
    Kind('', 'v1', 'replicationcontrollers', 'ReplicationController'),
]


class Refused(Exception):
    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = {
            'kind': 'Status', 'apiVersion': 'v1', 'status': 'Failure', 'code': code, 'reason': reason,
            'message': message,
        }  # fmt: skip


@dataclass
class FakeApi:
    objects: dict[tuple[str, str, str], dict] = field(default_factory=dict)
    revision: int = 1
    compacted: int = 0
    fail_next: deque = field(default_factory=deque)
    """(status code, headers) for the next requests that are not watches."""
    writes: Counter = field(default_factory=Counter)
    """(method, plural) → successful writes that changed something."""
    attempts: list = field(default_factory=list)
    """(user agent, method, path) of every request that would write."""
    callers: set = field(default_factory=set)
    """Addresses that requests came from, one a connection."""
    reads: Counter = field(default_factory=Counter)
    """User agent → requests that only read."""
    lists: int = 0
    watches: int = 0
    page_limit: int = 0
    streams: bool = False
    """Whether it sends initial events when a watch asks for them; refuses otherwise, as servers of old did."""
    initial_limit: int | None = None
    """Break a streamed list off after so many objects."""
    kinds: list[Kind] = field(default_factory=lambda: list(KINDS))

    def __post_init__(self) -> None:
        self._log: list[tuple[int, str, dict]] = []
        self._streams: set[asyncio.Queue] = set()
        self._swallow = 0
        self._uids = itertools.count(1)
        self._runner: web.AppRunner | None = None
        self.url = ''

    # --- server -------------------------------------------------------------------------------------------------

    async def start(self, port: int = 0) -> None:
        app = web.Application()
        app.router.add_route('*', '/{tail:.*}', self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, '127.0.0.1', port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self.url = f'http://127.0.0.1:{self.port}'

    async def stop(self) -> None:
        self.drop_watches()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    # --- faults -------------------------------------------------------------------------------------------------

    def drop_watches(self) -> None:
        for stream in list(self._streams):
            stream.put_nowait(None)

    def compact(self) -> None:
        self.compacted = self.revision
        self._log.clear()

    def lose(self, events: int) -> None:
        self._swallow = events

    # --- state --------------------------------------------------------------------------------------------------

    def put(self, plural: str, obj: dict) -> dict:
        """Create or replace behind everybody's back, with events."""
        meta = obj['metadata']
        key = (plural, meta.get('namespace', ''), meta['name'])
        old = self.objects.get(key)
        return self._store(key, {**obj, 'metadata': {**meta, 'uid': old['metadata']['uid'] if old else self._uid()}})

    def remove(self, plural: str, namespace: str, name: str) -> None:
        self._drop((plural, namespace, name))

    def all(self, plural: str) -> list[dict]:
        return [o for (p, _, _), o in sorted(self.objects.items()) if p == plural]

    def one(self, plural: str, name: str, namespace: str = 'default') -> dict | None:
        return self.objects.get((plural, namespace, name)) or self.objects.get((plural, '', name))

    def _uid(self) -> str:
        return f'uid-{next(self._uids)}'

    def _store(self, key: tuple[str, str, str], obj: dict) -> dict:
        old = self.objects.get(key)
        kind = next(k for k in self.kinds if k.plural == key[0])
        obj.setdefault('apiVersion', f'{kind.group}/{kind.version}' if kind.group else kind.version)
        obj.setdefault('kind', kind.kind)
        self.revision += 1
        obj['metadata']['resourceVersion'] = str(self.revision)
        self.objects[key] = obj
        self._emit('MODIFIED' if old else 'ADDED', key[0], obj)
        return obj

    def _drop(self, key: tuple[str, str, str]) -> dict:
        self.revision += 1
        obj = copy.deepcopy(self.objects.pop(key))
        obj['metadata']['resourceVersion'] = str(self.revision)
        self._emit('DELETED', key[0], obj)
        return obj

    def _emit(self, type_: str, plural: str, obj: dict) -> None:
        if self._swallow:
            self._swallow -= 1
            return
        event = (self.revision, plural, {'type': type_, 'object': copy.deepcopy(obj)})
        self._log.append(event)
        for stream in self._streams:
            stream.put_nowait(event)

    # --- requests -----------------------------------------------------------------------------------------------

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.callers.add(request.transport.get_extra_info('peername'))
        if request.method not in ('GET', 'HEAD'):
            self.attempts.append((request.headers.get('User-Agent', ''), request.method, request.path))
        else:
            self.reads[request.headers.get('User-Agent', '')] += 1
        try:
            if self.fail_next and 'watch' not in request.query:
                code, headers = self.fail_next.popleft()
                return web.json_response({'kind': 'Status', 'code': code, 'message': 'made to fail'}, status=code,
                                         headers=headers)  # fmt: skip
            return await self._route(request)
        except Refused as e:
            return web.json_response(e.status, status=e.status['code'])

    async def _route(self, request: web.Request) -> web.StreamResponse:
        parts = request.path.strip('/').split('/')
        if request.path == '/apis':
            groups = sorted({(k.group, k.version) for k in self.kinds if k.group})
            body = [{'name': g, 'preferredVersion': {'groupVersion': f'{g}/{v}'}} for g, v in groups]
            return web.json_response({'kind': 'APIGroupList', 'groups': body})
        group, version, rest = ('', parts[1], parts[2:]) if parts[0] == 'api' else (parts[1], parts[2], parts[3:])
        if not rest:
            return web.json_response(self._discovery(group, version))
        namespace = ''
        if rest[0] == 'namespaces' and len(rest) > 2 and rest[2] not in ('status', 'finalize'):
            namespace, rest = rest[1], rest[2:]
        plural, name, sub = rest[0], rest[1] if len(rest) > 1 else '', rest[2] if len(rest) > 2 else ''
        if not any(k.plural == plural and k.group == group for k in self.kinds):
            raise Refused(404, 'NotFound', 'the server could not find the requested resource')
        key = (plural, namespace, name)
        match request.method:
            case 'GET' if 'watch' in request.query:
                return await self._watch(request, plural, namespace)
            case 'GET' if name:
                return web.json_response(self._existing(key))
            case 'GET':
                return web.json_response(self._list(request, plural, namespace))
            case 'POST':
                return web.json_response(self._create(plural, namespace, await request.json()), status=201)
            case 'PUT' | 'PATCH':
                return web.json_response(self._change(request.method, key, sub, await request.json()))
            case _:
                return web.json_response(self._delete(key, await request.json()))

    def _discovery(self, group: str, version: str) -> dict:
        verbs = ['create', 'delete', 'get', 'list', 'patch', 'update', 'watch']
        found = [
            {'name': k.plural, 'kind': k.kind, 'namespaced': k.namespaced, 'verbs': verbs}
            for k in self.kinds
            if (k.group, k.version) == (group, version)
        ]
        return {'kind': 'APIResourceList', 'resources': found}

    def _existing(self, key: tuple[str, str, str]) -> dict:
        if key not in self.objects:
            raise Refused(404, 'NotFound', f'{key[0]} "{key[2]}" not found')
        return self.objects[key]

    def _list(self, request: web.Request, plural: str, namespace: str) -> dict:
        self.lists += 1
        selector = parse_label_selector(request.query.get('labelSelector', ''))
        items = [
            o for o in self.all(plural)
            if namespace in ('', o['metadata'].get('namespace', '')) and selector.matches(o['metadata'].get('labels'))
        ]  # fmt: skip
        start = int(request.query.get('continue', '0'))
        limit = self.page_limit or int(request.query.get('limit', '0')) or len(items)
        more = str(start + limit) if start + limit < len(items) else ''
        meta = {'resourceVersion': str(self.revision)} | ({'continue': more} if more else {})
        bare = [{k: v for k, v in o.items() if k not in ('apiVersion', 'kind')} for o in items[start : start + limit]]
        return {'kind': 'List', 'metadata': meta, 'items': bare}

    def _create(self, plural: str, namespace: str, obj: dict) -> dict:
        meta = obj['metadata']
        ns = self.objects.get(('namespaces', '', namespace))
        if ns is not None and ns['metadata'].get('deletionTimestamp'):
            refused = Refused(403, 'Forbidden', 'namespace is being terminated')
            refused.status['details'] = {'causes': [{'reason': 'NamespaceTerminating'}]}
            raise refused
        if 'name' not in meta:
            meta['name'] = f'{meta["generateName"]}{next(self._uids):05d}'
        key = (plural, namespace, meta['name'])
        if key in self.objects:
            raise Refused(409, 'AlreadyExists', f'{plural} "{meta["name"]}" already exists')
        meta |= {'uid': self._uid(), 'creationTimestamp': datetime.now(UTC).strftime('%Y-%m-%dT%H:%M:%SZ'),
                 'generation': 1}  # fmt: skip
        if namespace:
            meta['namespace'] = namespace
        self.writes['POST', plural] += 1
        return self._store(key, obj)

    def _change(self, method: str, key: tuple[str, str, str], sub: str, body: dict) -> dict:
        old = self._existing(key)
        new = merge_patch(copy.deepcopy(old), body) if method == 'PATCH' else body
        for pin in ('uid', 'resourceVersion'):
            wanted = (body.get('metadata') or {}).get(pin)
            if wanted and wanted != old['metadata'][pin]:
                raise Refused(409, 'Conflict', f'{pin} does not match: the object has been modified')
        if sub == 'status':
            new = {**old, 'status': new.get('status')}
        elif sub == '' and key[0] != 'leases' and 'status' in old:
            new['status'] = old['status']
        new = orjson.loads(orjson.dumps(new))
        new['metadata']['resourceVersion'] = old['metadata']['resourceVersion']
        if new == old:
            return old
        if new.get('spec') != old.get('spec') and 'generation' in new['metadata']:
            new['metadata']['generation'] += 1
        self.writes[method, key[0]] += 1
        if self._finished(new):
            self.objects[key] = new
            return self._drop(key)
        return self._store(key, new)

    def _finished(self, obj: dict) -> bool:
        meta = obj['metadata']
        if not meta.get('deletionTimestamp') or meta.get('finalizers') or (obj.get('spec') or {}).get('finalizers'):
            return False
        return obj['kind'] != 'Pod' or not (obj.get('spec') or {}).get('nodeName')

    def _delete(self, key: tuple[str, str, str], options: dict) -> dict:
        obj = copy.deepcopy(self._existing(key))
        for pin, wanted in (options.get('preconditions') or {}).items():
            if obj['metadata'][pin] != wanted:
                raise Refused(409, 'Conflict', f'precondition {pin} failed')
        self.writes['DELETE', key[0]] += 1
        extra = {'Foreground': 'foregroundDeletion', 'Orphan': 'orphan'}.get(options.get('propagationPolicy', ''))
        finalizers = sorted({*(obj['metadata'].get('finalizers') or ()), *([extra] if extra else [])})
        if finalizers:
            obj['metadata']['finalizers'] = finalizers
        already = obj['metadata'].get('deletionTimestamp')
        obj['metadata'].setdefault('deletionTimestamp', datetime.now(UTC).strftime('%Y-%m-%dT%H:%M:%SZ'))
        if (options.get('gracePeriodSeconds') == 0 and not finalizers) or self._finished(obj):
            return self._drop(key)
        return obj if already and not extra else self._store(key, obj)

    def _put_initial(self, stream: asyncio.Queue, plural: str) -> None:
        for obj in self.all(plural)[: self.initial_limit]:
            stream.put_nowait((0, plural, {'type': 'ADDED', 'object': copy.deepcopy(obj)}))
        if self.initial_limit is not None:
            stream.put_nowait(None)  # it breaks in the middle
            return
        meta = {'resourceVersion': str(self.revision), 'annotations': {'k8s.io/initial-events-end': 'true'}}
        stream.put_nowait((0, plural, {'type': 'BOOKMARK', 'object': {'metadata': meta}}))

    async def _watch(self, request: web.Request, plural: str, namespace: str) -> web.StreamResponse:
        initial = 'sendInitialEvents' in request.query
        if initial and not self.streams:
            raise Refused(422, 'Invalid', 'sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch')
        self.watches += 1
        since = int(request.query.get('resourceVersion') or 0)
        response = web.StreamResponse(headers={'Content-Type': 'application/json'})
        await response.prepare(request)
        if since < self.compacted:
            gone = {'kind': 'Status', 'code': 410, 'reason': 'Expired', 'message': 'too old resource version'}
            await response.write(orjson.dumps({'type': 'ERROR', 'object': gone}) + b'\n')
            return response
        stream: asyncio.Queue = asyncio.Queue()
        if initial:
            self._put_initial(stream, plural)
        for event in self._log:
            if event[0] > since and not initial:
                stream.put_nowait(event)
        self._streams.add(stream)
        try:
            while (event := await stream.get()) is not None:
                _, kind, frame = event
                bookmark = frame['type'] == 'BOOKMARK'
                if kind == plural and (bookmark or namespace in ('', frame['object']['metadata'].get('namespace', ''))):
                    await response.write(orjson.dumps(frame) + b'\n')
        finally:
            self._streams.discard(stream)
        return response
