"""The ReplicationController controller: a ReplicaSet's reconcile over another kind."""

from __future__ import annotations

from kcontrol.controller import Ctx, Result, controller
from kcontrol.controllers.replicaset.reconcile import reconcile_replicas
from kcore.meta.gvk import PODS, Resource

REPLICATIONCONTROLLERS = Resource('', 'v1', 'replicationcontrollers', 'ReplicationController')


@controller('replicationcontroller', primary=REPLICATIONCONTROLLERS, owns=[PODS], workers=5)
async def reconcile(c: Ctx, key: str) -> Result | None:
    return await reconcile_replicas(c, key, REPLICATIONCONTROLLERS)
