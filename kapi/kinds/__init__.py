"""Every built-in kind; the list is the documentation. One declaration stands in one file."""

from __future__ import annotations

from kapi.kinds.apps import deployment, replicaset
from kapi.kinds.coordination import lease
from kapi.kinds.core import (
    configmap,
    endpoints,
    event,
    namespace,
    node,
    pod,
    secret,
    service,
    serviceaccount,
)  # fmt: skip
from kapi.registry.kind import Kind

KINDS: tuple[Kind, ...] = (
    namespace.KIND,
    node.KIND,
    pod.KIND,
    service.KIND,
    configmap.KIND,
    secret.KIND,
    serviceaccount.KIND,
    endpoints.KIND,
    event.KIND,
    deployment.KIND,
    replicaset.KIND,
    lease.KIND,
)
