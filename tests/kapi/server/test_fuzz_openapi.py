"""Requests made from our own OpenAPI documents, whatever group they are of: never a 500, always a Status, bounded.

What schemathesis does, with hypothesis alone: every operation that a document lists, bodies that fit its schema and
bodies that nearly do, the query parameters it names and those it leaves out.
"""

from __future__ import annotations

import random
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapi.kinds import GOVERNING, KINDS, VIRTUAL
from kapi.schemas import schema_for
from tests.kapi.objects import value_of

Obj = dict[str, Any]
ROUNDS = 3
"""Times that each operation of each document is called."""
ANSWER_BYTES_MAX = 2_000_000
MEDIA = ('application/json', 'application/yaml', 'application/merge-patch+json', 'application/json-patch+json',
         'application/strategic-merge-patch+json', 'application/apply-patch+yaml',
         'application/vnd.kubernetes.protobuf', 'text/plain', '')  # fmt: skip
QUERY = {
    'dryRun': ('All', 'x', ''), 'fieldManager': ('m', 'x' * 200, '\x01'), 'fieldValidation': ('Strict', 'Warn', 'x'),
    'force': ('true', 'x'), 'limit': ('1', '-1', 'x', '9' * 30), 'continue': ('x', 'e30=', 'eyJydiI6MX0'),
    'labelSelector': ('a=b', 'a in (', '!a'), 'fieldSelector': ('metadata.name=x', 'spec=1', 'a'),
    'resourceVersion': ('0', '1', 'x', '-1'), 'resourceVersionMatch': ('Exact', 'NotOlderThan', 'x'),
    'propagationPolicy': ('Orphan', 'Foreground', 'x'), 'gracePeriodSeconds': ('0', '-1', 'x'),
    'timeoutSeconds': ('1', 'x'), 'pretty': ('true',),
}  # fmt: skip
SCHEMAS = {(k.resource.group, k.resource.version, k.resource.kind): k for k in (*KINDS, *GOVERNING, *VIRTUAL)}


def _body(operation: Obj, rng: random.Random) -> bytes:
    gvk = operation['x-kubernetes-group-version-kind']
    kind = SCHEMAS.get((gvk['group'], gvk['version'], gvk['kind']))
    value: Any = value_of(schema_for(kind.resource).root, rng) if kind is not None else {}
    if rng.random() < 0.8:
        value = {**value, 'metadata': {**(value.get('metadata') or {}), 'name': rng.choice(('x', 'y', 'A_b', ''))}}
        value |= {'apiVersion': f'{gvk["group"]}/{gvk["version"]}'.lstrip('/'), 'kind': gvk['kind']}
    match rng.randrange(8):
        case 0:
            return b'{"metadata":'
        case 1:
            return orjson.dumps([{'op': rng.choice(('add', 'test', 'move', 'x')), 'path': '/spec', 'value': value}])
        case 2:
            return orjson.dumps(rng.choice((None, [], 'x', 1, {'spec': None, 'metadata': None})))
    return orjson.dumps(value)


def _requests(document: Obj, rng: random.Random) -> Any:
    for path, item in document['paths'].items():
        for method in ('get', 'post', 'put', 'patch', 'delete'):
            if method not in item:
                continue
            where = path.replace('{namespace}', rng.choice(('default', 'none'))).replace('{name}', rng.choice('xy'))
            chosen = rng.sample(list(QUERY), rng.randrange(3))
            if method == 'delete':
                chosen.append('dryRun')  # a real one would take away what the other examples need
            query = '&'.join(f'{k}={quote("All" if (k, method) == ("dryRun", "delete") else rng.choice(QUERY[k]))}'
                             for k in dict.fromkeys(chosen))  # fmt: skip
            content = list(item[method].get('requestBody', {}).get('content', {'application/json': {}}))
            media = rng.choice(MEDIA) if rng.random() < 0.3 else rng.choice(content).replace('*/*', 'application/json')
            yield method.upper(), f'{where}?{query}', media, _body(item[method], rng) if method != 'get' else None


async def test_no_operation_of_our_own_documents_breaks_the_server(api):
    rng, asked, taken = random.Random(4), 0, 0
    for url in (await api.get('/openapi/v3')).json['paths'].values():
        document = (await api.get(url['serverRelativeURL'])).json
        for _ in range(ROUNDS):
            for method, path, media, body in _requests(document, rng):
                headers = {'Content-Type': media} if media else {}
                reply = await api.call(method, path, body, headers=headers)
                asked, taken = asked + 1, taken + (reply.status < 300)
                _check(reply, method, path, media, body)
    assert asked > 1000
    assert taken > asked / 10, 'requests must be taken for this to mean anything'


def _check(reply: Any, *request: Any) -> None:
    assert reply.status < 500, (request, reply.text)
    assert len(reply.text) < ANSWER_BYTES_MAX
    if reply.status >= 400:
        assert reply.json is not None, (request, reply.text)
        assert (reply.json['kind'], reply.json['code']) == ('Status', reply.status), request
        assert reply.json['message'], request


_PARTS = st.one_of(
    st.sampled_from(('api', 'apis', 'v1', 'apps', 'namespaces', 'default', 'pods', 'x', 'status', 'proxy', '..')),
    st.text(st.characters(blacklist_categories=('Cs',)), max_size=8).map(lambda t: quote(t, safe='')),
)
_HEADERS = st.dictionaries(
    st.sampled_from(('Accept', 'Content-Type', 'Accept-Encoding', 'If-None-Match', 'Impersonate-User',
                     'Impersonate-Group', 'User-Agent', 'Authorization', 'X-Request-Id', 'Connection', 'Upgrade')),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40), max_size=3,
)  # fmt: skip


@pytest.mark.timeout(120)
@settings(max_examples=150, derandomize=True)
@given(
    parts=st.lists(_PARTS, max_size=7),
    headers=_HEADERS,
    method=st.sampled_from(('GET', 'POST', 'PUT', 'PATCH', 'HEAD', 'OPTIONS', 'X')),
)
async def test_any_path_and_any_header_is_answered(api, parts, headers, method):
    path = '/' + '/'.join(parts)
    reply = await api.call(
        method, path + '?timeoutSeconds=1', b'{}' if method in {'POST', 'PUT', 'PATCH'} else None, headers=headers
    )
    assert reply.status < 500 or reply.status in {501, 503}, (method, path, headers, reply.text)
    assert len(reply.text) < ANSWER_BYTES_MAX
