"""The root CA publisher: keeps the ConfigMap equal to the authority that our own kubeconfig trusts."""

from __future__ import annotations

from collections.abc import Iterable

from kclient.errors import AlreadyExists, ApiError, Forbidden
from kclient.model import Obj
from kcontrol.controller import Ctx, Result, Watching, controller
from kcontrol.figures import ROOT_CA_SYNC_S, ROOT_CA_SYNCS
from kcore.meta.gvk import CONFIGMAPS, NAMESPACES
from kcore.meta.objects import deleting, namespace_of

NAME = 'kube-root-ca.crt'
DESCRIPTION = 'kubernetes.io/description'
LOOK_AGAIN_S = 30.0
"""The authority may be exchanged under us, and no object tells."""
TEXT = 'Contains a CA bundle that can be used to verify the API server when using internal addresses.'


def namespace_of_changed(_: Ctx, old: Obj | None, new: Obj | None) -> Iterable[str]:
    obj = new if new is not None else old
    return (namespace_of(obj),) if obj is not None and obj['metadata']['name'] == NAME else ()


@controller('rootca', primary=NAMESPACES, watches=[Watching(CONFIGMAPS, namespace_of_changed)])
async def reconcile(c: Ctx, key: str) -> Result | None:
    began, code = c.env.clock.monotonic(), 500
    try:
        result = await _publish(c, key)
        code = 200
    except ApiError as e:
        code = e.code
        raise
    finally:
        c.figures.count(ROOT_CA_SYNCS, str(code))
        c.figures.observe(ROOT_CA_SYNC_S, c.env.clock.monotonic() - began, str(code))
    return result


async def _publish(c: Ctx, key: str) -> Result | None:
    ns, ca = c.get(NAMESPACES, key), c.client.config.ca_data
    if ns is None or deleting(ns) or ca is None:
        return None
    data = {'ca.crt': ca.decode('ascii')}
    held = c.get(CONFIGMAPS, f'{key}/{NAME}')
    if held is not None:
        if held.get('data') != data:
            gone = {k: None for k in held.get('data') or {} if k not in data}
            await c.patch(CONFIGMAPS, held, {'data': {**gone, **data}})
        return Result(LOOK_AGAIN_S)
    meta = {'name': NAME, 'namespace': key, 'annotations': {DESCRIPTION: TEXT}}
    try:
        await c.client.create(CONFIGMAPS, {'metadata': meta, 'data': data})
    except AlreadyExists:
        return Result(LOOK_AGAIN_S)
    except Forbidden as e:
        if not e.has_cause('NamespaceTerminating'):
            raise
        return None
    return Result(LOOK_AGAIN_S)
