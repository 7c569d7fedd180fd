"""OpenAPI v3: an index and one document per group-version, with what kubectl reads in them.

Per kind: its component schemas, and the operations with `x-kubernetes-group-version-kind`, the query parameter
`fieldValidation` and the patch media types, from which kubectl learns whether it may send a strategic merge patch.
The hash in the index is of the content, so it survives restarts. Source: API_FACTS 4 and 5.
"""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

from kapi.aggregation.aggregator import Aggregator
from kapi.registry.catalog import Catalog
from kapi.registry.kind import Kind, Scale, Status
from kapi.server import openapiv2
from kapi.server.discovery import groups_of
from kapi.server.schemas import Schemas
from kcore.meta.gvk import Resource

Obj = dict[str, Any]

JSON_PATCH = 'application/json-patch+json'
MERGE_PATCH = 'application/merge-patch+json'
STRATEGIC = 'application/strategic-merge-patch+json'
APPLY = 'application/apply-patch+yaml'
_ACTIONS = {
    'list': ('get', 'list'), 'create': ('post', 'post'), 'deletecollection': ('delete', 'deletecollection'),
    'get': ('get', 'get'), 'update': ('put', 'put'), 'patch': ('patch', 'patch'), 'delete': ('delete', 'delete'),
}  # fmt: skip
_SCHEMAS = '#/components/schemas/'
_WRITE_PARAMETERS = ('dryRun', 'fieldManager', 'fieldValidation')
_LIST_PARAMETERS = ('allowWatchBookmarks', 'continue', 'fieldSelector', 'labelSelector', 'limit', 'resourceVersion',
                    'resourceVersionMatch', 'sendInitialEvents', 'timeoutSeconds', 'watch')  # fmt: skip
_DELETE_PARAMETERS = ('dryRun', 'gracePeriodSeconds', 'orphanDependents', 'propagationPolicy')
_PARAMETERS = {
    'list': _LIST_PARAMETERS, 'deletecollection': (*_DELETE_PARAMETERS, *_LIST_PARAMETERS[1:-1]),
    'delete': _DELETE_PARAMETERS, 'post': _WRITE_PARAMETERS, 'put': _WRITE_PARAMETERS,
    'patch': (*_WRITE_PARAMETERS, 'force'),
}  # fmt: skip
_TYPES = dict.fromkeys(('limit', 'timeoutSeconds', 'gracePeriodSeconds'), 'integer') | dict.fromkeys(
    ('allowWatchBookmarks', 'sendInitialEvents', 'watch', 'force', 'orphanDependents'), 'boolean'
)
_SUCCESSES = {'post': ('200', '201', '202'), 'put': ('200', '201'), 'patch': ('200', '201'), 'delete': ('200', '202')}
"""Beyond 200 alone."""


class OpenApi:
    """Documents by path below /openapi/v3/, rebuilt when the catalog has changed."""

    def __init__(self, catalog: Catalog, schemas: Schemas, aggregator: Aggregator) -> None:
        self._catalog = catalog
        self._schemas = schemas
        self._aggregator = aggregator
        self._generation = -1
        self._kinds: dict[str, list[Kind]] = {}
        self._documents: dict[str, tuple[bytes, str]] = {}
        self._v2: dict[bool, tuple[bytes, str]] = {}
        """The v2 document: whether as protobuf → (document, hash)."""

    def index(self) -> bytes:
        self._refresh()
        paths = {}
        for name in self._kinds:
            _, digest = self._document(name)
            paths[name] = {'serverRelativeURL': f'/openapi/v3/{name}?hash={digest}'}
        for remote in self._aggregator.remotes():
            if remote.openapi_url:
                paths[f'apis/{remote.group}/{remote.version}'] = {'serverRelativeURL': remote.openapi_url}
        return orjson.dumps({'paths': paths})

    def document(self, name: str) -> tuple[bytes, str] | None:
        """(document, hash) of `api/v1` or `apis/apps/v1`."""
        self._refresh()
        return self._document(name) if name in self._kinds else None

    def v2(self, *, protobuf: bool) -> tuple[bytes, str]:
        """(the v2 document, hash)."""
        self._refresh()
        if protobuf not in self._v2:
            swagger = openapiv2.swagger(self._build(kinds) for kinds in self._kinds.values())
            body = openapiv2.encode(swagger) if protobuf else orjson.dumps(swagger)
            self._v2[protobuf] = (body, hashlib.sha512(body).hexdigest().upper())
        return self._v2[protobuf]

    def _refresh(self) -> None:
        if self._generation == self._catalog.generation:
            return
        self._generation = self._catalog.generation
        before = self._kinds
        self._v2 = {}
        self._kinds = {}
        for group, versions in groups_of(self._catalog).items():
            for version, kinds in versions.items():
                self._kinds[f'apis/{group}/{version}' if group else f'api/{version}'] = kinds
        # A definition changes one group's document; the others are kept.
        self._documents = {
            name: document
            for name, document in self._documents.items()
            if name in self._kinds and _same(before[name], self._kinds[name])
        }

    def _document(self, name: str) -> tuple[bytes, str]:
        found = self._documents.get(name)
        if found is None:
            body = orjson.dumps(self._build(self._kinds[name]), option=orjson.OPT_SORT_KEYS)
            found = self._documents[name] = (body, hashlib.sha512(body).hexdigest().upper())
        return found

    def _build(self, kinds: list[Kind]) -> Obj:
        paths: Obj = {}
        for kind in kinds:
            paths.update(self._paths(kind))
        return {
            'openapi': '3.0.0',
            'info': {'title': 'Kubernetes', 'version': 'v1.33.1'},
            'paths': paths,
            'components': {'schemas': self._schemas.components(kinds)},
        }

    def _paths(self, kind: Kind) -> Obj:
        r = kind.resource
        base = r.path('{namespace}') if r.namespaced else r.path()
        one = f'{base}/{{name}}'
        found: Obj = {base: {}, one: {}}
        for verb in kind.verbs:
            if verb == 'watch':
                continue
            method, action = _ACTIONS[verb]
            target = found[base if verb in {'list', 'create', 'deletecollection'} else one]
            target[method] = self._operation(kind, r, method, action)
        if r.namespaced and 'list' in kind.verbs:
            found[r.path()] = {'get': self._operation(kind, r, 'get', 'list')}
        for sub in kind.subresources:
            if not isinstance(sub, Status | Scale):
                continue
            body = r if isinstance(sub, Status) else Resource('autoscaling', 'v1', 'scales', 'Scale')
            operations = {m: self._operation(kind, body, m, a) for m, a in (_ACTIONS[v] for v in sub.verbs)}
            found[f'{one}/{sub.name}'] = operations
        for path, item in found.items():
            names = [n for n in ('name', 'namespace') if f'{{{n}}}' in path]
            if names:
                item['parameters'] = [_path_parameter(n) for n in names]
        return {path: item for path, item in found.items() if item}

    def _operation(self, kind: Kind, body: Resource, method: str, action: str) -> Obj:
        name = self._schemas.name(body)
        known = self._schemas.known(body)
        schema = {'$ref': f'{_SCHEMAS}{name}'} if known else {'type': 'object'}
        answer = schema
        if known and action in {'list', 'deletecollection'}:
            answer = {'$ref': f'{_SCHEMAS}{name}List'}
        elif action == 'delete' and not kind.strategy.returns_deleted_object:
            answer = {'type': 'object'}  # a Status, or the object while something still holds it
        said = {'description': 'OK', 'content': {'application/json': {'schema': answer}}}
        found: Obj = {
            'x-kubernetes-action': action,
            'x-kubernetes-group-version-kind': {'group': body.group, 'version': body.version, 'kind': body.kind},
            'responses': dict.fromkeys(_SUCCESSES.get(action, ('200',)), said),
        }
        if action in _PARAMETERS:
            found['parameters'] = [_query_parameter(n) for n in _PARAMETERS[action]]
        if method in {'post', 'put', 'patch'}:
            media = self._patch_media(kind) if method == 'patch' else ('*/*',)
            patch_schema = {'type': 'object'}
            found['requestBody'] = {
                'required': True,
                'content': {m: {'schema': patch_schema if method == 'patch' else schema} for m in media},
            }
        return found

    def _patch_media(self, kind: Kind) -> tuple[str, ...]:
        if self._schemas.builtin(kind.resource):
            return (APPLY, JSON_PATCH, MERGE_PATCH, STRATEGIC)
        return (APPLY, JSON_PATCH, MERGE_PATCH)


def _same(before: list[Kind], now: list[Kind]) -> bool:
    return len(before) == len(now) and all(a is b for a, b in zip(before, now, strict=True))


def _path_parameter(name: str) -> Obj:
    return {'name': name, 'in': 'path', 'required': True, 'schema': {'type': 'string', 'uniqueItems': True}}


def _query_parameter(name: str) -> Obj:
    return {'name': name, 'in': 'query', 'schema': {'type': _TYPES.get(name, 'string'), 'uniqueItems': True}}
