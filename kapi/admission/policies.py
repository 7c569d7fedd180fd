"""What policies in CEL share, validating and mutating ones: which bindings hold for a write, parameters, variables.

Source: apiserver pkg/admission/plugin/policy/{generic,validating,mutating}.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kapi.admission.cel import CelError, Expressions
from kapi.admission.celauthz import Decisions
from kapi.admission.chain import Attributes
from kapi.admission.matching import CONFIGURATION_GROUP, Selection, cel_request
from kapi.admission.plugins.owner_references import Find
from kapi.errors import ApiError, Forbidden, InvalidObject
from kapi.registry.catalog import key_prefix
from kapi.registry.kind import Kind
from kapi.storage.cache import Cache
from kcore.meta.selectors import from_label_selector

Obj = dict[str, Any]
CODES = {'Unauthorized': 401, 'Forbidden': 403, 'Invalid': 422, 'RequestEntityTooLarge': 413}
_VARIABLE = re.compile(r'\bvariables\.([A-Za-z_][A-Za-z0-9_]*)')


@dataclass(frozen=True, slots=True)
class Bound:
    """A policy that a binding puts in force for the write at hand."""

    kind: str
    policy: Obj
    binding: Obj
    wanted: Kind
    """As which kind the policy wants to see the write."""

    @property
    def rules(self) -> Obj:
        return self.policy.get('spec') or {}

    @property
    def spec(self) -> Obj:
        return self.binding.get('spec') or {}

    @property
    def name(self) -> str:
        return str(self.policy['metadata']['name'])

    @property
    def title(self) -> str:
        return f"{self.kind} '{self.name}' with binding '{self.binding['metadata']['name']}'"


class Policies:
    """The policies of one kind and their bindings, in the order of the bindings' names."""

    def __init__(self, cache: Cache, expressions: Expressions, find: Find, kind: str, selection: Selection) -> None:
        self._cache = cache
        self._expressions = expressions
        self._find = find
        self._kind = kind
        stem = f'/registry/{CONFIGURATION_GROUP}/{kind.lower().removesuffix("policy")}'
        self._policies, self._bindings = f'{stem}policies/', f'{stem}policybindings/'
        self._selection = selection

    def bound(self, a: Attributes) -> Iterator[Bound]:
        for entry in self._cache.resource(self._bindings).select(self._bindings):
            spec = entry.obj.get('spec') or {}
            found = self._cache.peek(f'{self._policies}{spec.get("policyName")}')
            if found is None:
                continue
            constraints = (found.obj.get('spec') or {}).get('matchConstraints')
            wanted = self._selection.constrained(a, constraints)
            if wanted is not None and self._selection.constrained(a, spec.get('matchResources')) is not None:
                yield Bound(self._kind, found.obj, entry.obj, wanted)

    def scopes(self, a: Attributes, bound: Bound, decisions: Decisions) -> Iterator[Scope]:
        """One for each set of parameters whose conditions hold. Raises CelError, Undecided."""
        for params in self._params(a, bound.rules.get('paramKind'), bound.spec.get('paramRef')):
            scope = Scope(self._expressions, bound.rules, {
                'object': a.obj, 'oldObject': a.old, 'request': cel_request(a), 'params': params,
                'namespaceObject': self._selection.namespace(a.namespace), 'jsonpatch': {},
            }, decisions)  # fmt: skip
            if all(scope.truth(c.get('expression') or '') for c in bound.rules.get('matchConditions') or ()):
                yield scope

    def _params(self, a: Attributes, kind: Obj | None, ref: Obj | None) -> Iterator[Obj | None]:
        """Raises CelError when there are none and that is no permission."""
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

    def __init__(self, expressions: Expressions, rules: Obj, names: Mapping[str, Any], decisions: Decisions) -> None:
        self._decisions = decisions
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
        return self._expressions.evaluate(text, {**self._names, 'variables': self._values}, self._decisions)

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


def denial(a: Attributes, why: str, reason: str) -> ApiError:
    refusal = Forbidden.on(a.asked.resource, a.name, why, causes=[{'message': why}])
    if reason == 'Forbidden':
        return refusal
    if reason == 'Invalid':
        invalid = InvalidObject.plain(str(refusal))
        invalid.details = refusal.details
        return invalid
    refusal.code = CODES.get(reason, 403)
    return refusal
