"""Arbitrary paths, queries, headers and bodies: always an answer with a Status, never a 5xx of ours."""

from __future__ import annotations

import json
import string
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PLURALS = ('pods', 'configmaps', 'services', 'nodes', 'events', 'namespaces', 'none')
TEXT = st.text(st.characters(blacklist_categories=('Cs',)), max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
NAMES = (
    'metadata',
    'spec',
    'data',
    'status',
    'name',
    'labels',
    'containers',
    'ports',
    'apiVersion',
    'kind',
    'template',
)
SHAPED = st.recursive(JSON, lambda inner: st.dictionaries(st.sampled_from(NAMES), inner, max_size=4), max_leaves=10)
QUERIES = (
    'labelSelector', 'fieldSelector', 'continue', 'limit', 'resourceVersion', 'resourceVersionMatch', 'dryRun',
    'fieldManager', 'fieldValidation', 'force', 'timeout', 'propagationPolicy', 'gracePeriodSeconds',
)  # fmt: skip
PATCHES = ('merge-patch+json', 'json-patch+json', 'strategic-merge-patch+json', 'apply-patch+yaml')
KINDS = ('json', 'yaml', 'vnd.kubernetes.protobuf', *PATCHES)
MEDIA = (*(f'application/{kind}' for kind in KINDS), 'x/y')
ACCEPT = ('*/*', 'application/json;as=Table;v=v1;g=meta.k8s.io', 'application/yaml', 'text/html', ';;,=')


@st.composite
def requests(draw):
    plural = draw(st.sampled_from(PLURALS))
    scope = draw(st.sampled_from(('', 'namespaces/default/')))
    name = draw(
        st.sampled_from(('', '/a', '/a/status', '/a/scale', '/a/log')) | TEXT.map(lambda t: '/' + quote(t, safe=''))
    )
    query = draw(st.dictionaries(st.sampled_from(QUERIES), TEXT | st.sampled_from(('1', 'All', 'true')), max_size=3))
    # A DELETE of everything would take away what the other examples need.
    method = draw(st.sampled_from(('GET', 'POST', 'PUT', 'PATCH') if not name else ('GET', 'PUT', 'PATCH', 'DELETE')))
    body = draw(SHAPED.map(lambda v: json.dumps(v).encode()) | st.binary(max_size=60))
    path = f'/api/v1/{scope}{plural}{name}?' + '&'.join(f'{k}={quote(v, safe="")}' for k, v in query.items())
    headers = {'Content-Type': draw(st.sampled_from(MEDIA)), 'Accept': draw(st.sampled_from(ACCEPT))}
    return method, path, headers, body


@pytest.fixture
async def answers(api):
    await api.post('/api/v1/namespaces/default/configmaps', {'metadata': {'name': 'a'}})

    async def check(method, path, headers, body):
        reply = await api.call(method, path, body if method != 'GET' else None, headers=headers)
        assert reply.status < 500, (method, path, headers, body, reply.text)
        if reply.status >= 400 and reply.json is not None:
            assert reply.json['kind'] == 'Status'
            assert reply.json['code'] == reply.status
            assert len(reply.json['message']) < 100_000
        return reply

    return check


@settings(max_examples=250, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(request=requests())
async def test_whatever_is_sent_gets_a_status(answers, request):
    await answers(*request)


@pytest.mark.parametrize('letters', [string.punctuation, '[' * 5000, '{"a":' * 5000, '\x00', '%', 'é' * 4000])
async def test_strange_selectors_and_tokens_are_refused_in_words(answers, letters):
    for parameter in ('labelSelector', 'fieldSelector', 'continue'):
        path = f'/api/v1/pods?{parameter}={quote(letters, safe="")}'
        assert (await answers('GET', path, {}, b'')).status in {200, 400}
    deep = b'{"metadata":' * 100_000 + b'1' + b'}' * 100_000
    for media in MEDIA[:7]:
        method, tail = ('PATCH', '/a') if 'patch' in media else ('POST', '')
        path = f'/api/v1/namespaces/default/configmaps{tail}?fieldManager=m'
        assert (await answers(method, path, {'Content-Type': media}, deep)).status >= 400
