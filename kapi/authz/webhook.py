"""Webhook authorization: another service says who may do what, by SubjectAccessReview; answers are kept a while.

Asked last, so that it can only add to what roles allow; no answer is no opinion.
Source: apiserver plugin/pkg/authorizer/webhook.
"""

from __future__ import annotations

from typing import Any

import structlog

from kapi.authn.remote import Remote, RemoteError
from kapi.authz.union import NO_OPINION, Attributes, Decision
from kcore.env import Env

Obj = dict[str, Any]
log = structlog.get_logger('kapi.authz.webhook')
ALLOWED_S, OTHERS_S = 300.0, 30.0
"""How long an answer is kept."""
CACHED_MAX = 4_096
"""Answers kept; the oldest goes first."""


class WebhookAuthorizer:
    name = 'webhook'

    def __init__(self, remote: Remote, env: Env) -> None:
        self._remote = remote
        self._env = env
        self._cached: dict[tuple[object, ...], tuple[float, Decision]] = {}

    async def decide(self, a: Attributes) -> Decision:
        user = a.user
        key = (user.name, user.groups, user.uid, tuple(sorted(user.extra.items())), *a[1:])
        now = self._env.clock.monotonic()
        kept = self._cached.get(key)
        if kept is not None and kept[0] > now:
            return kept[1]
        try:
            status: Obj = (await self._remote.post(_review(a))).get('status') or {}
        except RemoteError as e:
            log.warning('access webhook failed', err=str(e))
            return Decision('no opinion', 'the access webhook did not answer')
        found = _decision(status)
        if len(self._cached) >= CACHED_MAX:
            self._cached.pop(next(iter(self._cached)))
        self._cached[key] = now + (ALLOWED_S if found.verdict == 'allow' else OTHERS_S), found
        return found


def _decision(status: Obj) -> Decision:
    reason = str(status.get('reason') or '')
    if status.get('allowed') is True and not status.get('denied'):
        return Decision('allow', reason)
    if status.get('denied') is True:
        return Decision('deny', reason)
    return Decision('no opinion', reason) if reason else NO_OPINION


def _review(a: Attributes) -> Obj:
    user = a.user
    spec: Obj = {'user': user.name, 'groups': list(user.groups), 'uid': user.uid}
    if user.extra:
        spec['extra'] = {k: list(v) for k, v in user.extra.items()}
    if a.path:
        spec['nonResourceAttributes'] = {'path': a.path, 'verb': a.verb}
    else:
        asked = {
            'verb': a.verb, 'group': a.group, 'version': a.version, 'resource': a.resource,
            'subresource': a.subresource, 'namespace': a.namespace, 'name': a.name,
        }  # fmt: skip
        spec['resourceAttributes'] = {k: v for k, v in asked.items() if v}
    return {'apiVersion': 'authorization.k8s.io/v1', 'kind': 'SubjectAccessReview', 'spec': spec}
