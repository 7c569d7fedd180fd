"""Service accounts as callers: a token is good while its account, and what it is bound to, still exist.

The objects are read from the watch cache, so a check costs no store access; an object that seems to be missing is
looked for once more after the cache has caught up. Source: pkg/serviceaccount/{claims,legacy}.go.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

from kapi.authn.bearer import Identified
from kapi.authn.tokens import BadToken, Bound, Claims, Tokens
from kapi.authn.user import AUTHENTICATED, User
from kapi.storage.cache import Cache
from kcore.env import Env
from kcore.meta.times import parse_time
from kcore.meta.tokensecrets import INVALID_SINCE, TYPE

Obj = dict[str, Any]
GROUP = 'system:serviceaccounts'
DELETED_GRACE = timedelta(seconds=60)
"""A pod that is being deleted may still speak for its grace period and this much longer."""
_PREFIXES = {'Pod': '/registry/pods/', 'Secret': '/registry/secrets/', 'Node': '/registry/nodes/'}


async def _nothing(_secret: Obj) -> None:
    return


class ServiceAccountTokens:
    name = 'service account'

    def __init__(
        self, tokens: Tokens, cache: Cache, env: Env, note_use: Callable[[Obj], Awaitable[None]] = _nothing
    ) -> None:
        """note_use: hears of every Secret whose token is shown."""
        self._note_use = note_use
        self._tokens = tokens
        self._cache = cache
        self._env = env

    async def identify(self, token: str, audiences: Sequence[str]) -> Identified | None:
        if not self._tokens.ours(token):
            return None
        claims = self._tokens.check(token, audiences)
        account = await self._find(f'/registry/serviceaccounts/{claims.namespace}/{claims.account}', claims.account_uid)
        if account is None or self._ended(account):
            raise BadToken('service account has been deleted')
        for bound in claims.bound:
            await self._check_bound(bound, claims, token)
        return Identified(await self._user(claims), claims.audiences)

    async def _check_bound(self, bound: Bound, claims: Claims, token: str) -> None:
        place = bound.name if bound.kind == 'Node' else f'{claims.namespace}/{bound.name}'
        # A node that comes with a pod is told, not checked: the pod is gone when its node is.
        if bound.kind == 'Node' and any(b.kind == 'Pod' for b in claims.bound):
            return
        found = await self._find(_PREFIXES[bound.kind] + place, bound.uid)
        if found is None or self._ended(found):
            raise BadToken(f'{bound.kind.lower()} {bound.name} of the token has been deleted')
        if claims.legacy:
            kept = (found.get('data') or {}).get('token') or ''
            if not hmac.compare_digest(base64.b64decode(kept), token.encode()):
                raise BadToken('the token is not the one in its secret')
        if found.get('type') == TYPE:
            await self._use(found, claims)

    async def _use(self, secret: Obj, claims: Claims) -> None:
        await self._note_use(secret)
        if (secret['metadata'].get('labels') or {}).get(INVALID_SINCE):
            namespace, name = claims.namespace, secret['metadata']['name']
            what = f'the token in secret {namespace}/{name} for service account {namespace}/{claims.account}'
            raise BadToken(
                f'{what} has been marked invalid. Use tokens from the TokenRequest API or manually created '
                f"secret-based tokens, or remove the '{INVALID_SINCE}' label from the secret to temporarily allow use "
                'of this token'
            )

    async def _find(self, key: str, uid: str) -> Obj | None:
        """The live object under `key` with `uid` (any when empty)."""
        for attempt in (1, 2):
            entry = self._cache.peek(key)
            if entry is not None and (not uid or entry.obj['metadata']['uid'] == uid):
                return entry.obj
            if attempt == 1:
                await self._cache.fresh()
        return None

    def _ended(self, obj: Obj) -> bool:
        deleted = obj['metadata'].get('deletionTimestamp')
        return bool(deleted) and self._env.clock.wall() > parse_time(deleted) + DELETED_GRACE

    async def _user(self, claims: Claims) -> User:
        extra: dict[str, tuple[str, ...]] = {}
        if claims.id:
            extra['authentication.kubernetes.io/credential-id'] = (f'JTI={claims.id}',)
        for bound in claims.bound:
            if bound.kind in {'Pod', 'Node'}:
                kind = bound.kind.lower()
                extra[f'authentication.kubernetes.io/{kind}-name'] = (bound.name,)
                extra[f'authentication.kubernetes.io/{kind}-uid'] = (bound.uid,)
        return account_user(claims.namespace, claims.account, claims.account_uid, extra)


def account_user(namespace: str, name: str, uid: str, extra: dict[str, tuple[str, ...]] | None = None) -> User:
    groups = (GROUP, f'{GROUP}:{namespace}', AUTHENTICATED)
    return User(f'system:serviceaccount:{namespace}:{name}', groups, uid, extra or {})
