"""An extension API server, as upstream has a sample one: behind a Service, over mutual TLS, with its own storage."""

from __future__ import annotations

import base64
import ssl
import uuid
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from aiohttp import web

from kapi.aggregation.controller import ApiServices
from kcore import tasks

conformance = pytest.mark.conformance
Obj = dict[str, Any]
GROUP, VERSION, NAME = 'wardle.example.com', 'v1alpha1', 'v1alpha1.wardle.example.com'
BASE = f'/apis/{GROUP}/{VERSION}'
FLUNDERS = f'{BASE}/namespaces/default/flunders'
APISERVICES = '/apis/apiregistration.k8s.io/v1/apiservices'
VERBS = ['create', 'delete', 'deletecollection', 'get', 'list', 'update']


class Wardle:
    """Serves Flunders out of memory, to nobody but the front proxy."""

    def __init__(self, user_header: str) -> None:
        self._user_header = user_header
        self._flunders: dict[str, Obj] = {}
        self._version = 0
        self.callers: set[str] = set()

    async def __call__(self, request: web.BaseRequest) -> web.Response:
        user = request.headers.get(self._user_header)
        if not user:
            return _status(401, 'Unauthorized', 'Unauthorized')
        self.callers.add(user)
        if request.path == BASE:
            resource = {'name': 'flunders', 'singularName': 'flunder', 'namespaced': True, 'kind': 'Flunder'}
            listed = {'kind': 'APIResourceList', 'apiVersion': 'v1', 'groupVersion': f'{GROUP}/{VERSION}'}
            return _json({**listed, 'resources': [{**resource, 'verbs': VERBS}]})
        if request.path.startswith(FLUNDERS):
            return await self._flunder(request, request.path.removeprefix(FLUNDERS).strip('/'))
        return _status(404, 'NotFound', 'the server could not find the requested resource')

    async def _flunder(self, request: web.BaseRequest, name: str) -> web.Response:
        if name and request.method != 'POST' and name not in self._flunders:
            return _status(404, 'NotFound', f'flunders.{GROUP} "{name}" not found', {'name': name, 'kind': 'flunders'})
        match request.method, bool(name):
            case 'GET', True:
                return _json(self._flunders[name])
            case 'GET', False:
                meta = {'resourceVersion': str(self._version)}
                kind = {'kind': 'FlunderList', 'apiVersion': f'{GROUP}/{VERSION}', 'metadata': meta}
                return _json({**kind, 'items': list(self._flunders.values())})
            case 'POST', False:
                return _json(self._store(orjson.loads(await request.read())), 201)
            case 'PUT', True:
                return _json(self._store(orjson.loads(await request.read())))
            case 'DELETE', True:
                self._flunders.pop(name)
                return _json({'kind': 'Status', 'apiVersion': 'v1', 'status': 'Success'})
            case 'DELETE', False:
                self._flunders.clear()
                return _json({'kind': 'Status', 'apiVersion': 'v1', 'status': 'Success'})
        return _status(405, 'MethodNotAllowed', 'the server does not allow this method on the requested resource')

    def _store(self, obj: Obj) -> Obj:
        self._version += 1
        set_by_server = {'namespace': 'default', 'resourceVersion': str(self._version)}
        made = {**obj, 'metadata': {'uid': str(uuid.uuid4()), **obj['metadata'], **set_by_server}}
        self._flunders[obj['metadata']['name']] = made
        return made


def _json(obj: Obj, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(obj), content_type='application/json', status=status)


def _status(code: int, reason: str, message: str, details: Obj | None = None) -> web.Response:
    body = {'kind': 'Status', 'apiVersion': 'v1', 'status': 'Failure', 'reason': reason, 'message': message}
    return _json({**body, 'code': code, 'details': details or {}}, code)


@pytest.fixture
async def world(serve: Any, authority: Any) -> AsyncIterator[SimpleNamespace]:
    cert, key = authority.issue('front-proxy', 'front-proxy-client')
    async with serve(proxy_client_cert_file=cert, proxy_client_key_file=key) as running:
        task = tasks.start_detached('apiservices', ApiServices(running.server).run())
        yield running
        await tasks.stop(task)


@pytest.fixture
async def wardle(api: Any, authority: Any) -> AsyncIterator[SimpleNamespace]:
    """The extension server; it learns whom to believe the way each does, from the API it extends."""
    maps = '/api/v1/namespaces/kube-system/configmaps'
    async with api.watch(
        f'{maps}?watch=true&fieldSelector=metadata.name%3Dextension-apiserver-authentication'
    ) as event:
        trust = (await event())['object']['data']
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=trust['requestheader-client-ca-file'])
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_cert_chain(*authority.issue('wardle', 'wardle', host='sample-api.default.svc'))
    [header] = orjson.loads(trust['requestheader-username-headers'])
    server = Wardle(header)
    runner = web.ServerRunner(web.Server(server))
    await runner.setup()
    await web.TCPSite(runner, '127.0.0.1', 0, ssl_context=tls).start()
    ca = base64.b64encode((authority.directory / 'ca.crt').read_bytes()).decode()
    yield SimpleNamespace(server=server, port=runner.addresses[0][1], ca=ca)
    await runner.cleanup()


async def register(api: Any, wardle: SimpleNamespace) -> None:
    """Service, endpoints and APIService; waits until it is available."""
    meta = {'name': 'sample-api', 'namespace': 'default'}
    ports = [{'port': 7443, 'protocol': 'TCP', 'targetPort': wardle.port}]
    subsets = [{'addresses': [{'ip': '127.0.0.1'}], 'ports': [{'port': wardle.port}]}]
    assert (
        await api.post('/api/v1/namespaces/default/services', {'metadata': meta, 'spec': {'ports': ports}})
    ).status == 201
    await api.post('/api/v1/namespaces/default/endpoints', {'metadata': meta, 'subsets': subsets})
    spec = {'group': GROUP, 'version': VERSION, 'groupPriorityMinimum': 2000, 'versionPriority': 200,
            'caBundle': wardle.ca, 'service': {**meta, 'port': 7443}}  # fmt: skip
    made = await api.post(APISERVICES, {'metadata': {'name': NAME, 'labels': {'sample': 'yes'}}, 'spec': spec})
    assert made.status == 201, made.text
    async with api.watch(f'{APISERVICES}?watch=true&resourceVersion=0&fieldSelector=metadata.name={NAME}') as event:
        while not _available((await event())['object']):
            continue


def _available(service: Obj) -> bool:
    conditions = (service.get('status') or {}).get('conditions') or ()
    return any(c['type'] == 'Available' and c['status'] == 'True' for c in conditions)


@conformance('Aggregator Should be able to support the 1.17 Sample API Server using the current Aggregator')
async def test_an_extension_server_is_part_of_the_api(api, wardle, kubectl):
    await register(api, wardle)
    found = await api.get(BASE)
    assert [r['name'] for r in found.json['resources']] == ['flunders']
    flunder = {'apiVersion': f'{GROUP}/{VERSION}', 'kind': 'Flunder', 'metadata': {'name': 'rest-flunder'}}
    assert (await api.post(FLUNDERS, flunder)).status == 201
    assert [i['metadata']['name'] for i in (await api.get(FLUNDERS)).json['items']] == ['rest-flunder']
    assert 'rest-flunder' in await kubectl('get', 'flunders')
    assert await kubectl('get', 'flunder/rest-flunder', '-o', 'jsonpath={.kind}') == 'Flunder'
    assert 'deleted' in await kubectl('delete', 'flunder', 'rest-flunder')
    assert (await api.get(FLUNDERS)).json['items'] == []
    for name in ('a', 'b'):
        await api.post(FLUNDERS, {**flunder, 'metadata': {'name': name}})
    assert (await api.delete(FLUNDERS)).status == 200
    assert 'No resources found' in await kubectl('get', 'flunders')
    missing = await api.get(f'{FLUNDERS}/a')
    assert (missing.status, missing.json['message']) == (404, f'flunders.{GROUP} "a" not found')
    assert 'admin' in wardle.server.callers


@conformance('Aggregator Should be able to support the 1.17 Sample API Server using the current Aggregator')
async def test_the_registration_itself_is_an_object_like_any(api, wardle):
    await register(api, wardle)
    status = f'{APISERVICES}/{NAME}/status'
    found = (await api.get(status)).json
    assert _available(found)
    patch = [{'op': 'add', 'path': '/status/conditions/-', 'value': {
        'type': 'StatusPatched', 'status': 'True', 'reason': 'E2E', 'message': 'Set by e2e test',
        'lastTransitionTime': '2026-01-01T00:00:00Z'}}]  # fmt: skip
    patched = await api.patch(status, patch, 'json-patch')
    assert 'StatusPatched' in {c['type'] for c in patched.json['status']['conditions']}
    listed = await api.get(f'{APISERVICES}?labelSelector=sample%3Dyes')
    assert [i['metadata']['name'] for i in listed.json['items']] == [NAME]
    relabelled = await api.patch(f'{APISERVICES}/{NAME}', {'metadata': {'labels': {'patched': 'yes'}}})
    replaced = {**relabelled.json, 'spec': {**relabelled.json['spec'], 'versionPriority': 201}}
    assert (await api.put(f'{APISERVICES}/{NAME}', replaced)).json['spec']['versionPriority'] == 201
    assert (await api.delete(f'{APISERVICES}?labelSelector=patched%3Dyes')).status == 200
    assert (await api.get(BASE)).status == 404
