"""The plugins and their order. Order is policy, so it is written down here and nowhere else."""

from __future__ import annotations

from kapi.admission.chain import Chain
from kapi.admission.plugins.default_toleration_seconds import DefaultTolerationSeconds
from kapi.admission.plugins.namespace_lifecycle import NamespaceLifecycle
from kapi.admission.plugins.node_restriction import NodeRestriction
from kapi.admission.plugins.priority import Priority
from kapi.admission.plugins.rbac_escalation import RbacEscalation
from kapi.admission.plugins.service_account import ServiceAccount
from kapi.authz.rbac import Rbac
from kapi.authz.union import Union
from kapi.storage.cache import Cache


def chain(cache: Cache, authz: Union, rbac: Rbac) -> Chain:
    return Chain((
        NamespaceLifecycle(cache),
        ServiceAccount(cache),
        Priority(cache),
        DefaultTolerationSeconds(),
        NodeRestriction(),
        RbacEscalation(authz, rbac),
    ))  # fmt: skip
