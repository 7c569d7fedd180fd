"""Service account tokens: who gets which, and every way in which one is no good."""

from __future__ import annotations

import base64
import datetime
from types import SimpleNamespace
from typing import Any

import jwt
import pytest

from kapi.authn import keys
from kclient.certificates import key_pem
from kcore.meta.tokensecrets import INVALID_SINCE, LAST_USED, TRACKING

CORE = '/api/v1/namespaces/default'
ACCOUNT = f'{CORE}/serviceaccounts/app'
ISSUER = 'https://kubernetes.default.svc.cluster.local'


def bearer(token: str) -> dict[str, str]:
    return {'Authorization': f'Bearer {token}'}


@pytest.fixture
async def account(api: Any) -> Any:
    made = await api.post(f'{CORE}/serviceaccounts', {'metadata': {'name': 'app'}})
    assert made.status == 201, made.text
    return made.json


async def ask(api: Any, **spec: Any) -> SimpleNamespace:
    body = {'apiVersion': 'authentication.k8s.io/v1', 'kind': 'TokenRequest', 'spec': spec}
    return await api.post(f'{ACCOUNT}/token', body)


async def whoami(world: Any, token: str) -> SimpleNamespace:
    nobody = await world.user()
    return await nobody.post('/apis/authentication.k8s.io/v1/selfsubjectreviews', {}, headers=bearer(token))


async def review(api: Any, token: str, *audiences: str) -> Any:
    spec = {'token': token, 'audiences': list(audiences)}
    return (await api.post('/apis/authentication.k8s.io/v1/tokenreviews', {'spec': spec})).json


async def test_a_requested_token_speaks_for_its_account(world: Any, api: Any, account: Any) -> None:
    made = await ask(api)
    assert made.status == 201, made.text
    assert made.json['spec'] == {'audiences': [ISSUER], 'expirationSeconds': 3600}
    found = await whoami(world, made.json['status']['token'])
    user = found.json['status']['userInfo']
    assert user['username'] == 'system:serviceaccount:default:app'
    assert set(user['groups']) == {'system:serviceaccounts', 'system:serviceaccounts:default', 'system:authenticated'}
    assert user['uid'] == account['metadata']['uid']


async def test_a_token_shorter_than_ten_minutes_is_not_given(api: Any, account: Any) -> None:
    made = await ask(api, expirationSeconds=599)
    assert made.status == 422
    assert 'may not specify a duration less than 10 minutes' in made.json['message']


async def test_a_pods_token_names_it_and_dies_with_it(world: Any, api: Any, account: Any) -> None:
    spec = {
        'serviceAccountName': 'app',
        'containers': [{'name': 'c', 'image': 'i'}],
        'terminationGracePeriodSeconds': 0,
    }
    pod = (await api.post(f'{CORE}/pods', {'metadata': {'name': 'p'}, 'spec': spec})).json
    uid = pod['metadata']['uid']
    ref = {'apiVersion': 'v1', 'kind': 'Pod', 'name': 'p', 'uid': uid}
    token = (await ask(api, boundObjectRef=ref)).json['status']['token']
    extra = (await whoami(world, token)).json['status']['userInfo']['extra']
    assert extra['authentication.kubernetes.io/pod-name'] == ['p']
    assert extra['authentication.kubernetes.io/pod-uid'] == [uid]
    assert (await ask(api, boundObjectRef={**ref, 'uid': 'other'})).status == 409
    assert (await api.delete(f'{CORE}/pods/p?gracePeriodSeconds=0')).status == 200
    assert (await whoami(world, token)).status == 401
    answer = await review(api, token)
    assert 'pod p of the token has been deleted' in answer['status']['error']


async def test_a_pod_of_another_account_is_no_ground_for_a_token(api: Any, account: Any) -> None:
    await api.post(f'{CORE}/pods', {'metadata': {'name': 'p'}, 'spec': {'containers': [{'name': 'c', 'image': 'i'}]}})
    made = await ask(api, boundObjectRef={'apiVersion': 'v1', 'kind': 'Pod', 'name': 'p'})
    assert made.status == 400
    assert 'different serviceaccount' in made.json['message']


async def test_a_secrets_token_dies_with_the_secret(world: Any, api: Any, account: Any) -> None:
    await api.post(f'{CORE}/secrets', {'metadata': {'name': 's'}})
    token = (await ask(api, boundObjectRef={'apiVersion': 'v1', 'kind': 'Secret', 'name': 's'})).json['status']['token']
    assert (await whoami(world, token)).status == 201
    await api.delete(f'{CORE}/secrets/s')
    assert (await whoami(world, token)).status == 401


async def test_a_deleted_account_is_nobody_even_when_its_name_is_used_again(world: Any, api: Any, account: Any) -> None:
    token = (await ask(api)).json['status']['token']
    await api.delete(ACCOUNT)
    assert (await whoami(world, token)).status == 401
    await api.post(f'{CORE}/serviceaccounts', {'metadata': {'name': 'app'}})
    assert (await whoami(world, token)).status == 401


async def test_a_token_for_others_opens_nothing_here_but_reviews_well(world: Any, api: Any, account: Any) -> None:
    token = (await ask(api, audiences=['vault'])).json['status']['token']
    assert (await whoami(world, token)).status == 401
    answer = await review(api, token, 'vault', 'elsewhere')
    assert answer['status']['authenticated'] is True
    assert answer['status']['audiences'] == ['vault']
    assert 'token' not in answer['spec']
    assert (await review(api, token, 'elsewhere'))['status'].get('authenticated') is None


def forged(world: Any, account: Any, **changes: Any) -> dict[str, Any]:
    now = int(datetime.datetime.now(datetime.UTC).timestamp())
    names = {'name': 'app', 'uid': account['metadata']['uid']}
    return {
        'iss': ISSUER, 'aud': [ISSUER], 'sub': 'system:serviceaccount:default:app', 'iat': now, 'nbf': now,
        'exp': now + 3600, 'kubernetes.io': {'namespace': 'default', 'serviceaccount': names}, **changes,
    }  # fmt: skip


def signed(world: Any, claims: dict[str, Any]) -> str:
    own = world.server.tokens.keys
    return jwt.encode(claims, own.signing, algorithm='ES256', headers={'kid': own.signer.id})


async def test_what_the_cluster_signed_itself_is_believed(world: Any, account: Any) -> None:
    assert (await whoami(world, signed(world, forged(world, account)))).status == 201


@pytest.mark.parametrize(
    'change',
    [
        {'exp': 1_000}, {'exp': None}, {'exp': 'never'}, {'nbf': 4_000_000_000}, {'iat': 4_000_000_000},
        {'aud': ['other']}, {'aud': []}, {'iss': 'https://elsewhere'},
        {'sub': 'system:serviceaccount:kube-system:admin'}, {'kubernetes.io': {}},
    ],
)  # fmt: skip
async def test_expired_future_foreign_and_twisted_claims_are_401(world: Any, account: Any, change: Any) -> None:
    assert (await whoami(world, signed(world, forged(world, account, **change)))).status == 401


async def test_wrong_keys_and_algorithms_are_401(world: Any, account: Any) -> None:
    claims, own = forged(world, account), world.server.tokens.keys.signer
    other = keys.new_key()
    public = own.key.public_bytes(keys.serialization.Encoding.DER, keys.serialization.PublicFormat.SubjectPublicKeyInfo)
    tokens = [
        jwt.encode(claims, other, algorithm='ES256', headers={'kid': own.id}),
        jwt.encode(claims, other, algorithm='ES256', headers={'kid': keys.verifier(other.public_key()).id}),
        jwt.encode(claims, None, algorithm='none', headers={'kid': own.id}),
        jwt.encode(claims, base64.b64encode(public), algorithm='HS256', headers={'kid': own.id}),
        signed(world, claims)[:-4] + 'AAAA',
        'a.b.c',
        'rubbish',
        'x' * 7_000,
    ]
    for token in tokens:
        assert (await whoami(world, token)).status == 401, token[:40]


@pytest.mark.parametrize('header', [
    {'jku': 'https://elsewhere/keys'}, {'x5u': 'https://elsewhere/chain'}, {'jwk': ...}, {'kid': '../../dev/null'},
    {'kid': 'nobody'}, {'kid': ''}, {'crit': ['x'], 'x': 1},
])  # fmt: skip
async def test_a_token_does_not_say_by_which_key_it_is_judged(world: Any, account: Any, header: Any) -> None:
    claims, own = forged(world, account), world.server.tokens.keys
    other = keys.new_key()
    if 'jwk' in header:
        header = {'jwk': jwt.algorithms.ECAlgorithm.to_jwk(other.public_key(), as_dict=True)}
    token = jwt.encode(claims, other, algorithm='ES256', headers={'kid': own.signer.id, **header})
    assert (await whoami(world, token)).status == 401
    if 'kid' in header or 'crit' in header:  # also with the right key: nobody knows what else it would mean
        token = jwt.encode(claims, own.signing, algorithm='ES256', headers={'kid': own.signer.id, **header})
        assert (await whoami(world, token)).status == 401


async def test_an_old_style_secret_gets_a_token_that_dies_with_it(world: Any, api: Any, account: Any) -> None:
    meta = {'name': 'old', 'annotations': {'kubernetes.io/service-account.name': 'app'}}
    body = {'metadata': meta, 'type': 'kubernetes.io/service-account-token'}
    made = await api.post(f'{CORE}/secrets', body)
    assert made.status == 201, made.text
    data = {k: base64.b64decode(v).decode() for k, v in made.json['data'].items()}
    assert set(data) == {'token', 'namespace', 'ca.crt'}
    assert (await whoami(world, data['token'])).json['status']['userInfo']['username'].endswith(':app')
    await api.delete(f'{CORE}/secrets/old')
    assert (await whoami(world, data['token'])).status == 401


async def test_the_day_on_which_a_secrets_token_was_used_is_noted_and_an_invalid_one_is_refused(
    world: Any, api: Any, account: Any
) -> None:
    meta = {'name': 'old', 'annotations': {'kubernetes.io/service-account.name': 'app'}}
    made = await api.post(f'{CORE}/secrets', {'metadata': meta, 'type': 'kubernetes.io/service-account-token'})
    token = base64.b64decode(made.json['data']['token']).decode()
    today = f'{world.server.env.clock.wall():%Y-%m-%d}'
    since = await api.get('/api/v1/namespaces/kube-system/configmaps/' + TRACKING)
    assert since.json['data'] == {'since': today}
    assert (await whoami(world, token)).status == 201
    held = (await api.get(f'{CORE}/secrets/old')).json['metadata']
    assert held['labels'] == {LAST_USED: today}
    assert (await whoami(world, token)).status == 201
    again = (await api.get(f'{CORE}/secrets/old')).json['metadata']
    assert again['resourceVersion'] == held['resourceVersion'], 'once a day is enough'
    merge = {'Content-Type': 'application/merge-patch+json'}
    labels = {INVALID_SINCE: today, LAST_USED: None}
    await api.patch(f'{CORE}/secrets/old', {'metadata': {'labels': labels}}, headers=merge)
    assert (await whoami(world, token)).status == 401
    refused = (await review(api, token))['status']['error']
    assert 'the token in secret default/old for service account default/app has been marked invalid.' in refused
    assert (await api.get(f'{CORE}/secrets/old')).json['metadata']['labels'] == {INVALID_SINCE: today, LAST_USED: today}


async def test_the_published_keys_verify_our_tokens(world: Any, api: Any, account: Any) -> None:
    reader = await world.user()
    token = (await ask(api)).json['status']['token']
    about = await reader.get('/.well-known/openid-configuration', headers=bearer(token))
    assert about.status == 200
    assert about.json['issuer'] == ISSUER
    published = jwt.PyJWKSet.from_json((await reader.get('/openid/v1/jwks', headers=bearer(token))).text)
    kid = jwt.get_unverified_header(token)['kid']
    claims = jwt.decode(token, published[kid].key, algorithms=['ES256'], audience=ISSUER, issuer=ISSUER)
    assert claims['sub'] == 'system:serviceaccount:default:app'
    assert (await reader.get('/openid/v1/jwks')).status == 403


async def test_pods_carry_the_token_unless_pod_or_account_says_no(api: Any, account: Any) -> None:
    async def mounts(name: str, **spec: Any) -> list[str]:
        body = {'metadata': {'name': name}, 'spec': {'containers': [{'name': 'c', 'image': 'i'}], **spec}}
        pod = (await api.post(f'{CORE}/pods', body)).json
        return [m['mountPath'] for m in pod['spec']['containers'][0].get('volumeMounts') or ()]

    path = '/var/run/secrets/kubernetes.io/serviceaccount'
    assert await mounts('a') == [path]
    assert await mounts('b', automountServiceAccountToken=False) == []
    await api.patch(ACCOUNT, {'automountServiceAccountToken': False})
    await api.get(ACCOUNT)
    assert await mounts('c', serviceAccountName='app') == []
    assert await mounts('d', serviceAccountName='app', automountServiceAccountToken=True) == [path]


async def test_a_new_key_signs_without_a_restart_and_the_old_ones_tokens_end_with_their_key(serve: Any, tmp_path: Any):
    file = tmp_path / 'sa.key'
    old, new = (key_pem(keys.new_key()) for _ in range(2))
    file.write_bytes(old)
    async with serve(service_account_signing_key_file=file) as world:
        admin = await world.user('admin', 'system:masters')
        await admin.post(f'{CORE}/serviceaccounts', {'metadata': {'name': 'app'}})
        first = (await ask(admin)).json['status']['token']
        assert (await whoami(world, first)).status == 201
        file.write_bytes(new + old)
        source = world.server.tokens.source
        source.current(now=True)
        second = (await ask(admin)).json['status']['token']
        assert jwt.get_unverified_header(first)['kid'] != jwt.get_unverified_header(second)['kid']
        for token in (first, second):
            assert (await whoami(world, token)).status == 201
        listed = (await admin.get('/openid/v1/jwks')).text
        assert listed.count('"kid"') == 2
        file.write_bytes(new)
        source.current(now=True)
        assert [(await whoami(world, t)).status for t in (first, second)] == [401, 201]
        file.write_bytes(b'nonsense')
        source.current(now=True)
        assert (await whoami(world, second)).status == 201
