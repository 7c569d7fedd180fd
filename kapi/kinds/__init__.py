"""Every built-in kind; the list is the documentation. One declaration stands in one file."""

from __future__ import annotations

from kapi.kinds.admissionregistration import (
    mutatingadmissionpolicy,
    mutatingadmissionpolicybinding,
    mutatingwebhookconfiguration,
    validatingadmissionpolicy,
    validatingadmissionpolicybinding,
    validatingwebhookconfiguration,
)
from kapi.kinds.apiextensions import customresourcedefinition
from kapi.kinds.apiregistration import apiservice
from kapi.kinds.apps import controllerrevision, daemonset, deployment, replicaset, statefulset
from kapi.kinds.authentication import selfsubjectreview, tokenreview
from kapi.kinds.authorization import (
    localsubjectaccessreview,
    selfsubjectaccessreview,
    selfsubjectrulesreview,
    subjectaccessreview,
)
from kapi.kinds.autoscaling import horizontalpodautoscaler, horizontalpodautoscaler_v1
from kapi.kinds.batch import cronjob, job
from kapi.kinds.certificates import certificatesigningrequest
from kapi.kinds.coordination import lease
from kapi.kinds.core import (
    binding,
    configmap,
    endpoints,
    event,
    limitrange,
    namespace,
    persistentvolume,
    persistentvolumeclaim,
    pod,
    podtemplate,
    replicationcontroller,
    resourcequota,
    secret,
    service,
    serviceaccount,
)
from kapi.kinds.core import (
    node as core_node,
)
from kapi.kinds.discovery import endpointslice
from kapi.kinds.events import event as events_event
from kapi.kinds.flowcontrol import flowschema, prioritylevelconfiguration
from kapi.kinds.metrics import nodemetrics, podmetrics
from kapi.kinds.networking import ingress, ingressclass, networkpolicy
from kapi.kinds.node import runtimeclass
from kapi.kinds.policy import poddisruptionbudget
from kapi.kinds.rbac import clusterrole, clusterrolebinding, role, rolebinding
from kapi.kinds.scheduling import priorityclass
from kapi.kinds.storage import csidriver, csinode, csistoragecapacity, storageclass, volumeattachment
from kapi.registry.kind import Kind

KINDS: tuple[Kind, ...] = (
    namespace.KIND,
    core_node.KIND,
    pod.KIND,
    service.KIND,
    configmap.KIND,
    secret.KIND,
    serviceaccount.KIND,
    endpoints.KIND,
    event.KIND,
    events_event.KIND,
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
    horizontalpodautoscaler.KIND,
    horizontalpodautoscaler_v1.KIND,
    poddisruptionbudget.KIND,
    ingress.KIND,
    ingressclass.KIND,
    networkpolicy.KIND,
    endpointslice.KIND,
    lease.KIND,
    priorityclass.KIND,
    storageclass.KIND,
    csidriver.KIND,
    csinode.KIND,
    csistoragecapacity.KIND,
    volumeattachment.KIND,
    role.KIND,
    rolebinding.KIND,
    clusterrole.KIND,
    clusterrolebinding.KIND,
    certificatesigningrequest.KIND,
    runtimeclass.KIND,
    customresourcedefinition.KIND,
    apiservice.KIND,
)
"""Stored kinds, served by the generic registry."""

VIRTUAL: tuple[Kind, ...] = (
    binding.KIND,
    tokenreview.KIND,
    selfsubjectreview.KIND,
    selfsubjectreview.BETA,
    subjectaccessreview.KIND,
    selfsubjectaccessreview.KIND,
    selfsubjectrulesreview.KIND,
    localsubjectaccessreview.KIND,
    nodemetrics.KIND,
    podmetrics.KIND,
)
"""Kinds that are answered, never stored; each needs a handler of its own."""

GOVERNING: tuple[Kind, ...] = (
    mutatingwebhookconfiguration.KIND,
    validatingwebhookconfiguration.KIND,
    mutatingadmissionpolicy.KIND,
    mutatingadmissionpolicybinding.KIND,
    validatingadmissionpolicy.KIND,
    validatingadmissionpolicybinding.KIND,
    flowschema.KIND,
    prioritylevelconfiguration.KIND,
)
"""Kinds that change how the server itself behaves. To be served only by a server that honours them: a webhook
configuration that is stored and never called would be a hole, not a feature."""
