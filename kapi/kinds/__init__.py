"""Every built-in kind; the list is the documentation. One declaration stands in one file."""

from __future__ import annotations

from kapi.kinds.apps import controllerrevision, daemonset, deployment, replicaset, statefulset
from kapi.kinds.batch import cronjob, job
from kapi.kinds.coordination import lease
from kapi.kinds.core import (
    binding,
    configmap,
    endpoints,
    event,
    limitrange,
    namespace,
    node,
    persistentvolume,
    persistentvolumeclaim,
    pod,
    podtemplate,
    replicationcontroller,
    resourcequota,
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
    persistentvolume.KIND,
    persistentvolumeclaim.KIND,
    resourcequota.KIND,
    limitrange.KIND,
    podtemplate.KIND,
    replicationcontroller.KIND,
    deployment.KIND,
    replicaset.KIND,
    statefulset.KIND,
    daemonset.KIND,
    controllerrevision.KIND,
    job.KIND,
    cronjob.KIND,
    lease.KIND,
)
"""Stored kinds, served by the generic registry."""

VIRTUAL: tuple[Kind, ...] = (binding.KIND,)
"""Kinds that are answered, never stored; each needs a handler of its own."""
