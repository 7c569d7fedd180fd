"""ClusterRoleBinding: who may do what a role says anywhere in the cluster."""

from __future__ import annotations

from kapi.kinds.rbac.rules import BINDING_COLUMNS, GROUP, RoleBindingStrategy
from kapi.registry.kind import Kind
from kcore.meta.gvk import Resource

KIND = Kind(
    resource=Resource(GROUP, 'v1', 'clusterrolebindings', 'ClusterRoleBinding', namespaced=False),
    strategy=RoleBindingStrategy(cluster=True),
    columns=BINDING_COLUMNS,
)
