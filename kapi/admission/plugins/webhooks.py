"""MutatingAdmissionWebhook and ValidatingAdmissionWebhook: other services change and judge objects.

Mutating webhooks run one after another, by the name of their configuration; one that asks for it (`IfNeeded`) runs once
more when a later one changed the object. Validating ones run all at once, and the first refusal in order is told.
Source: apiserver pkg/admission/plugin/webhook/{mutating,validating}/dispatcher.go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
import structlog

from kapi.admission.cel import CelError, Expressions
from kapi.admission.celauthz import Decisions
from kapi.admission.chain import OPERATIONS, Attributes, Plugin
from kapi.admission.matching import CONFIGURATION_GROUP, Selection, cel_request, exempt
from kapi.admission.versions import seen_as, take_over
from kapi.admission.webhooks.client import CallFailed, WebhookClient
from kapi.audit.audit import PATCH_ANNOTATION
from kapi.authz.union import Union
from kapi.errors import ApiError, Denied, Forbidden, InternalError
from kapi.storage.cache import Cache
from kapi.storage.codec import clone
from kcore.env import Env
from kcore.meta import patch as patches
from kcore.meta.gvk import Resource
from kcore.meta.selectors import SelectorError

Obj = dict[str, Any]
Conform = Callable[[Resource, Obj], Obj]
log = structlog.get_logger('kapi.admission.webhook')


@dataclass(frozen=True, slots=True)
class Hook:
    """One webhook, and where it stands among all of its kind."""

    spec: Obj
    configuration: str
    index: int

    @property
    def name(self) -> str:
        return str(self.spec.get('name', ''))

    @property
    def may_fail(self) -> bool:
        return self.spec.get('failurePolicy') == 'Ignore'


class _Webhooks(Plugin):
    """What both kinds share: which webhooks a write concerns, and one call."""

    operations = frozenset(OPERATIONS)
    plural = ''
    kind = ''
    """As annotations name it."""

    def __init__(
        self, cache: Cache, env: Env, client: WebhookClient, expressions: Expressions, authz: Union, *,
        selection: Selection,
    ) -> None:  # fmt: skip
        self._cache = cache
        self._env = env
        self._client = client
        self._expressions = expressions
        self._selection = selection
        self._authz = authz

    def hooks(self, a: Attributes) -> Iterator[Hook]:
        """All of them in order; none where none may judge."""
        prefix = f'/registry/{CONFIGURATION_GROUP}/{self.plural}/'
        configurations = self._cache.resource(prefix)
        if not configurations.keys or exempt(a):
            return
        index = 0
        for entry in configurations.select(prefix):
            for spec in entry.obj.get('webhooks') or ():
                yield Hook(spec, entry.obj['metadata']['name'], index)
                index += 1

    async def seen(self, hook: Hook, a: Attributes, decisions: Decisions) -> Attributes | None:
        """The write as the webhook wants to see it; None when it does not concern it.

        Raises Forbidden or InternalError when that cannot be told and the webhook insists.
        """
        wanted = self._selection.chosen(hook.spec.get('rules'), a, hook.spec.get('matchPolicy'))
        if wanted is None:
            return None
        try:
            selected = self._selection.selected(a, hook.spec)
        except SelectorError as e:
            raise InternalError(f'failed calling webhook "{hook.name}": {e}') from None
        if not selected:
            return None
        seen = await seen_as(a, wanted)
        if not hook.spec.get('matchConditions'):
            return seen
        return seen if await decisions.during(partial(self._conditions, hook, seen, decisions)) else None

    def _conditions(self, hook: Hook, a: Attributes, decisions: Decisions) -> bool:
        """All must hold; one that is false wins over one that fails."""
        failed: CelError | None = None
        variables = {'object': a.obj, 'oldObject': a.old, 'request': cel_request(a)}
        for condition in hook.spec['matchConditions']:
            try:
                if not self._expressions.truth(condition.get('expression') or '', variables, decisions):
                    return False
            except CelError as e:
                failed = failed or e
        if failed is not None:
            if hook.may_fail:
                return False
            raise Forbidden.on(a.asked.resource, a.name, f'webhook "{hook.name}": match condition: {failed}')
        return True

    async def ask(self, hook: Hook, a: Attributes, round_: int = 0) -> Obj | None:
        """The response of a webhook that allows; None when it failed and may. Raises what refuses."""
        # As from Go, where an empty text is absent: kopf takes an empty subresource for one.
        told = {k: v for k, v in cel_request(a).items() if v != ''}
        request = {'uid': self._env.new_uid(), **told, 'object': a.obj, 'oldObject': a.old}
        try:
            response = await self._client.call(hook.spec, request)
        except CallFailed as e:
            self.passed_over(hook, a, round_, e)
            return None
        a.warnings.extend(str(w) for w in response.get('warnings') or ())
        for key, value in (response.get('auditAnnotations') or {}).items():
            a.annotations[f'{hook.name}/{key}'] = str(value)
        if not response.get('allowed'):
            raise _denial(hook.name, response.get('status') or {})
        return response

    def passed_over(self, hook: Hook, a: Attributes, round_: int, why: CallFailed) -> None:
        """A webhook did not do its work. Raises InternalError unless it may fail."""
        if not hook.may_fail:
            raise InternalError(f'failed calling webhook "{hook.name}": {why}') from None
        log.warning('webhook failed and was passed over', webhook=hook.name, err=str(why))
        key = f'failed-open.{self.kind}.webhook.admission.k8s.io/round_{round_}_index_{hook.index}'
        a.annotations[key] = hook.name


def _denial(webhook: str, told: Obj) -> Denied:
    """A webhook's no, with its own code, reason and details. Source: webhook/errors/statuserror.go."""
    code = told.get('code')
    good = isinstance(code, int) and not isinstance(code, bool) and 400 <= code < 600
    why = told.get('message') or told.get('reason') or ''
    text = f'admission webhook "{webhook}" denied the request' + (f': {why}' if why else ' without explanation')
    details = told.get('details')
    return Denied(
        text, reason=str(told.get('reason') or ''), details=details if isinstance(details, dict) else {},
        code=int(code or 0) if good else 400,
    )  # fmt: skip


class MutatingWebhooks(_Webhooks):
    name = 'MutatingAdmissionWebhook'
    plural = 'mutatingwebhookconfigurations'
    kind = 'mutation'

    def __init__(
        self, cache: Cache, env: Env, client: WebhookClient, expressions: Expressions, authz: Union, *,
        selection: Selection, conform: Conform,
    ) -> None:  # fmt: skip
        super().__init__(cache, env, client, expressions, authz, selection=selection)
        self._conform = conform

    async def mutate(self, a: Attributes) -> None:
        again: list[Hook] = []
        """Asked for another turn, and something changed since their own."""
        ran: list[Hook] = []
        decisions = Decisions(self._authz, a)
        for hook in self.hooks(a):
            changed = await self._turn(hook, a, decisions, 0)
            if changed is None:
                continue
            if changed:
                again += [h for h in ran if h not in again]
            if hook.spec.get('reinvocationPolicy') == 'IfNeeded':
                ran.append(hook)
        for hook in again:
            await self._turn(hook, a, decisions, 1)

    async def _turn(self, hook: Hook, a: Attributes, decisions: Decisions, round_: int) -> bool | None:
        """Whether the object changed; None when the webhook is not concerned."""
        seen = await self.seen(hook, a, decisions)
        if seen is None:
            return None
        changed = await self._apply(hook, seen, round_)
        if changed:
            await take_over(a, seen)
        return changed

    async def _apply(self, hook: Hook, a: Attributes, round_: int) -> bool:
        """Whether the object changed."""
        changed = False
        place = f'round_{round_}_index_{hook.index}'
        about = {'configuration': hook.configuration, 'webhook': hook.name}
        try:
            response = await self.ask(hook, a, round_)
            operations = self._operations(hook, a, round_, response) if response is not None else None
            if operations:
                changed = self._patch(hook, a, operations)
                patch = {**about, 'patch': operations, 'patchType': 'JSONPatch'}
                a.annotations[f'{PATCH_ANNOTATION}{place}'] = orjson.dumps(patch).decode()
        finally:
            value = orjson.dumps({**about, 'mutated': changed}).decode()
            a.annotations[f'mutation.webhook.admission.k8s.io/{place}'] = value
        return changed

    def _operations(self, hook: Hook, a: Attributes, round_: int, response: Obj) -> list[Any] | None:
        """The patch of an answer; None where there is none or it cannot be read and need not be."""
        patch: bytes = response.get('patch') or b''
        try:
            operations = orjson.loads(patch) if patch else None
            if operations is not None and not isinstance(operations, list):
                raise ValueError('a JSON patch is a list')
        except ValueError as e:
            self.passed_over(hook, a, round_, CallFailed(f'received undecodable patch in webhook response: {e}'))
            return None
        return operations

    def _patch(self, hook: Hook, a: Attributes, operations: list[Any]) -> bool:
        """Whether the object changed. Raises InternalError, also for a webhook that may fail: it has answered."""
        if a.obj is None:
            why = 'attempted to modify the object, which is not supported for this operation'
            raise InternalError(f'admission webhook "{hook.name}" {why}')
        try:
            changed = patches.json_patch(clone(a.obj), operations)
            if not isinstance(changed, dict):
                raise TypeError('the patch leaves no object')
            changed = self._conform(a.body, changed)
        except (ValueError, TypeError, patches.PatchError, ApiError) as e:
            raise InternalError(f'admission webhook "{hook.name}": the patch cannot be applied: {e}') from None
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
    kind = 'validating'

    async def validate(self, a: Attributes) -> None:
        decisions = Decisions(self._authz, a)
        asked = [(h, seen) for h in self.hooks(a) if (seen := await self.seen(h, a, decisions)) is not None]
        if not asked:
            return
        outcomes = await asyncio.gather(*(self.ask(h, seen) for h, seen in asked), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
