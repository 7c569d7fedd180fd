"""ValidatingAdmissionPolicy: rules in CEL, in force where a binding says, with parameters from other objects.

Source: apiserver pkg/admission/plugin/policy/validating.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from kapi.admission.cel import CelError, Expressions
from kapi.admission.chain import Attributes, Operation
from kapi.admission.matching import CONFIGURATION_GROUP, Selection, cel_request, exempt
from kapi.admission.plugins.owner_references import Find
from kapi.errors import ApiError, Forbidden, InvalidObject
from kapi.registry.catalog import key_prefix
from kapi.registry.strategy import Invalid
from kapi.storage.cache import Cache
from kcore.meta.selectors import from_label_selector

Obj = dict[str, Any]
_GROUP = f'/registry/{CONFIGURATION_GROUP}/'
POLICIES, BINDINGS = f'{_GROUP}validatingadmissionpolicies/', f'{_GROUP}validatingadmissionpolicybindings/'
CODES = {'Unauthorized': 401, 'Forbidden': 403, 'Invalid': 422, 'RequestEntityTooLarge': 413}
_VARIABLE = re.compile(r'\bvariables\.([A-Za-z_][A-Za-z0-9_]*)')


class ValidatingPolicies:
    name = 'ValidatingAdmissionPolicy'
    operations: frozenset[Operation] = frozenset({'CREATE', 'UPDATE', 'DELETE', 'CONNECT'})

    def __init__(self, cache: Cache, expressions: Expressions, find: Find) -> None:
        self._cache = cache
        self._expressions = expressions
        self._find = find
        self._selection = Selection(cache)

    async def mutate(self, a: Attributes) -> None:
        """Changes nothing."""

    async def validate(self, a: Attributes) -> None:
        r = a.kind.resource
        if r.group == CONFIGURATION_GROUP and a.obj is not None:
            self._check_syntax(a.kind.resource.kind, a.obj)
        if exempt(a):
            return
        bindings = self._cache.resource(BINDINGS)
        for entry in bindings.select(BINDINGS):
            self._bound(a, entry.obj)

    def _check_syntax(self, kind: str, obj: Obj) -> None:
        """Raises InvalidObject for expressions that do not compile."""
        broken = []
        for field, text in _expressions(obj):
            try:
                self._expressions.compile(text)
            except CelError as e:
                broken.append(Invalid(field, f'Invalid value: "{text}": {e}'))
        if broken:
            raise InvalidObject(kind, CONFIGURATION_GROUP, obj['metadata'].get('name', ''), broken)

    def _bound(self, a: Attributes, binding: Obj) -> None:
        spec = binding.get('spec') or {}
        found = self._cache.peek(f'{POLICIES}{spec.get("policyName")}')
        if found is None:
            return
        policy = found.obj
        rules = policy.get('spec') or {}
        constraints, scope = rules.get('matchConstraints'), spec.get('matchResources')
        if not self._selection.constrained(a, constraints) or not self._selection.constrained(a, scope):
            return
        names = f"ValidatingAdmissionPolicy '{policy['metadata']['name']}' with binding '{binding['metadata']['name']}'"
        try:
            for params in self._params(a, rules.get('paramKind'), spec.get('paramRef')):
                self._judge(a, rules, params, names, spec.get('validationActions') or ())
        except CelError as e:
            if rules.get('failurePolicy') == 'Ignore':
                return
            self._act(a, spec.get('validationActions') or (), f'{names} denied request: {e}', 'Invalid')

    def _judge(self, a: Attributes, rules: Obj, params: Obj | None, names: str, actions: Any) -> None:
        scope = Scope(self._expressions, rules, {
            'object': a.obj, 'oldObject': a.old, 'request': cel_request(a), 'params': params,
            'namespaceObject': self._selection.namespace(a.namespace),
        })  # fmt: skip
        if not all(scope.truth(c.get('expression') or '') for c in rules.get('matchConditions') or ()):
            return
        for note in rules.get('auditAnnotations') or ():
            value = scope.value(note.get('valueExpression') or 'null')
            if value is not None:
                a.annotations[f'{names}/{note.get("key")}'] = str(value)
        for rule in rules.get('validations') or ():
            if not scope.truth(rule['expression']):
                why = f'{names} denied request: {scope.message(rule)}'
                self._act(a, actions, why, rule.get('reason') or 'Invalid')

    def _act(self, a: Attributes, actions: Any, why: str, reason: str) -> None:
        if 'Warn' in actions:
            a.warnings.append(f'Validation failed for {why.replace(" denied request", "", 1)}')
        if 'Audit' in actions:
            a.annotations['validation.policy.admission.k8s.io/validation_failure'] = why
        if 'Deny' in actions:
            raise _denial(a, why, reason)

    def _params(self, a: Attributes, kind: Obj | None, ref: Obj | None) -> Iterator[Obj | None]:
        """One evaluation for each. Raises CelError when there are none and that is no permission."""
        if not kind or not ref:
            yield None
            return
        group, _, version = str(kind.get('apiVersion')).rpartition('/')
        found = self._find(group, version, str(kind.get('kind')))
        if found is None:
            raise CelError(
                f'failed to find resource referenced by paramKind: {kind.get("apiVersion")}, {kind.get("kind")}'
            )
        prefix = key_prefix(found.storage or found.resource)
        if found.resource.namespaced:
            prefix += f'{ref.get("namespace") or a.namespace}/'
        entries = self._cache.resource(key_prefix(found.storage or found.resource)).select(prefix)
        if ref.get('name'):
            chosen = [e.obj for e in entries if e.key == prefix + ref['name']]
        else:
            wanted = from_label_selector(ref.get('selector') or {})
            chosen = [e.obj for e in entries if wanted.matches(e.obj['metadata'].get('labels') or {})]
        if not chosen and ref.get('parameterNotFoundAction') != 'Allow':
            raise CelError('no params found for policy binding with `Deny` parameterNotFoundAction')
        yield from chosen


class Scope:
    """The names of one evaluation; `variables` are computed when an expression first asks for them."""

    def __init__(self, expressions: Expressions, rules: Obj, names: Mapping[str, Any]) -> None:
        self._expressions = expressions
        self._texts = {v['name']: v['expression'] for v in rules.get('variables') or ()}
        self._names = dict(names)
        self._values: Obj = {}

    def value(self, text: str) -> Any:
        """Raises CelError."""
        for name in _VARIABLE.findall(text):
            if name in self._texts and name not in self._values:
                own = self._texts.pop(name)  # taken out first, so that a circle ends as an unknown name
                self._values[name] = self.value(own)
        return self._expressions.evaluate(text, {**self._names, 'variables': self._values})

    def truth(self, text: str) -> bool:
        found = self.value(text)
        if not isinstance(found, bool):
            raise CelError(f"expression '{text}' must evaluate to bool")
        return found

    def message(self, rule: Obj) -> str:
        if rule.get('messageExpression'):
            try:
                found = self.value(rule['messageExpression'])
            except CelError:
                found = None
            if isinstance(found, str) and found.strip() and '\n' not in found:
                return found
        return rule.get('message') or f'failed expression: {rule["expression"].strip()}'


def _denial(a: Attributes, why: str, reason: str) -> ApiError:
    refusal = Forbidden.on(a.kind.resource, a.name, why)
    if reason == 'Forbidden':
        return refusal
    if reason == 'Invalid':
        invalid = InvalidObject.plain(str(refusal))
        invalid.details = refusal.details
        return invalid
    refusal.code = CODES.get(reason, 403)
    return refusal


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
