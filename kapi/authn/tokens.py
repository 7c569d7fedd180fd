"""Service account tokens: JSON Web Tokens that name an account, an audience, an end, and what they are bound to.

Pure but for the clock: `issue` signs claims, `check` takes a token apart and refuses what is not ours, not now or not
for this audience. Whether the account and the bound object still exist is asked by `service_account.py`.
Algorithms are never taken from the token: each key has one. Source: pkg/serviceaccount/claims.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import jwt

from kapi.authn.keys import KeySet, KeySource
from kcore.env import Env

Obj = dict[str, Any]
PRIVATE = 'kubernetes.io'
LEGACY_ISSUER = 'kubernetes/serviceaccount'
LEGACY = 'kubernetes.io/serviceaccount'
TOKEN_BYTES_MAX = 16 * 1024
"""A longer token is refused unread."""
VERIFIED_MAX = 4_096
"""Tokens whose signature was checked once and need not be again; the oldest goes first."""
LEEWAY_S = 10
"""Tolerated difference between two API servers' clocks."""


class BadToken(Exception):
    """The token claims to be ours and is no good; the text is for the log and for TokenReview."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What a token dies with: a Pod, Secret or Node."""

    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Claims:
    """What a good token says."""

    namespace: str
    account: str
    account_uid: str
    audiences: tuple[str, ...]
    bound: tuple[Bound, ...] = ()
    id: str = ''
    legacy: bool = False


@dataclass(slots=True)
class Tokens:
    """Issues and checks; every API server with the same keys and issuer agrees."""

    source: KeySource
    issuer: str
    audiences: tuple[str, ...]
    """What the API itself answers to; also the default of a request."""
    env: Env
    _verified: dict[str, Obj] = field(default_factory=dict)
    _believed: KeySet | None = None
    """The keys by which `_verified` were checked."""

    @property
    def keys(self) -> KeySet:
        return self._with(self.source.current())

    def _with(self, keys: KeySet) -> KeySet:
        if keys is not self._believed:  # a key that was taken away takes its tokens along
            self._verified.clear()
            self._believed = keys
        return keys

    def issue(self, account: Obj, audiences: Sequence[str], lifetime_s: int, bound: Sequence[Bound] = ()) -> str:
        """A token for a ServiceAccount object."""
        now = int(self.env.clock.wall().timestamp())
        meta = account['metadata']
        private: Obj = {
            'namespace': meta['namespace'],
            'serviceaccount': {'name': meta['name'], 'uid': meta['uid']},
            **{b.kind.lower(): {'name': b.name, 'uid': b.uid} for b in bound},
        }
        claims = {
            'aud': list(audiences),
            'exp': now + lifetime_s,
            'iat': now,
            'nbf': now,
            'iss': self.issuer,
            'jti': self.env.new_uid(),
            'sub': f'system:serviceaccount:{meta["namespace"]}:{meta["name"]}',
            PRIVATE: private,
        }
        return self._sign(claims)

    def issue_legacy(self, account: Obj, secret_name: str) -> str:
        """A token without an end, for a Secret of type service-account-token; it dies with the Secret."""
        meta = account['metadata']
        return self._sign(
            {
                'iss': LEGACY_ISSUER,
                'sub': f'system:serviceaccount:{meta["namespace"]}:{meta["name"]}',
                f'{LEGACY}/namespace': meta['namespace'],
                f'{LEGACY}/secret.name': secret_name,
                f'{LEGACY}/service-account.name': meta['name'],
                f'{LEGACY}/service-account.uid': meta['uid'],
            }
        )

    def _sign(self, claims: Obj) -> str:
        keys = self.keys
        signer = keys.signer
        return jwt.encode(claims, keys.signing, algorithm=signer.algorithm, headers={'kid': signer.id})

    def ours(self, token: str) -> bool:
        """Whether the token names one of our issuers; says nothing of its truth."""
        if len(token) > TOKEN_BYTES_MAX or token.count('.') != 2:
            return False
        if token in self._verified:
            return True
        try:
            claims = jwt.decode(token, options={'verify_signature': False})
        except jwt.PyJWTError:
            return False
        return claims.get('iss') in {self.issuer, LEGACY_ISSUER}

    def check(self, token: str, audiences: Sequence[str]) -> Claims:
        """Raises BadToken. `audiences`: at least one of them must be the token's."""
        self._with(self.source.current())
        claims = self._verified.get(token)
        if claims is None:
            claims = self._verify(token)
            if len(self._verified) >= VERIFIED_MAX:
                self._verified.pop(next(iter(self._verified)))
            self._verified[token] = claims
        return _legacy(claims, audiences) if claims.get('iss') == LEGACY_ISSUER else self._bound(claims, audiences)

    def _verify(self, token: str) -> Obj:
        try:
            name = str(jwt.get_unverified_header(token).get('kid'))
            # An unknown key may be the newest, with which another server began to sign a moment ago.
            key = self.keys.verifiers.get(name) or self._with(self.source.current(now=True)).verifiers.get(name)
            if key is None:
                raise BadToken('the token was signed with an unknown key')
            # Times are checked by hand, against the clock that we were given.
            off = {'verify_exp': False, 'verify_nbf': False, 'verify_iat': False, 'verify_aud': False}
            found: Obj = jwt.decode(token, key.key, algorithms=[key.algorithm], options=off)  # type: ignore[arg-type]
        except jwt.PyJWTError as e:
            raise BadToken(f'invalid bearer token: {type(e).__name__}') from None
        return found

    def _bound(self, claims: Obj, audiences: Sequence[str]) -> Claims:
        now = self.env.clock.wall()
        stamp, leeway = now.timestamp(), timedelta(seconds=LEEWAY_S).total_seconds()
        times = [claims.get(k) for k in ('exp', 'nbf', 'iat')]
        if not all(isinstance(t, int | float) for t in times):
            raise BadToken('the token lacks exp, nbf or iat')
        expires, begins, issued = times
        if stamp >= float(expires or 0):
            raise BadToken('service account token has expired')
        if stamp + leeway < max(float(begins or 0), float(issued or 0)):
            raise BadToken('service account token is not valid yet')
        private = claims.get(PRIVATE)
        listed = claims.get('aud')
        if isinstance(listed, str):
            listed = [listed]
        if claims.get('iss') != self.issuer or not isinstance(private, dict) or not isinstance(listed, list):
            raise BadToken('the token was not issued by this cluster')
        shared = tuple(a for a in audiences if a in listed)
        if not shared:
            raise BadToken(f'token audiences {listed} is invalid for the target audiences {list(audiences)}')
        account = private.get('serviceaccount') or {}
        if claims.get('sub') != f'system:serviceaccount:{private.get("namespace")}:{account.get("name")}':
            raise BadToken('subject and claims differ')
        bound = tuple(
            Bound(kind, str(private[kind.lower()].get('name')), str(private[kind.lower()].get('uid')))
            for kind in ('Pod', 'Secret', 'Node')
            if isinstance(private.get(kind.lower()), dict)
        )
        names = str(private['namespace']), str(account.get('name')), str(account.get('uid'))
        return Claims(*names, shared, bound, str(claims.get('jti') or ''))


def _legacy(claims: Obj, audiences: Sequence[str]) -> Claims:
    def at(name: str) -> str:
        return str(claims.get(f'{LEGACY}/{name}') or '')

    namespace, account = at('namespace'), at('service-account.name')
    if claims.get('sub') != f'system:serviceaccount:{namespace}:{account}' or not at('secret.name'):
        raise BadToken('subject and claims differ')
    bound = (Bound('Secret', at('secret.name'), ''),)
    return Claims(namespace, account, at('service-account.uid'), tuple(audiences), bound, legacy=True)
