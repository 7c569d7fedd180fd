"""Nobody hands out more than they hold: roles and bindings are refused that grant what their author may not do.

The verbs `escalate` (on the role) and `bind` (on the role bound) lift this.
Source: pkg/registry/rbac/escalation_check.go.
"""

from __future__ import annotations

from typing import Any

from kapi.admission.chain import Attributes, Operation, Plugin
from kapi.authn.user import MASTERS
from kapi.authz.rbac import Rbac, Rule, rule_of, uncovered
from kapi.authz.union import Attributes as Question
from kapi.authz.union import Union
from kapi.errors import Forbidden, NotFound
from kcore.meta.gvk import Resource

Obj = dict[str, Any]
GROUP = 'rbac.authorization.k8s.io'
ROLES = frozenset({'roles', 'clusterroles'})
BINDINGS = frozenset({'rolebindings', 'clusterrolebindings'})
EVERYTHING = [Rule(('*',), ('*',), ('*',)), Rule(('*',), paths=('*',))]
"""What somebody must hold who decides what an aggregated role gathers."""
COLLECTED = frozenset({'ownerReferences', 'finalizers', 'managedFields', 'resourceVersion', 'generation'})


class RbacEscalation(Plugin):
    name = 'RbacEscalation'
    operations: frozenset[Operation] = frozenset({'CREATE', 'UPDATE'})
    about = frozenset((GROUP, plural) for plural in ROLES | BINDINGS)

    def __init__(self, authz: Union, rbac: Rbac) -> None:
        self._authz = authz
        self._rbac = rbac

    async def validate(self, a: Attributes) -> None:
        r = a.kind.resource
        if r.group != GROUP or MASTERS in a.user.groups or a.obj is None:
            return
        if a.old is not None and _collected_only(a.obj, a.old):
            return
        if r.plural in ROLES:
            # Labels and selectors too decide what a role gives, so an update is judged even if the rules stay.
            wanted = [rule_of(rule) for rule in a.obj.get('rules') or ()]
            if a.obj.get('aggregationRule') or (a.old or {}).get('aggregationRule'):
                wanted += EVERYTHING
            if not await self._may(a, 'escalate', r, a.name):
                self._check(a, wanted)
        elif r.plural in BINDINGS:
            ref = a.obj.get('roleRef') or {}
            role = Resource(GROUP, 'v1', 'clusterroles' if ref.get('kind') == 'ClusterRole' else 'roles', '')
            name = str(ref.get('name') or '')
            if not await self._may(a, 'bind', role, name):
                rules = self._rbac.role_rules(ref, a.namespace)
                if rules is None:
                    raise NotFound.of(role, name)  # whoever makes it later may give it more
                self._check(a, rules)

    async def _may(self, a: Attributes, verb: str, on: Resource, name: str) -> bool:
        question = Question(a.user, verb, on.group, on.version, on.plural, '', a.namespace, name)
        return (await self._authz.decide(question)).verdict == 'allow'

    def _check(self, a: Attributes, wanted: list[Rule]) -> None:
        missing = uncovered(wanted, list(self._rbac.rules_for(a.user, a.namespace)))
        if not missing:
            return
        groups = ' '.join(f'"{g}"' for g in a.user.groups)
        listed = '\n'.join(sorted(_show(rule) for rule in missing))
        why = (
            f'user "{a.user.name}" (groups=[{groups}]) is attempting to grant RBAC permissions not currently held:\n'
            f'{listed}'
        )
        raise Forbidden.on(a.kind.resource, a.name, why)


def _collected_only(new: Obj, old: Obj) -> bool:
    """Whether nothing changed but what the garbage collector changes."""
    return _kept(new) == _kept(old)


def _kept(obj: Obj) -> Obj:
    meta = {k: v for k, v in obj['metadata'].items() if k not in COLLECTED}
    return {**obj, 'metadata': meta}


def _show(rule: Rule) -> str:
    if rule.paths:
        return f'{{NonResourceURLs:["{rule.paths[0]}"], Verbs:["{rule.verbs[0]}"]}}'
    names = f', ResourceNames:["{rule.names[0]}"]' if rule.names else ''
    return f'{{APIGroups:["{rule.groups[0]}"], Resources:["{rule.resources[0]}"]{names}, Verbs:["{rule.verbs[0]}"]}}'
