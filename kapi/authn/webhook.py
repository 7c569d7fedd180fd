"""Webhook token authentication: another service says whose token it is, by TokenReview; answers are kept a while."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import structlog

from kapi.authn.bearer import Identified
from kapi.authn.remote import Remote, RemoteError
from kapi.authn.tokens import BadToken
from kapi.authn.user import AUTHENTICATED, User
from kcore.env import Env

Obj = dict[str, Any]
log = structlog.get_logger('kapi.authn.webhook')
CACHE_S = 120.0
CACHED_MAX = 4_096
"""Answers kept; the oldest goes first. Keys are hashes, so that no token lies in memory longer than its request."""


class WebhookTokens:
    name = 'webhook'

    def __init__(self, remote: Remote, env: Env) -> None:
        self._remote = remote
        self._env = env
        self._cached: dict[bytes, tuple[float, Identified]] = {}

    async def identify(self, token: str, audiences: Sequence[str]) -> Identified | None:
        key = hashlib.sha256('\x00'.join((token, *audiences)).encode()).digest()
        now = self._env.clock.monotonic()
        kept = self._cached.get(key)
        if kept is not None and kept[0] > now:
            return kept[1]
        found = await self._ask(token, audiences)
        if found is not None:
            if len(self._cached) >= CACHED_MAX:
                self._cached.pop(next(iter(self._cached)))
            self._cached[key] = (now + CACHE_S, found)
        return found

    async def _ask(self, token: str, audiences: Sequence[str]) -> Identified | None:
        spec = {'token': token, 'audiences': list(audiences)}
        review = {'apiVersion': 'authentication.k8s.io/v1', 'kind': 'TokenReview', 'spec': spec}
        try:
            status: Obj = (await self._remote.post(review)).get('status') or {}
        except RemoteError as e:
            log.warning('token webhook failed', err=str(e))
            raise BadToken('the token webhook did not answer') from e
        if not status.get('authenticated'):
            if status.get('error'):
                raise BadToken(str(status['error']))
            return None
        user = status.get('user') or {}
        extra = {str(k): tuple(map(str, v)) for k, v in (user.get('extra') or {}).items()}
        groups = (*map(str, user.get('groups') or ()), AUTHENTICATED)
        shared = (
            tuple(a for a in audiences if a in status['audiences']) if status.get('audiences') else tuple(audiences)
        )
        if not shared:
            return None
        return Identified(User(str(user.get('username') or ''), groups, str(user.get('uid') or ''), extra), shared)
