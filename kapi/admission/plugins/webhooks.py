"""MutatingAdmissionWebhook and ValidatingAdmissionWebhook: other services change and judge objects.

Mutating webhooks run one after another, by the name of their configuration; one that asks for it (`IfNeeded`) runs once
more when a later one changed the object. Validating ones run all at once, and the first refusal in order is told.
Source: apiserver pkg/admission/plugin/webhook/{mutating,validating}/dispatcher.go.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import structlog

from kapi.admission.cel import CelError, Expressions
from kapi.admission.chain import Attributes, Operation
from kapi.admission.matching import CONFIGURATION_GROUP, Selection, cel_request, exempt, rule_matches
from kapi.admission.webhooks.client import CallFailed, WebhookClient
from kapi.errors import ApiError, Forbidden, InternalError
from kapi.registry.kind import Kind
from kapi.storage.cache import Cache
from kapi.storage.codec import clone
from kcore.env import Env
from kcore.meta import patch as patches
from kcore.meta.selectors import SelectorError

Obj = dict[str, Any]
Conform = Callable[[Kind, Obj], Obj]
log = structlog.get_logger('kapi.admission.webhook')
EVERY: frozenset[Operation] = frozenset({'CREATE', 'UPDATE', 'DELETE', 'CONNECT'})


class _Webhooks:
    """What both kinds share: which webhooks a write concerns, and one call."""

    operations = EVERY
    plural = ''

    def __init__(self, cache: Cache, env: Env, client: WebhookClient, expressions: Expressions) -> None:
        self._cache = cache
        self._env = env
        self._client = client
        self._expressions = expressions
        self._selection = Selection(cache)

    def concerned(self, a: Attributes) -> Iterator[Obj]:
        """Webhooks in order. Raises Forbidden or InternalError when it cannot be told and the webhook insists."""
        prefix = f'/registry/{CONFIGURATION_GROUP}/{self.plural}/'
        configurations = self._cache.resource(prefix)
        if not configurations.keys or exempt(a):
            return
        for entry in configurations.select(prefix):
            for hook in entry.obj.get('webhooks') or ():
                if self._concerns(hook, a):
                    yield hook

    def _concerns(self, hook: Obj, a: Attributes) -> bool:
        equivalent = hook.get('matchPolicy', 'Equivalent') == 'Equivalent'
        if not any(rule_matches(r, a, equivalent=equivalent) for r in hook.get('rules') or ()):
            return False
        try:
            return self._selection.selected(a, hook) and self._conditions(hook, a)
        except SelectorError as e:
            raise InternalError(f'failed calling webhook "{hook.get("name")}": {e}') from None

    def _conditions(self, hook: Obj, a: Attributes) -> bool:
        """All must hold; one that is false wins over one that fails."""
        failed: CelError | None = None
        conditions = hook.get('matchConditions') or ()
        variables = {'object': a.obj, 'oldObject': a.old, 'request': cel_request(a)} if conditions else {}
        for condition in conditions:
            try:
                if not self._expressions.truth(condition.get('expression') or '', variables):
                    return False
            except CelError as e:
                failed = failed or e
        if failed is not None:
            if hook.get('failurePolicy') == 'Ignore':
                return False
            raise Forbidden.on(a.kind.resource, a.name, f'webhook "{hook.get("name")}": match condition: {failed}')
        return True

    async def ask(self, hook: Obj, a: Attributes) -> Obj | None:
        """The response of a webhook that allows; None when it failed and may. Raises what refuses."""
        name = hook.get('name', '')
        request = {'uid': self._env.new_uid(), **cel_request(a), 'object': a.obj, 'oldObject': a.old}
        review = {'apiVersion': 'admission.k8s.io/v1', 'kind': 'AdmissionReview', 'request': request}
        try:
            response = await self._client.call(hook, review)
        except CallFailed as e:
            if hook.get('failurePolicy') == 'Ignore':
                log.warning('webhook failed and was passed over', webhook=name, err=str(e))
                return None
            raise InternalError(f'failed calling webhook "{name}": {e}') from None
        a.warnings.extend(str(w) for w in response.get('warnings') or ())
        for key, value in (response.get('auditAnnotations') or {}).items():
            a.annotations[f'{name}/{key}'] = str(value)
        if not response.get('allowed'):
            raise _denial(name, response.get('status') or {})
        return response


def _denial(name: str, status: Obj) -> ApiError:
    why = status.get('message') or status.get('reason') or ''
    text = f'admission webhook "{name}" denied the request' + (f': {why}' if why else ' without explanation')
    code = status.get('code')
    good = isinstance(code, int) and 400 <= code < 600
    return Forbidden(text, details={}, code=code if good else 403)


class MutatingWebhooks(_Webhooks):
    name = 'MutatingAdmissionWebhook'
    plural = 'mutatingwebhookconfigurations'

    def __init__(
        self, cache: Cache, env: Env, client: WebhookClient, expressions: Expressions, conform: Conform
    ) -> None:
        super().__init__(cache, env, client, expressions)
        self._conform = conform

    async def mutate(self, a: Attributes) -> None:
        again: list[Obj] = []
        """Asked for another turn, and something changed since their own."""
        ran: list[Obj] = []
        for hook in self.concerned(a):
            if await self._apply(hook, a):
                again += [h for h in ran if h not in again]
            if hook.get('reinvocationPolicy') == 'IfNeeded':
                ran.append(hook)
        for hook in again:
            if self._concerns(hook, a):
                await self._apply(hook, a)

    async def _apply(self, hook: Obj, a: Attributes) -> bool:
        """Whether the object changed."""
        response = await self.ask(hook, a)
        encoded = (response or {}).get('patch')
        if not encoded or a.obj is None:
            return False
        name = hook.get('name', '')
        try:
            if (response or {}).get('patchType') != 'JSONPatch':
                raise ValueError('patchType must be JSONPatch')
            changed = patches.json_patch(clone(a.obj), orjson.loads(base64.b64decode(encoded, validate=True)))
            if not isinstance(changed, dict):
                raise TypeError('the patch leaves no object')
            changed = self._conform(a.kind, changed)
        except (ValueError, TypeError, binascii.Error, patches.PatchError, ApiError) as e:
            if hook.get('failurePolicy') == 'Ignore':
                log.warning('patch of a webhook was passed over', webhook=name, err=str(e))
                return False
            raise InternalError(f'failed calling webhook "{name}": the patch cannot be applied: {e}') from None
        if changed == a.obj:
            return False
        a.obj.clear()
        a.obj.update(changed)
        return True

    async def validate(self, a: Attributes) -> None:
        """Judging is the other plugin's."""


class ValidatingWebhooks(_Webhooks):
    name = 'ValidatingAdmissionWebhook'
    plural = 'validatingwebhookconfigurations'

    async def mutate(self, a: Attributes) -> None:
        """Changes nothing."""

    async def validate(self, a: Attributes) -> None:
        hooks = list(self.concerned(a))
        if not hooks:
            return
        outcomes = await asyncio.gather(*(self.ask(h, a) for h in hooks), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
