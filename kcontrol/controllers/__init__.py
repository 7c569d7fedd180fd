"""The list of controllers: to add one, write its folder and name it here."""

from __future__ import annotations

from kcontrol.controller import Controller, Loop
from kcontrol.controllers.attachdetach import reconcile as attachdetach
from kcontrol.controllers.bootstrap import reconcile as bootstrap
from kcontrol.controllers.certificates import reconcile as certificates
from kcontrol.controllers.clusterdns import reconcile as clusterdns
from kcontrol.controllers.clusterroleaggregation import reconcile as clusterroleaggregation
from kcontrol.controllers.cronjob import reconcile as cronjob
from kcontrol.controllers.daemonset import reconcile as daemonset
from kcontrol.controllers.deployment import reconcile as deployment
from kcontrol.controllers.disruption import reconcile as disruption
from kcontrol.controllers.endpoints import reconcile as endpoints
from kcontrol.controllers.endpointslice import reconcile as endpointslice
from kcontrol.controllers.endpointslicemirroring import reconcile as endpointslicemirroring
from kcontrol.controllers.ephemeralvolume import reconcile as ephemeralvolume
from kcontrol.controllers.gc import reconcile as gc
from kcontrol.controllers.horizontalpodautoscaler import reconcile as horizontalpodautoscaler
from kcontrol.controllers.job import reconcile as job
from kcontrol.controllers.legacytokens import reconcile as legacytokens
from kcontrol.controllers.namespace import reconcile as namespace
from kcontrol.controllers.nodeipam import reconcile as nodeipam
from kcontrol.controllers.nodelifecycle import reconcile as nodelifecycle
from kcontrol.controllers.nodettl import reconcile as nodettl
from kcontrol.controllers.podgc import reconcile as podgc
from kcontrol.controllers.replicaset import reconcile as replicaset
from kcontrol.controllers.replicationcontroller import reconcile as replicationcontroller
from kcontrol.controllers.resourcequota import reconcile as resourcequota
from kcontrol.controllers.rootca import reconcile as rootca
from kcontrol.controllers.serviceaccount import reconcile as serviceaccount
from kcontrol.controllers.statefulset import reconcile as statefulset
from kcontrol.controllers.tainteviction import reconcile as tainteviction
from kcontrol.controllers.tokens import reconcile as tokens
from kcontrol.controllers.volumebinder import reconcile as volumebinder
from kcontrol.controllers.volumeprotection import reconcile as volumeprotection

CONTROLLERS: tuple[Controller | Loop, ...] = (
    namespace.reconcile,
    serviceaccount.reconcile,
    rootca.reconcile,
    nodeipam.reconcile,
    nodelifecycle.run,
    tainteviction.reconcile,
    replicaset.reconcile,
    replicationcontroller.reconcile,
    deployment.reconcile,
    daemonset.reconcile,
    statefulset.reconcile,
    job.reconcile,
    cronjob.reconcile,
    disruption.reconcile,
    disruption.take_back,
    resourcequota.reconcile,
    horizontalpodautoscaler.reconcile,
    endpoints.reconcile,
    endpointslice.reconcile,
    endpointslicemirroring.reconcile,
    clusterdns.reconcile,
    volumebinder.bind_claims,
    volumebinder.keep_volumes,
    volumebinder.expand,
    volumeprotection.protect_claims,
    volumeprotection.protect_volumes,
    ephemeralvolume.reconcile,
    attachdetach.reconcile,
    certificates.approve,
    certificates.sign,
    certificates.clean,
    clusterroleaggregation.reconcile,
    tokens.reconcile,
    legacytokens.run,
    bootstrap.sign,
    bootstrap.clean,
    nodettl.reconcile,
    podgc.run,
    gc.run,
)
