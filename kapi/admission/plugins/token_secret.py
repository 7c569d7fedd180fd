"""Secrets of type service-account-token get their token when they are written.

Differs from upstream, where a controller fills them in a moment later: here the key that signs is the API server's
own, and no other process needs it. See docs/divergences.md.
"""

from __future__ import annotations

import base64
from collections.abc import Callable

from kapi.admission.chain import Attributes, Operation, Plugin
from kapi.authn.tokens import Tokens
from kapi.storage.cache import Cache
from kcore.meta.tokensecrets import ACCOUNT, ACCOUNT_UID, TYPE


class TokenSecret(Plugin):
    name = 'TokenSecret'
    operations: frozenset[Operation] = frozenset({'CREATE', 'UPDATE'})
    about = frozenset({('', 'secrets')})

    def __init__(self, cache: Cache, tokens: Tokens, authority: Callable[[], bytes]) -> None:
        self._cache = cache
        self._tokens = tokens
        self._authority = authority

    async def mutate(self, a: Attributes) -> None:
        if not a.is_for('', 'secrets') or a.obj is None or a.obj.get('type') != TYPE:
            return
        annotations = a.obj['metadata'].get('annotations') or {}
        data = a.obj.get('data') or {}
        name = annotations.get(ACCOUNT)
        if not name or data.get('token') or not a.obj['metadata'].get('name'):
            return
        key = f'/registry/serviceaccounts/{a.namespace}/{name}'
        entry = self._cache.peek(key)
        if entry is None:
            await self._cache.fresh()
            entry = self._cache.peek(key)
        if entry is None or annotations.get(ACCOUNT_UID) not in {None, '', entry.obj['metadata']['uid']}:
            return
        annotations[ACCOUNT_UID] = entry.obj['metadata']['uid']
        token = self._tokens.issue_legacy(entry.obj, a.obj['metadata']['name'])
        filled = {'token': token.encode(), 'namespace': a.namespace.encode(), 'ca.crt': self._authority()}
        a.obj['data'] = {**data, **{k: base64.b64encode(v).decode() for k, v in filled.items() if k not in data}}
