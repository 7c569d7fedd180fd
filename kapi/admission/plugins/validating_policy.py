"""ValidatingAdmissionPolicy: rules in CEL, in force where a binding says, with parameters from other objects.

Source: apiserver pkg/admission/plugin/policy/validating.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson

from kapi.admission.cel import CelError, Expressions
from kapi.admission.celauthz import Decisions
from kapi.admission.celobjects import plain
from kapi.admission.celtypes import DYN, Checker
from kapi.admission.chain import Attributes, Operation, Plugin
from kapi.admission.matching import CONFIGURATION_GROUP, Selection, exempt
from kapi.admission.plugins.owner_references import Find
from kapi.admission.policies import Bound, Policies, Scope, denial
from kapi.admission.typechecking import UNTYPED, TypeChecking
from kapi.admission.versions import seen_as
from kapi.authz.union import Union
from kapi.errors import InvalidObject
from kapi.registry.strategy import Invalid
from kapi.storage.cache import Cache

Obj = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Broken:
    """A validation that did not hold, or could not be evaluated."""

    message: str
    reason: str = 'Invalid'
    index: int = 0
    """Of the expression."""


class ValidatingPolicies(Plugin):
    name = 'ValidatingAdmissionPolicy'
    operations: frozenset[Operation] = frozenset({'CREATE', 'UPDATE', 'DELETE', 'CONNECT'})

    def __init__(
        self, cache: Cache, expressions: Expressions, find: Find, authz: Union, *, checking: TypeChecking,
        selection: Selection,
    ) -> None:  # fmt: skip
        self._checking = checking
        self._authz = authz
        self._expressions = expressions
        self._policies = Policies(cache, expressions, find, self.name, selection)

    async def mutate(self, a: Attributes) -> None:
        """Changes nothing but the status of policies themselves: what is wrong with their types."""
        if a.is_for(CONFIGURATION_GROUP, 'validatingadmissionpolicies') and a.obj is not None:
            a.obj.setdefault('status', {})['typeChecking'] = self._checking.status(a.obj)

    async def validate(self, a: Attributes) -> None:
        r = a.kind.resource
        if r.group == CONFIGURATION_GROUP and a.obj is not None:
            self._check_syntax(a.kind.resource.kind, a.obj)
        if exempt(a):
            return
        decisions = Decisions(self._authz, a)
        for bound in self._policies.bound(a):
            seen = await seen_as(a, bound.wanted)
            await decisions.during(partial(self._apply, seen, bound, decisions))

    def _apply(self, a: Attributes, bound: Bound, decisions: Decisions) -> None:
        try:
            for scope in self._policies.scopes(a, bound, decisions):
                self._judge(a, bound, scope)
        except CelError as e:
            if bound.rules.get('failurePolicy') != 'Ignore':
                self._act(a, bound, Broken(str(e)))

    def _check_syntax(self, kind: str, obj: Obj) -> None:
        """Raises InvalidObject for expressions that do not compile."""
        broken = []
        declared = {v.get('name') or '': DYN for v in (obj.get('spec') or {}).get('variables') or ()}
        for field, text in _expressions(obj):
            try:
                self._expressions.compile(plain(text))
            except CelError as e:
                broken.append(Invalid(field, f'Invalid value: "{text}": {e}'))
                continue
            if kind == 'ValidatingAdmissionPolicy' or 'webhooks' in obj:
                message = field.endswith('messageExpression')
                names = {k: v for k, v in UNTYPED.items() if not (message and k == 'authorizer')}
                mistakes = Checker(text, names, declared).mistakes
                broken += [Invalid(field, f'Invalid value: "{text}": compilation failed: {m}') for m in mistakes]
        if broken:
            raise InvalidObject(kind, CONFIGURATION_GROUP, obj['metadata'].get('name', ''), broken)

    def _judge(self, a: Attributes, bound: Bound, scope: Scope) -> None:
        for note in bound.rules.get('auditAnnotations') or ():
            value = scope.value(note.get('valueExpression') or 'null')
            if value is not None:
                a.annotations[f'{bound.title}/{note.get("key")}'] = str(value)
        for index, rule in enumerate(bound.rules.get('validations') or ()):
            if not scope.truth(rule['expression']):
                self._act(a, bound, Broken(scope.message(rule), rule.get('reason') or 'Invalid', index))

    def _act(self, a: Attributes, bound: Bound, broken: Broken) -> None:
        actions = bound.spec.get('validationActions') or ()
        if 'Warn' in actions:
            a.warnings.append(f'Validation failed for {bound.title}: {broken.message}')
        if 'Audit' in actions:
            told = {
                'message': broken.message, 'policy': bound.name, 'binding': bound.binding['metadata']['name'],
                'expressionIndex': broken.index, 'validationActions': actions,
            }  # fmt: skip
            a.annotations['validation.policy.admission.k8s.io/validation_failure'] = orjson.dumps([told]).decode()
        if 'Deny' in actions:
            raise denial(a, f'{bound.title} denied request: {broken.message}', broken.reason)


def _expressions(obj: Obj) -> Iterator[tuple[str, str]]:
    """(field, text) of every expression of a webhook configuration or a policy."""
    for i, hook in enumerate(obj.get('webhooks') or ()):
        for j, condition in enumerate(hook.get('matchConditions') or ()):
            yield f'webhooks[{i}].matchConditions[{j}].expression', condition.get('expression') or ''
    spec = obj.get('spec') or {}
    for field, key in (('matchConditions', 'expression'), ('variables', 'expression'), ('validations', 'expression'),
                       ('validations', 'messageExpression'), ('auditAnnotations', 'valueExpression')):  # fmt: skip
        for i, item in enumerate(spec.get(field) or ()):
            if isinstance(item, dict) and item.get(key):
                yield f'spec.{field}[{i}].{key}', item[key]
    for i, mutation in enumerate(spec.get('mutations') or ()):
        for key in ('applyConfiguration', 'jsonPatch'):
            if text := (mutation.get(key) or {}).get('expression'):
                yield f'spec.mutations[{i}].{key}.expression', text
