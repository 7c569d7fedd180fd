"""Who may use the node's server: certificates, tokens, and what the API server says about both."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
from aiohttp.test_utils import make_mocked_request

from knode.access import Access, subresources
from knode.config import NodeConfig


class Api:
    """Answers reviews: one token, whose owner may read metrics."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def create(self, resource, obj):
        self.asked.append(resource.kind)
        spec = obj['spec']
        if resource.kind == 'TokenReview':
            known = spec['token'] == 'good'
            return {'status': {'authenticated': known, 'user': {'username': 'prom', 'groups': ['g']} if known else {}}}
        about = spec['resourceAttributes']
        allowed = (spec['user'], about['subresource'], about['verb'], about['name']) == ('prom', 'metrics', 'get', 'n')
        return {'status': {'allowed': allowed}}


@pytest.fixture
def ask(env):
    api = Api()

    def make(mode='Webhook'):
        config = NodeConfig(
            name='n', kubeconfig=Path('k'), data_dir=Path('d'), tls_cert=Path('c'), tls_key=Path('k'),
            client_ca=Path('a'), authorization_mode=mode,
        )  # fmt: skip
        return Access(config, env, api)

    access = {}

    async def call(path, *, token='', subject=(), mode='Webhook'):
        access.setdefault(mode, make(mode))
        transport = mock.Mock()
        transport.get_extra_info = lambda name, default=None: (
            {'subject': [[pair] for pair in subject]} if name == 'peercert' else default
        )
        headers = {'Authorization': f'Bearer {token}'} if token else {}
        answer = await access[mode].refusal(make_mocked_request('GET', path, headers, transport=transport))
        return SimpleNamespace(status=200, text='') if answer is None else answer

    call.api = api
    return call


async def test_a_token_lets_its_owner_do_what_the_api_server_allows(ask):
    assert (await ask('/metrics/cadvisor', token='good')).status == 200
    refused = await ask('/exec/default/p/c', token='good')
    assert refused.status == 403
    assert refused.text == 'Forbidden (user=prom, verb=get, resource=nodes, subresource(s)=[proxy])\n'


async def test_who_is_not_known_is_unauthorized(ask):
    assert (await ask('/metrics')).status == 401
    assert (await ask('/metrics', token='bad')).status == 401
    assert (await ask('/healthz')).status == 200


async def test_answers_are_kept_for_a_while(ask):
    for _ in range(3):
        await ask('/metrics', token='good')
    assert ask.api.asked == ['TokenReview', 'SubjectAccessReview']


async def test_the_clusters_own_clients_need_no_word_of_the_api_server(ask):
    masters = [('organizationName', 'system:masters'), ('commonName', 'admin')]
    assert (await ask('/exec/default/p/c', subject=masters)).status == 200
    assert (await ask('/pods', subject=[('commonName', 'kube-apiserver-kubelet-client')])).status == 200
    assert ask.api.asked == []


async def test_without_webhooks_only_they_are_let_in(ask):
    assert (await ask('/metrics', token='good', mode='Certificate')).status == 401
    assert (await ask('/metrics', subject=[('commonName', 'prom')], mode='Certificate')).status == 403


@pytest.mark.parametrize(
    ('path', 'expected'),
    [
        ('/stats/summary', ('stats',)), ('/metrics/resource', ('metrics',)), ('/logs/', ('log',)),
        ('/checkpoint/default/p/c', ('checkpoint',)), ('/pods', ('pods', 'proxy')), ('/configz', ('configz', 'proxy')),
        ('/containerLogs/default/p/c', ('proxy',)), ('/run/default/p/c', ('proxy',)),
    ],
)  # fmt: skip
def test_a_path_is_a_subresource_of_the_node(path, expected):
    assert subresources(path) == expected
