"""Who a request comes from, for every way of saying so, on a real TLS socket; and what is nobody's word."""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import jwt
import pytest
import yaml
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec

from kapi.authn.keys import verifier
from kapi.config import ApiConfig
from kcore.env import Env
from kctl.local.pki import Authority, Leaf
from tests.hush import MARK

Obj = dict[str, Any]
REVIEW = '/apis/authentication.k8s.io/v1/selfsubjectreviews'
SECRETS = '/api/v1/namespaces/kube-system/secrets'


def bearer(token: str) -> dict[str, str]:
    return {'Authorization': f'Bearer {token}'}


async def who(client: Any, **headers: str) -> Obj | int:
    """The UserInfo that the server has of a request, or the code of its refusal."""
    answer = await client.post(REVIEW, {}, headers=headers)
    return answer.json['status']['userInfo'] if answer.status == 201 else answer.status


@contextlib.asynccontextmanager
async def service(authority: Any, routes: dict[str, Callable[[Obj], Any]]) -> AsyncIterator[str]:
    """An HTTPS service of somebody else: path → answer by body. Its base URL."""

    async def handle(request: web.Request) -> web.Response:
        return web.json_response(routes[request.path](await request.json() if request.can_read_body else {}))

    app = web.Application()
    app.router.add_route('*', '/{path:.*}', handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*authority.issue('server', 'kubernetes'))
    await web.TCPSite(runner, '127.0.0.1', 0, ssl_context=tls).start()
    try:
        yield f'https://127.0.0.1:{runner.addresses[0][1]}'
    finally:
        await runner.cleanup()


def kubeconfig(path: Path, url: str, authority: Any) -> Path:
    cluster = {'server': url, 'certificate-authority': str(authority.directory / 'ca.crt')}
    path.write_text(yaml.safe_dump({
        'current-context': 'c', 'clusters': [{'name': 'c', 'cluster': cluster}],
        'contexts': [{'name': 'c', 'context': {'cluster': 'c', 'user': 'u'}}], 'users': [{'name': 'u', 'user': {}}],
    }))  # fmt: skip
    return path


class Provider:
    """An OpenID Connect provider: discovery, keys, tokens."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.url = ''

    def routes(self) -> dict[str, Callable[[Obj], Any]]:
        return {
            '/.well-known/openid-configuration': lambda _: {'issuer': self.url, 'jwks_uri': f'{self.url}/keys'},
            '/keys': lambda _: {'keys': [verifier(self.key.public_key()).jwk()]},
        }

    def token(self, key: Any = None, algorithm: str = 'ES256', **changes: Any) -> str:
        claims = {
            'iss': self.url,
            'aud': 'kubeling',
            'exp': time.time() + 60,
            'sub': 'jane',
            'groups': ['dev'],
            'hd': 'example.com',
            'tier': 'gold',
            **changes,
        }
        head = {'kid': verifier(self.key.public_key()).id}
        return jwt.encode({k: v for k, v in claims.items() if v is not None}, key or self.key, algorithm, headers=head)


async def test_an_identity_provider_vouches_for_its_own_and_only_within_bounds(serve: Any, authority: Any):
    provider = Provider()
    async with service(authority, provider.routes()) as provider.url:
        settings = {
            'oidc_issuer_url': provider.url, 'oidc_client_id': 'kubeling', 'oidc_groups_claim': 'groups',
            'oidc_ca_file': authority.directory / 'ca.crt', 'oidc_username_prefix': 'oidc:',
            'oidc_groups_prefix': 'oidc:', 'oidc_signing_algs': ('ES256',),
            'oidc_required_claim': ('hd=example.com', 'tier=gold'),
        }  # fmt: skip
        async with serve(**settings) as world:
            nobody = await world.user()
            found = await who(nobody, **bearer(provider.token()))
            assert found == {'username': 'oidc:jane', 'groups': ['oidc:dev', 'system:authenticated']}
            stranger = ec.generate_private_key(ec.SECP256R1())
            for token in (
                provider.token(exp=time.time() - 1), provider.token(exp=None), provider.token(aud='another'),
                provider.token(nbf=time.time() + 600), provider.token(sub=None), provider.token(stranger),
                provider.token(hd='example.org'), provider.token(tier=None), provider.token(iat=1, exp='soon'),
                provider.token('x' * 32, 'HS256'), jwt.encode({'iss': provider.url}, '', 'none'),
            ):  # fmt: skip
                assert await who(nobody, **bearer(token)) == 401


async def test_a_provider_without_a_prefix_cannot_make_anybody_of_the_system(serve: Any, authority: Any):
    provider = Provider()
    async with service(authority, provider.routes()) as provider.url:
        settings = {
            'oidc_issuer_url': provider.url, 'oidc_client_id': 'kubeling', 'oidc_groups_claim': 'groups',
            'oidc_ca_file': authority.directory / 'ca.crt', 'oidc_username_prefix': '-',
            'oidc_signing_algs': ('ES256',),
        }  # fmt: skip
        async with serve(**settings) as world:
            nobody = await world.user()
            found = await who(nobody, **bearer(provider.token(groups=['system:masters', 'dev'])))
            assert found == {'username': 'jane', 'groups': ['dev', 'system:authenticated']}
            assert await who(nobody, **bearer(provider.token(sub='system:admin'))) == 401


@pytest.mark.parametrize(('claim', 'verified', 'name'), [
    ('sub', None, '{url}#jane'), ('email', None, 'j@example.com'), ('email', True, 'j@example.com'),
    ('email', False, None), ('email', 'yes', None),
])  # fmt: skip
async def test_names_of_a_provider_carry_its_address_unless_they_are_addresses(
    serve: Any, authority: Any, claim: str, verified: Any, name: str | None
):
    provider = Provider()
    async with service(authority, provider.routes()) as provider.url:
        settings = {
            'oidc_issuer_url': provider.url, 'oidc_client_id': 'kubeling', 'oidc_username_claim': claim,
            'oidc_ca_file': authority.directory / 'ca.crt', 'oidc_signing_algs': ('ES256',),
        }  # fmt: skip
        async with serve(**settings) as world:
            token = provider.token(email='j@example.com', email_verified=verified)
            found = await who(await world.user(), **bearer(token))
            assert (found['username'] if isinstance(found, dict) else found) == (
                name.format(url=provider.url) if name else 401
            )


async def test_only_the_algorithms_that_were_named_are_believed(serve: Any, authority: Any):
    provider = Provider()
    async with service(authority, provider.routes()) as provider.url:
        settings = {'oidc_issuer_url': provider.url, 'oidc_client_id': 'kubeling',
                    'oidc_ca_file': authority.directory / 'ca.crt'}  # fmt: skip
        async with serve(**settings) as world:
            assert await who(await world.user(), **bearer(provider.token())) == 401  # the default is RS256 alone


@pytest.mark.parametrize(('flags', 'why'), [
    ({'oidc_issuer_url': 'http://x', 'oidc_client_id': 'c'}, 'oidc-issuer-url must be an https URL'),
    ({'oidc_issuer_url': 'https://x'}, 'oidc-issuer-url and oidc-client-id belong together'),
    ({'oidc_required_claim': ('hd',)}, 'oidc-required-claim: hd: claim=value expected'),
    ({'oidc_signing_algs': ('HS256',)}, 'oidc-signing-algs: HS256'),
])  # fmt: skip
def test_settings_of_a_provider_that_make_no_sense_are_named(tmp_path: Path, flags: Any, why: str):
    with pytest.raises(ValueError, match=why):
        ApiConfig(tls_cert=tmp_path, tls_key=tmp_path, client_ca=tmp_path, **flags)


async def test_a_token_webhook_is_asked_and_its_answer_counts(serve: Any, authority: Any, tmp_path: Path):
    asked: list[str] = []

    def review(body: Obj) -> Obj:
        token = body['spec']['token']
        asked.append(token)
        user = {'username': 'hook', 'uid': '7', 'groups': ['g'], 'extra': {'scope': ['a', 'b']}}
        status = {'authenticated': token == 'good', 'user': user}
        return {**body, 'status': {**status, 'audiences': ['elsewhere']} if token == 'foreign' else status}

    async with service(authority, {'/': review}) as url:
        config = kubeconfig(tmp_path / 'hook', f'{url}/', authority)
        async with serve(authentication_token_webhook_config_file=config) as world:
            nobody = await world.user()
            for _ in range(3):
                assert await who(nobody, **bearer('good')) == {
                    'username': 'hook', 'uid': '7', 'groups': ['g', 'system:authenticated'],
                    'extra': {'scope': ['a', 'b']},
                }  # fmt: skip
            assert asked == ['good']  # and remembered
            for token in ('bad', 'foreign'):
                assert await who(nobody, **bearer(token)) == 401
            admin = await world.user('admin', 'system:masters')
            path = '/apis/authentication.k8s.io/v1/tokenreviews'
            reviewed = (await admin.post(path, {'spec': {'token': 'good'}})).json['status']
            assert (reviewed['authenticated'], reviewed['user']['username']) == (True, 'hook')
            assert not (await admin.post(path, {'spec': {'token': 'bad'}})).json['status'].get('authenticated')


async def test_an_access_webhook_adds_to_roles_and_its_silence_adds_nothing(serve: Any, authority: Any, tmp_path: Path):
    asked: list[Obj] = []

    def review(body: Obj) -> Obj:
        asked.append(body['spec'])
        what = body['spec'].get('resourceAttributes') or {}
        verdicts = {'pods': {'allowed': True}, 'secrets': {'allowed': False, 'denied': True, 'reason': 'never'}}
        return {**body, 'status': verdicts.get(what.get('resource', ''), {'allowed': False})}

    config = tmp_path / 'access'
    async with service(authority, {'/': review}) as url:
        kubeconfig(config, f'{url}/', authority)
        async with serve(authorization_webhook_config_file=config) as world:
            eve = await world.user('eve', 'dev')
            for _ in range(2):
                assert (await eve.get('/api/v1/namespaces/default/pods')).status == 200
            assert len(asked) == 1
            assert (asked[0]['user'], asked[0]['groups']) == ('eve', ['dev', 'system:authenticated'])
            refused = await eve.get('/api/v1/namespaces/default/secrets')
            assert (refused.status, 'never' in refused.json['message']) == (403, True)
            assert (await eve.get('/api/v1/nodes')).status == 403
            assert (await (await world.user('admin', 'system:masters')).get('/api/v1/nodes')).status == 200
    kubeconfig(config, 'https://127.0.0.1:1/', authority)
    async with serve(authorization_webhook_config_file=config) as world:
        assert (await (await world.user('eve')).get('/api/v1/namespaces/default/pods')).status == 403


async def test_a_token_file_names_users_and_groups(serve: Any, tmp_path: Path):
    file = tmp_path / 'tokens.csv'
    file.write_text('s3cret,carol,uid-1,"dev,ops"\nother,dave,uid-2\n')
    async with serve(token_auth_file=file) as world:
        nobody = await world.user()
        groups = ['dev', 'ops', 'system:authenticated']
        assert await who(nobody, **bearer('s3cret')) == {'username': 'carol', 'uid': 'uid-1', 'groups': groups}
        for token in ('s3cre', 's3cret1', 'S3CRET', ''):
            assert await who(nobody, **bearer(token)) == 401


def join_token(**changes: str) -> Obj:
    data = {
        'token-id': 'abcdef',
        'token-secret': f'{MARK}abcdef',
        'usage-bootstrap-authentication': 'true',
        **changes,
    }
    meta = {'name': 'bootstrap-token-abcdef', 'namespace': 'kube-system'}
    return {'metadata': meta, 'type': 'bootstrap.kubernetes.io/token', 'stringData': data}


@pytest.mark.parametrize(('changes', 'good'), [
    ({}, True), ({'expiration': '2999-01-01T00:00:00Z'}, True), ({'auth-extra-groups': 'system:bootstrappers:x'}, True),
    ({'expiration': '2020-01-01T00:00:00Z'}, False), ({'usage-bootstrap-authentication': 'false'}, False),
])  # fmt: skip
async def test_a_join_token_is_good_while_its_secret_says_so(world: Any, api: Any, changes: dict[str, str], good: bool):
    assert (await api.post(SECRETS, join_token(**changes))).status == 201
    await api.get(SECRETS)
    nobody = await world.user()
    found = await who(nobody, **bearer(f'abcdef.{MARK}abcdef'))
    if not good:
        assert found == 401
        return
    assert isinstance(found, dict)
    extra = [changes['auth-extra-groups']] if 'auth-extra-groups' in changes else []
    assert (found['username'], found['groups']) == (
        'system:bootstrap:abcdef', ['system:bootstrappers', *extra, 'system:authenticated'],
    )  # fmt: skip
    assert await who(nobody, **bearer(f'abcdef.{MARK}abcdee')) == 401
    await api.delete(f'{SECRETS}/bootstrap-token-abcdef')
    assert await who(nobody, **bearer(f'abcdef.{MARK}abcdef')) == 401


async def test_a_front_proxy_speaks_for_others_and_nobody_else_does(serve: Any, authority: Any, tmp_path: Path):
    proxies = Authority(tmp_path, Env.real(), common_name='front-proxy-ca')  # an authority of their own
    settings = {
        'requestheader_client_ca_file': tmp_path / 'ca.crt', 'requestheader_allowed_names': ('front-proxy',),
    }  # fmt: skip
    said = {'X-Remote-User': 'frank', 'X-Remote-Group': 'dev', 'X-Remote-Extra-Scope': 'a%2Fb'}
    async with serve(**settings) as world:

        async def through(pair: tuple[Path, Path]) -> Obj | int:
            tls = ssl.create_default_context(cafile=str(authority.directory / 'ca.crt'))
            tls.load_cert_chain(*pair)
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as session:
                answer = await session.post(world.base + REVIEW, json={}, headers=said)
                return (await answer.json())['status']['userInfo'] if answer.status == 201 else answer.status

        assert await through(proxies.ensure(Leaf('proxy', 'front-proxy'))) == {
            'username': 'frank', 'groups': ['dev', 'system:authenticated'], 'extra': {'scope': ['a%2Fb']},
        }  # fmt: skip
        # A proxy of another name is nobody at all; a user's own certificate counts, whatever its headers say.
        assert await through(proxies.ensure(Leaf('other', 'other-proxy'))) in (401, 403)
        found = await through(authority.issue('user-mallory', 'mallory'))
        assert isinstance(found, dict)
        assert (found['username'], found['groups']) == ('mallory', ['system:authenticated'])


async def test_strangers_see_health_and_version_and_nothing_else(serve: Any):
    for settings, elsewhere in (({}, 403), ({'anonymous_auth': False}, 401)):
        async with serve(**settings) as world:
            nobody = await world.user()
            for path in ('/healthz', '/livez', '/readyz', '/version'):
                assert (await nobody.get(path)).status == 200, path
            for path in ('/api/v1/pods', '/api/v1/namespaces/default/secrets', '/metrics', '/openapi/v2'):
                assert (await nobody.get(path)).status == elsewhere, path


async def grant(api: Any, user: str, *rules: Obj) -> None:
    await api.post(
        '/apis/rbac.authorization.k8s.io/v1/clusterroles', {'metadata': {'name': user}, 'rules': list(rules)}
    )
    group = 'rbac.authorization.k8s.io'
    await api.post('/apis/rbac.authorization.k8s.io/v1/clusterrolebindings', {
        'metadata': {'name': user}, 'roleRef': {'apiGroup': group, 'kind': 'ClusterRole', 'name': user},
        'subjects': [{'apiGroup': group, 'kind': 'User', 'name': user}],
    })  # fmt: skip
    await api.get('/apis/rbac.authorization.k8s.io/v1/clusterrolebindings')


def may(resource: str, *names: str, group: str = '') -> Obj:
    return {'apiGroups': [group], 'resources': [resource], 'verbs': ['impersonate'], 'resourceNames': list(names)}


async def test_every_part_of_another_identity_needs_its_own_permission(world: SimpleNamespace, api: Any):
    authentication = 'authentication.k8s.io'
    await grant(
        api, 'actor', may('users', 'bob'), may('groups', 'dev'), may('uids', 'u-1', group=authentication),
        may('userextras/scope', 'read', group=authentication), may('serviceaccounts', 'robot'),
    )  # fmt: skip
    actor = await world.user('actor')

    async def act(**headers: str) -> Obj | int:
        return await who(actor, **{f'Impersonate-{k.replace("_", "-")}': v for k, v in headers.items()})

    assert await act(User='bob') == {'username': 'bob', 'groups': ['system:authenticated']}
    assert await act(User='bob', Group='dev', Uid='u-1', Extra_Scope='read') == {
        'username': 'bob', 'uid': 'u-1', 'groups': ['dev', 'system:authenticated'], 'extra': {'scope': ['read']},
    }  # fmt: skip
    robot = await act(User='system:serviceaccount:default:robot')
    assert isinstance(robot, dict)
    assert robot['groups'] == ['system:serviceaccounts', 'system:serviceaccounts:default', 'system:authenticated']
    for beyond in (
        {'User': 'root'}, {'User': 'bob', 'Group': 'system:masters'}, {'User': 'bob', 'Uid': 'u-2'},
        {'User': 'bob', 'Extra_Scope': 'write'}, {'User': 'bob', 'Extra_Other': 'read'},
        {'User': 'system:serviceaccount:default:other'},
    ):  # fmt: skip
        assert await act(**beyond) == 403, beyond
    for headless in ({'Group': 'dev'}, {'Uid': 'u-1'}, {'Extra_Scope': 'read'}):
        assert await act(**headless) == 400, headless
