"""The ServiceAccount controller: creates `default` in every active namespace, again when somebody deletes it."""

from __future__ import annotations

from collections.abc import Iterable

from kclient.errors import AlreadyExists, Forbidden
from kclient.model import Obj
from kcontrol.controller import Ctx, Result, Watching, controller
from kcore.meta.gvk import NAMESPACES, SERVICEACCOUNTS
from kcore.meta.objects import deleting, namespace_of

NAME = 'default'


def namespace_of_changed(_: Ctx, old: Obj | None, new: Obj | None) -> Iterable[str]:
    """The namespace of a `default` account that vanished."""
    return (namespace_of(old),) if new is None and old is not None and old['metadata']['name'] == NAME else ()


@controller('serviceaccount', primary=NAMESPACES, watches=[Watching(SERVICEACCOUNTS, namespace_of_changed)])
async def reconcile(c: Ctx, key: str) -> Result | None:
    ns = c.get(NAMESPACES, key)
    if ns is None or deleting(ns) or c.get(SERVICEACCOUNTS, f'{key}/{NAME}') is not None:
        return None
    try:
        await c.client.create(SERVICEACCOUNTS, {'metadata': {'name': NAME, 'namespace': key}})
    except AlreadyExists:
        return None
    except Forbidden as e:
        if not e.has_cause('NamespaceTerminating'):
            raise
    return None
