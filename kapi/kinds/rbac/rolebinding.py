"""RoleBinding: who may do what a role says in a namespace."""

from __future__ import annotations

from kapi.kinds.rbac.rules import BINDING_COLUMNS, GROUP, RoleBindingStrategy
from kapi.registry.kind import Kind
from kcore.meta.gvk import Resource

KIND = Kind(
    resource=Resource(GROUP, 'v1', 'rolebindings', 'RoleBinding'),
    strategy=RoleBindingStrategy(),
    columns=BINDING_COLUMNS,
)
