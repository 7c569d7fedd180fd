"""Role: what may be done in a namespace."""

from __future__ import annotations

from kapi.kinds.rbac.rules import GROUP, RoleStrategy
from kapi.registry.kind import Kind
from kcore.meta.gvk import Resource

KIND = Kind(resource=Resource(GROUP, 'v1', 'roles', 'Role'), strategy=RoleStrategy())
