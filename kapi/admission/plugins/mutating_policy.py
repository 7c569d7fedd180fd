"""MutatingAdmissionPolicy: changes written in CEL, as an apply configuration or as a JSON patch.

Policies run in the order of their bindings' names; one that asks for it (`IfNeeded`) runs once more when a later one
changed the object. Source: apiserver pkg/admission/plugin/policy/mutating.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from kapi.admission.cel import CelError, Expressions
from kapi.admission.celauthz import Decisions, Undecided
from kapi.admission.celobjects import plain
from kapi.admission.chain import Attributes, Operation, Plugin
from kapi.admission.matching import Selection, exempt
from kapi.admission.plugins.owner_references import Find
from kapi.admission.plugins.webhooks import Conform
from kapi.admission.policies import Bound, Policies, Scope, denial
from kapi.admission.versions import seen_as, take_over
from kapi.authz.union import Union
from kapi.errors import ApiError
from kapi.storage.cache import Cache
from kapi.storage.codec import clone
from kcore.meta import fields, patch
from kcore.meta.gvk import Resource
from kcore.meta.schema import Node

Obj = dict[str, Any]


class NotApplicable(Exception):
    """A mutation whose outcome fits no object; the text is for the client."""


class MutatingPolicies(Plugin):
    name = 'MutatingAdmissionPolicy'
    operations: frozenset[Operation] = frozenset({'CREATE', 'UPDATE', 'CONNECT'})

    def __init__(
        self, cache: Cache, expressions: Expressions, find: Find, authz: Union, *, conform: Conform,
        node: Callable[[Resource], Node], selection: Selection,
    ) -> None:  # fmt: skip
        self._authz = authz
        self._policies = Policies(cache, expressions, find, self.name, selection)
        self._conform = conform
        self._node = node

    async def mutate(self, a: Attributes) -> None:
        if a.obj is None or exempt(a):
            return
        again: list[Bound] = []
        """Asked for another turn, and something changed since their own."""
        ran: list[Bound] = []
        decisions = Decisions(self._authz, a)
        for bound in self._policies.bound(a):
            if await self._turn(a, bound, decisions):
                again += [b for b in ran if b not in again]
            if bound.rules.get('reinvocationPolicy') == 'IfNeeded':
                ran.append(bound)
        for bound in again:
            await self._turn(a, bound, decisions)

    async def _turn(self, a: Attributes, bound: Bound, decisions: Decisions) -> bool:
        """Whether the object changed."""
        seen = await seen_as(a, bound.wanted)
        changed = await decisions.during(partial(self._run, seen, bound, decisions))
        if changed:
            await take_over(a, seen)
        return changed

    def _run(self, a: Attributes, bound: Bound, decisions: Decisions) -> bool:
        assert a.obj is not None
        before = clone(a.obj)
        try:
            for scope in self._policies.scopes(a, bound, decisions):
                for mutation in bound.rules.get('mutations') or ():
                    self._mutate(a, mutation, scope)
        except (CelError, NotApplicable, Undecided) as e:
            a.obj.clear()
            a.obj.update(before)
            if isinstance(e, Undecided):
                raise
            if bound.rules.get('failurePolicy') == 'Ignore':
                return False
            raise denial(a, f"policy '{bound.name}' with binding '{bound.binding['metadata']['name']}' "
                            f'denied request: {e}', 'Invalid') from None  # fmt: skip
        return a.obj != before

    def _mutate(self, a: Attributes, mutation: Obj, scope: Scope) -> None:
        """Raises CelError, NotApplicable."""
        assert a.obj is not None
        if mutation.get('patchType') == 'JSONPatch':
            operations = scope.value(plain((mutation.get('jsonPatch') or {}).get('expression') or ''))
            changed = _patched(a.obj, operations)
        else:
            wanted = scope.value(plain((mutation.get('applyConfiguration') or {}).get('expression') or ''))
            changed = self._applied(a, wanted)
        try:
            changed = self._conform(a.body, changed)
        except ApiError as e:
            raise NotApplicable(f'the mutation makes no {a.body.kind}: {e}') from None
        a.obj.clear()
        a.obj.update(changed)

    def _applied(self, a: Attributes, wanted: Any) -> Obj:
        if not isinstance(wanted, dict):
            raise NotApplicable('ApplyConfiguration must be an object')
        if any(k in wanted for k in ('apiVersion', 'kind')):
            raise NotApplicable('invalid ApplyConfiguration: may not set apiVersion or kind')
        node = self._node(a.body)
        if place := _atomic(wanted, node, ''):
            raise NotApplicable(f'invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {place}')
        try:
            merged: Obj = fields.merge(a.obj, wanted, node)
        except fields.FieldsError as e:
            raise NotApplicable(f'invalid ApplyConfiguration: {e}') from None
        return merged


def _patched(obj: Obj, operations: Any) -> Obj:
    if not isinstance(operations, list) or not all(isinstance(o, dict) for o in operations):
        raise NotApplicable('JSONPatch must be a list of JSONPatch objects')
    try:
        return patch.json_patch(clone(obj), operations)
    except patch.PatchError as e:
        raise NotApplicable(f'JSON Patch: {e}') from None


def _atomic(wanted: Any, node: Node, at: str) -> str:
    """The first place where a configuration sets what can only be replaced as a whole; '' when there is none."""
    if isinstance(wanted, list):
        if node.list_type == 'atomic':
            return at
        children = ((f'{at}[{i}]', item, node.items) for i, item in enumerate(wanted))
    elif isinstance(wanted, dict):
        if node.atomic:
            return at
        children = ((f'{at}.{key}', value, node.child(key)) for key, value in wanted.items())
    else:
        return ''
    return next(filter(None, (_atomic(v, n, place) for place, v, n in children if n is not None)), '')
