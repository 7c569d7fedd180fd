"""`status.typeChecking` of a policy: its expressions against the schemas of what it is about.

Source: apiserver pkg/admission/plugin/policy/validating/typechecking.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice, product
from typing import Any

from kapi.admission.celtypes import DYN, Checker, Type, type_of
from kapi.registry.kind import Kind
from kcore.meta.gvk import NAMESPACES, Resource
from kcore.meta.schema import ANY, Node

Obj = dict[str, Any]
TYPES_MAX = 10
"""Kinds against which a policy is checked; upstream's figure."""
_TEXT, _BOOL = Node('string'), Node('boolean')


def _object(**fields: Node) -> Node:
    return Node('object', fields=fields)


_KIND, _RESOURCE = (_object(group=_TEXT, version=_TEXT, **{last: _TEXT}) for last in ('kind', 'resource'))
_TEXTS = Node('array', items=_TEXT)
REQUEST = _object(
    uid=_TEXT, kind=_KIND, resource=_RESOURCE, subResource=_TEXT, requestKind=_KIND, requestResource=_RESOURCE,
    requestSubResource=_TEXT, name=_TEXT, namespace=_TEXT, operation=_TEXT, dryRun=_BOOL, options=ANY,
    userInfo=_object(username=_TEXT, uid=_TEXT, groups=_TEXTS, extra=Node('map', items=_TEXTS)),
)  # fmt: skip
"""The `request` variable."""
UNTYPED: Mapping[str, Type] = {
    **dict.fromkeys(('object', 'oldObject', 'params', 'namespaceObject', 'authorizer'), DYN),
    'request': type_of(REQUEST),
}  # fmt: skip
"""The variables of a policy where nothing is known of what it judges."""


class TypeChecking:
    def __init__(self, find: Callable[[str, str, str], Kind | None], node: Callable[[Resource], Node]) -> None:
        """find:  the kind of a group, version and plural."""
        self._find = find
        self._node = node

    def status(self, policy: Obj) -> Obj:
        """`{}` when nothing is wrong."""
        spec = policy.get('spec') or {}
        kinds = list(islice(self._kinds(spec), TYPES_MAX))
        warnings = []
        for i, validation in enumerate(spec.get('validations') or ()):
            for field in ('expression', 'messageExpression'):
                text = validation.get(field)
                found = '\n'.join(self._against(r, spec, text) for r in kinds) if text else ''
                if found.strip():
                    warnings.append({'fieldRef': f'spec.validations[{i}].{field}', 'warning': found})
        return {'expressionWarnings': warnings} if warnings else {}

    def _kinds(self, spec: Obj) -> Iterator[Resource]:
        """Named one by one; wild cards and subresources are left out."""
        seen = set()
        for rule in (spec.get('matchConstraints') or {}).get('resourceRules') or ():
            axes = (rule.get('apiGroups'), rule.get('apiVersions'), rule.get('resources'))
            for group, version, plural in product(*(sorted(a or ()) for a in axes)):
                if '*' in group or '*' in version or '*' in plural or '/' in plural:
                    continue
                kind = self._find(group, version, plural)
                if kind is not None and kind.resource not in seen:
                    seen.add(kind.resource)
                    yield kind.resource

    def _against(self, resource: Resource, spec: Obj, text: str) -> str:
        judged = type_of(self._node(resource))
        names = {**UNTYPED, 'object': judged, 'oldObject': judged, 'namespaceObject': type_of(self._node(NAMESPACES))}
        if kind := spec.get('paramKind'):
            group, _, version = str(kind.get('apiVersion')).rpartition('/')
            names['params'] = type_of(self._node(Resource(group, version, '', str(kind.get('kind')))))
        variables: dict[str, Type] = {}
        for v in spec.get('variables') or ():
            variables[v.get('name') or ''] = Checker(v.get('expression') or '', names, dict(variables)).type
        mistakes = Checker(text, names, variables).mistakes
        shown = f'{resource.api_version}, Kind={resource.kind}'
        return f'{shown}: {chr(10).join(mistakes)}\n' if mistakes else ''
