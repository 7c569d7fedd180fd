"""OwnerReferencesPermissionEnforcement: who makes something depend on an owner must be able to delete the dependant,
and who blocks an owner's deletion must be allowed to set the owner's finalizers.

Source: plugin/pkg/admission/gc/gc_admission.go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kapi.admission.chain import Attributes, Operation, Plugin
from kapi.authn.user import MASTERS
from kapi.authz.union import Attributes as Question
from kapi.authz.union import Union
from kapi.errors import Forbidden
from kapi.registry.kind import Kind

Obj = dict[str, Any]
Find = Callable[[str, str, str], Kind | None]
"""(group, version, kind) → the kind served."""


class OwnerReferences(Plugin):
    name = 'OwnerReferencesPermissionEnforcement'
    operations: frozenset[Operation] = frozenset({'CREATE', 'UPDATE'})

    def __init__(self, authz: Union, find: Find) -> None:
        self._authz = authz
        self._find = find

    async def validate(self, a: Attributes) -> None:
        if a.obj is None or MASTERS in a.user.groups or a.subresource == 'status':
            return
        new, old = _owners(a.obj), _owners(a.old)
        if new == old:
            return
        r = a.kind.resource
        if a.operation == 'UPDATE' and not await self._may(a, 'delete', (r.group, r.plural, ''), a.namespace, a.name):
            why = "cannot set an ownerRef on a resource you can't delete: "
            raise Forbidden.on(r, a.name, why + f'User "{a.user.name}" cannot delete resource "{r.plural}"')
        for owner in new:
            if not owner.get('blockOwnerDeletion') or _blocks(old, owner):
                continue
            group, _, version = str(owner.get('apiVersion')).rpartition('/')
            kind = self._find(group, version, str(owner.get('kind')))
            where = a.namespace if kind is None or kind.resource.namespaced else ''
            if kind is None or not await self._may(
                a, 'update', (group, kind.resource.plural, 'finalizers'), where, str(owner.get('name'))
            ):
                why = (
                    'cannot set blockOwnerDeletion if an ownerReference refers to a resource '
                    "you can't set finalizers on"
                )
                raise Forbidden.on(r, a.name, f'{why}: {owner.get("kind")} {owner.get("name")}')

    async def _may(self, a: Attributes, verb: str, what: tuple[str, str, str], namespace: str, name: str) -> bool:
        """`what`: group, plural, subresource."""
        group, plural, sub = what
        question = Question(a.user, verb, group, '*', plural, sub, namespace, name)
        return (await self._authz.decide(question)).verdict == 'allow'


def _owners(obj: Obj | None) -> list[Obj]:
    return ((obj or {}).get('metadata') or {}).get('ownerReferences') or []


def _blocks(old: list[Obj], owner: Obj) -> bool:
    return any(o.get('uid') == owner.get('uid') and o.get('blockOwnerDeletion') for o in old)
