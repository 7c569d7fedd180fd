"""Who may use the node's server: callers named by certificate or bearer token, let in by the API server's word.

Without webhooks only the API server's own client and members of system:masters are let in. With them a token is asked
about by TokenReview, and what its owner may do by SubjectAccessReview for `nodes/<subresource>`. Answers are kept for
a while, as the kubelet keeps them. Source: pkg/kubelet/server/auth.go, pkg/kubelet/server/server.go InstallAuthFilter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import structlog
from aiohttp import web

from kclient.api import Client
from kclient.errors import ClientError
from kcore.env import Env
from kcore.meta.gvk import Resource
from knode.config import NodeConfig

T = TypeVar('T')
log = structlog.get_logger('knode.access')

API_SERVER_CLIENT = 'kube-apiserver-kubelet-client'
ADMINISTRATORS = 'system:masters'
OPEN_PATHS = frozenset({'/healthz'})
TOKEN_REVIEWS = Resource('authentication.k8s.io', 'v1', 'tokenreviews', 'TokenReview', namespaced=False)
ACCESS_REVIEWS = Resource('authorization.k8s.io', 'v1', 'subjectaccessreviews', 'SubjectAccessReview', namespaced=False)
VERBS = {'GET': 'get', 'HEAD': 'get', 'POST': 'create', 'PUT': 'update', 'PATCH': 'patch', 'DELETE': 'delete'}
TOKEN_TTL_S, ALLOWED_TTL_S, DENIED_TTL_S = 120.0, 300.0, 30.0
ANSWERS_MAX = 1024
SUBRESOURCES: Mapping[str, tuple[str, ...]] = {
    'stats': ('stats',), 'metrics': ('metrics',), 'logs': ('log',), 'checkpoint': ('checkpoint',),
    'pods': ('pods', 'proxy'), 'runningpods': ('pods', 'proxy'), 'configz': ('configz', 'proxy'),
    'healthz': ('healthz', 'proxy'),
}  # fmt: skip
"""First part of the path → subresources of the node, any of which lets in; every other path is `proxy`."""


@dataclass(frozen=True, slots=True)
class User:
    name: str
    groups: tuple[str, ...] = ()
    uid: str = ''
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


def subject(request: web.Request) -> User | None:
    """Of the client certificate; None: it showed none."""
    transport = request.transport
    cert: Mapping[str, Any] = (transport.get_extra_info('peercert') if transport else None) or {}
    pairs = [(k, v) for part in cert.get('subject', ()) for k, v in part]
    name = next((v for k, v in pairs if k == 'commonName'), '')
    return User(name, tuple(v for k, v in pairs if k == 'organizationName')) if name else None


def subresources(path: str) -> tuple[str, ...]:
    return SUBRESOURCES.get(path.strip('/').partition('/')[0], ('proxy',))


class _Answers(Generic[T]):
    """Verdicts with an end to their validity; the oldest goes when there are too many."""

    def __init__(self, env: Env) -> None:
        self._env = env
        self._kept: dict[Any, tuple[float, T]] = {}

    def get(self, key: Any) -> tuple[bool, T | None]:
        """Whether there is a valid answer, and the answer."""
        until, answer = self._kept.get(key, (0.0, None))
        return until > self._env.clock.monotonic(), answer

    def keep(self, key: Any, answer: T, seconds: float) -> None:
        self._kept.pop(key, None)
        self._kept[key] = (self._env.clock.monotonic() + seconds, answer)
        if len(self._kept) > ANSWERS_MAX:
            del self._kept[next(iter(self._kept))]


class Access:
    def __init__(self, config: NodeConfig, env: Env, client: Client) -> None:
        self._config, self._client = config, client
        self._tokens: _Answers[User] = _Answers(env)
        self._verdicts: _Answers[bool] = _Answers(env)

    async def refusal(self, request: web.Request) -> web.Response | None:
        """None: let in."""
        if self._config.client_ca is None or request.path in OPEN_PATHS:
            return None
        try:
            user = subject(request) or await self._bearer(request)
            if user is None:
                return web.Response(status=401, text='Unauthorized\n')
            wanted, verb = subresources(request.path), VERBS.get(request.method, 'get')
            if await self._allowed(user, verb, wanted):
                return None
        except ClientError as e:
            log.warning('caller could not be judged', path=request.path, err=str(e))
            return web.Response(status=500, text=f'Authorization error: {e}\n')
        text = f'Forbidden (user={user.name}, verb={verb}, resource=nodes, subresource(s)=[{" ".join(wanted)}])\n'
        return web.Response(status=403, text=text)

    async def _bearer(self, request: web.Request) -> User | None:
        kind, _, token = request.headers.get('Authorization', '').partition(' ')
        if self._config.authorization_mode != 'Webhook' or kind.lower() != 'bearer' or not token:
            return None
        known, user = self._tokens.get(token)
        return user if known else await self._review(token)

    async def _review(self, token: str) -> User | None:
        answer = await self._client.create(TOKEN_REVIEWS, {'metadata': {}, 'spec': {'token': token}})
        status = answer.get('status') or {}
        found = status.get('user') or {}
        if not status.get('authenticated'):
            return None
        extra = tuple(sorted((k, tuple(v)) for k, v in (found.get('extra') or {}).items()))
        user = User(found['username'], tuple(found.get('groups') or ()), found.get('uid') or '', extra)
        self._tokens.keep(token, user, TOKEN_TTL_S)
        return user

    async def _allowed(self, user: User, verb: str, wanted: tuple[str, ...]) -> bool:
        if ADMINISTRATORS in user.groups or user.name == API_SERVER_CLIENT:
            return True
        if self._config.authorization_mode != 'Webhook':
            return False
        for part in wanted:
            if await self._may(user, verb, part):
                return True
        return False

    async def _may(self, user: User, verb: str, part: str) -> bool:
        key = (user, verb, part)
        known, allowed = self._verdicts.get(key)
        if known:
            return bool(allowed)
        about = {'verb': verb, 'resource': 'nodes', 'subresource': part, 'name': self._config.name, 'version': 'v1'}
        spec = {
            'user': user.name, 'groups': list(user.groups), 'uid': user.uid,
            'extra': {k: list(v) for k, v in user.extra}, 'resourceAttributes': about,
        }  # fmt: skip
        answer = await self._client.create(ACCESS_REVIEWS, {'metadata': {}, 'spec': spec})
        allowed = bool((answer.get('status') or {}).get('allowed'))
        self._verdicts.keep(key, allowed, ALLOWED_TTL_S if allowed else DENIED_TTL_S)
        return allowed
