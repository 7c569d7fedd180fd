"""The Namespace controller: delete the content through discovery, say what is left, remove the finalizer."""

from __future__ import annotations

from collections.abc import Iterable

from kclient.discovery import discover
from kclient.errors import ApiError, Conflict, MethodNotAllowed, NotFound
from kclient.model import Obj
from kcontrol.controller import Ctx, Result, Watching, controller
from kcontrol.controllers.namespace.plan import DELETABLE, plan_conditions, problems, stages
from kcore.meta.gvk import NAMESPACES, PODS, Resource
from kcore.meta.objects import deleting, namespace_of

FINALIZER = 'kubernetes'
RECHECK_S = 2.0
"""While something holds the content. Pods bring us back by their own events, earlier."""


def namespace_of_gone(_: Ctx, old: Obj | None, new: Obj | None) -> Iterable[str]:
    """A pod vanished: its namespace may have waited for it."""
    return (namespace_of(old),) if new is None and old is not None else ()


@controller('namespace', primary=NAMESPACES, watches=[Watching(PODS, namespace_of_gone)], workers=5)
async def reconcile(c: Ctx, key: str) -> Result | None:
    ns = c.get(NAMESPACES, key)
    if ns is None or not deleting(ns) or FINALIZER not in ((ns.get('spec') or {}).get('finalizers') or ()):
        return None
    found = await discover(c.client)
    failed: dict[str, str] = {}
    remaining: dict[Resource, list[Obj]] = {}
    for stage in stages(found.with_verbs(*DELETABLE)):
        for resource in stage:
            try:
                remaining[resource] = await _empty(c, resource, key)
            except ApiError as e:
                failed[resource.qualified] = str(e)
        if failed or any(remaining.values()):
            break
    wrong = problems(remaining, failed, found.failed)
    status = {**(ns.get('status') or {}), 'phase': 'Terminating', 'conditions': plan_conditions(ns, wrong, c.now())}
    if wrong:
        await c.patch_status(NAMESPACES, ns, status, conditional=False)
        return Result(RECHECK_S)
    await _finalize(c, key, ns['metadata']['uid'])
    return None


async def _empty(c: Ctx, resource: Resource, namespace: str) -> list[Obj]:
    """Delete everything of one kind; returns what is there afterwards."""
    try:
        present = (await c.client.list(resource, namespace)).items
    except (NotFound, MethodNotAllowed):
        return []  # a kind that vanished since discovery, or that cannot be listed after all
    for obj in present:
        if deleting(obj):
            continue
        try:
            await c.client.delete(
                resource, obj['metadata']['name'], namespace, uid=obj['metadata']['uid'], propagation='Background'
            )
        except (NotFound, Conflict):
            continue
    return (await c.client.list(resource, namespace)).items if present else []


async def _finalize(c: Ctx, name: str, uid: str) -> None:
    """Remove our finalizer; the server then drops the namespace."""
    try:
        fresh = await c.client.get(NAMESPACES, name)
        if fresh['metadata']['uid'] != uid:
            return
        left = [f for f in fresh['spec'].get('finalizers') or () if f != FINALIZER]
        await c.client.update(
            NAMESPACES, {**fresh, 'spec': {**fresh['spec'], 'finalizers': left}}, subresource='finalize'
        )
    except NotFound:
        return
