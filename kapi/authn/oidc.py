"""OpenID Connect: ID tokens of an identity provider, verified with the keys that it publishes.

The provider's documents are fetched at the first token and again when a token names an unknown key, at most every
REFRESH_S. Source: apiserver plugin/pkg/authenticator/token/oidc/oidc.go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jwt
import structlog

from kapi.authn.bearer import Identified
from kapi.authn.remote import Remote, RemoteError
from kapi.authn.tokens import TOKEN_BYTES_MAX, BadToken
from kapi.authn.user import AUTHENTICATED, User
from kcore.env import Env

Obj = dict[str, Any]
log = structlog.get_logger('kapi.authn.oidc')
REFRESH_S = 10.0


@dataclass(frozen=True, slots=True)
class OidcSettings:
    issuer: str
    client_id: str
    username_claim: str = 'sub'
    username_prefix: str = ''
    groups_claim: str = ''
    groups_prefix: str = ''
    required_claims: tuple[tuple[str, str], ...] = ()
    algorithms: tuple[str, ...] = ('RS256',)


class Oidc:
    name = 'oidc'

    def __init__(self, settings: OidcSettings, remote: Remote, env: Env) -> None:
        self._settings = settings
        self._remote = remote
        self._env = env
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched: float | None = None
        self._lock = asyncio.Lock()

    async def identify(self, token: str, audiences: Sequence[str]) -> Identified | None:
        if len(token) > TOKEN_BYTES_MAX or token.count('.') != 2:
            return None
        try:
            head = jwt.get_unverified_header(token)
            claims = jwt.decode(token, options={'verify_signature': False})
        except jwt.PyJWTError:
            return None
        if claims.get('iss') != self._settings.issuer:
            return None
        return Identified(self._user(await self._verify(token, head)), tuple(audiences))

    async def _verify(self, token: str, head: Obj) -> Obj:
        key = await self._key(str(head.get('kid') or ''))
        algorithm = head.get('alg')
        if algorithm not in self._settings.algorithms or (key.algorithm_name and key.algorithm_name != algorithm):
            raise BadToken(f'oidc: algorithm {algorithm} is not accepted')
        off = {'verify_exp': False, 'verify_nbf': False, 'verify_iat': False, 'verify_aud': False}
        try:
            claims: Obj = jwt.decode(token, key.key, algorithms=[head['alg']], options=off)  # type: ignore[arg-type]
        except jwt.PyJWTError as e:
            raise BadToken(f'oidc: {type(e).__name__}') from None
        now = self._env.clock.wall().timestamp()
        if not isinstance(claims.get('exp'), int | float) or claims['exp'] <= now:
            raise BadToken('oidc: token is expired')
        if isinstance(claims.get('nbf'), int | float) and claims['nbf'] > now + 10:
            raise BadToken('oidc: token is not valid yet')
        audience = claims.get('aud')
        if self._settings.client_id not in ([audience] if isinstance(audience, str) else audience or ()):
            raise BadToken('oidc: expected another audience')
        for claim, value in self._settings.required_claims:
            if claims.get(claim) != value:
                raise BadToken(f'oidc: required claim {claim} is missing or has another value')
        return claims

    def _user(self, claims: Obj) -> User:
        settings = self._settings
        name = claims.get(settings.username_claim)
        if not isinstance(name, str) or not name:
            raise BadToken(f'oidc: claim {settings.username_claim} is missing')
        if settings.username_claim == 'email' and claims.get('email_verified', True) is not True:
            raise BadToken('oidc: email not verified')
        groups = claims.get(settings.groups_claim) if settings.groups_claim else None
        listed = [groups] if isinstance(groups, str) else groups or []
        prefixed = tuple(f'{settings.groups_prefix}{g}' for g in listed if isinstance(g, str))
        if not settings.groups_prefix:
            # Nobody outside may name our own groups.
            prefixed = tuple(g for g in prefixed if not g.startswith('system:'))
        user = f'{settings.username_prefix}{name}'
        if user.startswith('system:'):
            raise BadToken('oidc: the user name belongs to the system')
        return User(user, (*prefixed, AUTHENTICATED))

    async def _key(self, kid: str) -> jwt.PyJWK:
        async with self._lock:
            now = self._env.clock.monotonic()
            if kid not in self._keys and (self._fetched is None or now - self._fetched >= REFRESH_S):
                self._fetched = now
                await self._fetch()
        found = self._keys.get(kid)
        if found is None:
            raise BadToken('oidc: the token was signed with an unknown key')
        return found

    async def _fetch(self) -> None:
        try:
            about = await self._remote.call('GET', f'{self._settings.issuer}/.well-known/openid-configuration')
            if about.get('issuer') != self._settings.issuer:
                raise RemoteError(f'the provider calls itself {about.get("issuer")}')
            self._keys = {
                str(k.key_id or ''): k
                for k in jwt.PyJWKSet.from_dict(await self._remote.call('GET', str(about['jwks_uri']))).keys
            }
        except (RemoteError, jwt.PyJWTError, KeyError) as e:
            log.warning('keys of the identity provider were not fetched', err=str(e))
            raise BadToken('oidc: the identity provider did not answer') from e
