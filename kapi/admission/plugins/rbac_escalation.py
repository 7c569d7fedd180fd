"""Nobody hands out more than they hold: roles and bindings are refused that grant what their author may not do.

The verbs `escalate` (on the role) and `bind` (on the role bound) lift this.
Source: pkg/registry/rbac/escalation_check.go.
"""

from __future__ import annotations

from typing import Any

from kapi.admission.chain import Attributes, Operation
from kapi.authn.user import MASTERS
from kapi.authz.rbac import Rbac, Rule, rule_of, uncovered
from kapi.authz.union import Attributes as Question
from kapi.authz.union import Union
from kapi.errors import Forbidden
from kcore.meta.gvk import Resource

Obj = dict[str, Any]
GROUP = 'rbac.authorization.k8s.io'
ROLES = frozenset({'roles', 'clusterroles'})
BINDINGS = frozenset({'rolebindings', 'clusterrolebindings'})


class RbacEscalation:
    name = 'RbacEscalation'
    operations: frozenset[Operation] = frozenset({'CREATE', 'UPDATE'})

    def __init__(self, authz: Union, rbac: Rbac) -> None:
        self._authz = authz
        self._rbac = rbac

    async def mutate(self, a: Attributes) -> None:
        """Changes nothing."""

    async def validate(self, a: Attributes) -> None:
        r = a.kind.resource
        if r.group != GROUP or MASTERS in a.user.groups or a.obj is None:
            return
        if r.plural in ROLES:
            if a.old is not None and a.old.get('rules') == a.obj.get('rules'):
                return
            await self._check(a, 'escalate', r, a.name, [rule_of(rule) for rule in a.obj.get('rules') or ()])
        elif r.plural in BINDINGS:
            ref = a.obj.get('roleRef') or {}
            plural = 'clusterroles' if ref.get('kind') == 'ClusterRole' else 'roles'
            rules = self._rbac.role_rules(ref, a.namespace)
            await self._check(a, 'bind', Resource(GROUP, 'v1', plural, ''), str(ref.get('name') or ''), rules)

    async def _check(self, a: Attributes, verb: str, on: Resource, name: str, wanted: list[Rule]) -> None:
        missing = uncovered(wanted, list(self._rbac.rules_for(a.user, a.namespace)))
        if not missing:
            return
        question = Question(a.user, verb, on.group, on.version, on.plural, '', a.namespace, name)
        if (await self._authz.decide(question)).verdict == 'allow':
            return
        groups = ' '.join(f'"{g}"' for g in a.user.groups)
        listed = '\n'.join(sorted(_show(rule) for rule in missing))
        why = (
            f'user "{a.user.name}" (groups=[{groups}]) is attempting to grant RBAC permissions not currently held:\n'
            f'{listed}'
        )
        raise Forbidden.on(a.kind.resource, a.name, why)


def _show(rule: Rule) -> str:
    if rule.paths:
        return f'{{NonResourceURLs:["{rule.paths[0]}"], Verbs:["{rule.verbs[0]}"]}}'
    names = f', ResourceNames:["{rule.names[0]}"]' if rule.names else ''
    return f'{{APIGroups:["{rule.groups[0]}"], Resources:["{rule.resources[0]}"]{names}, Verbs:["{rule.verbs[0]}"]}}'
