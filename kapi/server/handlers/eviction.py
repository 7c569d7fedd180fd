"""`pods/eviction`: delete a pod unless a PodDisruptionBudget would be broken.

The budget is counted down in the same optimistic update that records the pod as disrupted, so concurrent evictions
cannot both take the last permission. Source: pkg/registry/core/pod/storage/eviction.go.
"""

from __future__ import annotations

from typing import Any

import orjson

from kapi.errors import BadRequest, InternalError, TooManyRequests
from kapi.registry.kind import Kind
from kapi.registry.options import WriteOptions, delete_options, write_options
from kapi.registry.store import Write
from kapi.server.context import Context, Reply
from kapi.server.decoding import read_object
from kapi.server.handlers.admit import admit
from kcore.meta.gvk import Resource
from kcore.meta.objects import is_pod_finished
from kcore.meta.selectors import from_label_selector
from kcore.meta.times import format_time

Obj = dict[str, Any]
EVICTIONS = Kind(Resource('policy', 'v1', 'evictions', 'Eviction'))
RETRY_AFTER_S = 10
"""When a budget that was just changed will have been counted."""


async def evict(ctx: Context, kind: Kind) -> Reply:
    """Raises TooManyRequests when the budget forbids it, InternalError when several budgets cover the pod."""
    options = write_options(ctx.info.query, 'CreateOptions', ctx.user_agent)
    eviction = await read_object(ctx, kind, options, what=EVICTIONS, alike='policy/v1beta1')
    name, namespace = ctx.info.name, ctx.info.namespace
    if (given := eviction['metadata'].get('name')) and given != name:
        raise BadRequest(f'name in URL does not match name in Eviction object: {given} != {name}')
    eviction = await admit(ctx, kind, EVICTIONS.resource, eviction, options=options)
    wanted = delete_options({}, eviction.get('deleteOptions') or {'dryRun': ['All'] if options.dry_run else []})
    pod = (await ctx.server.registry.get(kind, namespace, name)).obj
    free = (
        is_pod_finished(pod)
        or (pod.get('status') or {}).get('phase') == 'Pending'
        or 'deletionTimestamp' in pod['metadata']
    )
    if not free:
        await _take_permission(ctx, namespace, pod, WriteOptions(dry_run=wanted.dry_run))
    if not wanted.dry_run:
        await _mark(ctx, kind)
    await ctx.server.registry.delete(
        kind,
        namespace,
        name,
        wanted,
        Write(ctx.user, WriteOptions(dry_run=wanted.dry_run), ctx.warnings, ctx.annotations, admitted=True),
    )
    done = {'kind': 'Status', 'apiVersion': 'v1', 'metadata': {}, 'status': 'Success', 'code': 201}
    return Reply(orjson.dumps(done), 201)


async def _mark(ctx: Context, kind: Kind) -> None:
    """Say on the pod why it goes: failure policies of Jobs look for it."""
    now = format_time(ctx.server.env.clock.wall())
    condition = {
        'type': 'DisruptionTarget', 'status': 'True', 'lastTransitionTime': now,
        'reason': 'EvictionByEvictionAPI', 'message': 'Eviction API: evicting',
    }  # fmt: skip

    async def transform(pod: Obj) -> Obj:
        status = pod.setdefault('status', {})
        others = [c for c in status.get('conditions') or () if c['type'] != condition['type']]
        status['conditions'] = [*others, condition]
        return pod

    write = Write(ctx.user, WriteOptions(), ctx.warnings, subresource='status', admitted=True)
    await ctx.server.registry.update(kind, ctx.info.namespace, ctx.info.name, transform, write)


async def _take_permission(ctx: Context, namespace: str, pod: Obj, options: WriteOptions) -> None:
    budgets = ctx.server.catalog.find('policy', 'v1', 'poddisruptionbudgets')
    if budgets is None:
        return
    labels = pod['metadata'].get('labels') or {}
    prefix = '/registry/policy/poddisruptionbudgets/'
    entries = ctx.server.cache.resource(prefix).select(f'{prefix}{namespace}/')
    found = [e.obj for e in entries if from_label_selector((e.obj.get('spec') or {}).get('selector')).matches(labels)]
    if len(found) > 1:
        raise InternalError(
            'This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.'
        )
    if not found:
        return
    name, pod_name = found[0]['metadata']['name'], pod['metadata']['name']
    now = format_time(ctx.server.env.clock.wall())

    async def transform(budget: Obj) -> Obj:
        status = budget.setdefault('status', {})
        allowed = status.get('disruptionsAllowed') or 0
        if (status.get('observedGeneration') or 0) < (budget['metadata'].get('generation') or 0):
            why = f'The disruption budget {name} is still being processed by the server.'
            raise _violation(why, retry_after_s=RETRY_AFTER_S)
        if allowed <= 0:
            why = (
                f'The disruption budget {name} needs {status.get("desiredHealthy", 0)} healthy pods '
                f'and has {status.get("currentHealthy", 0)} currently'
            )
            raise _violation(why, retry_after_s=0)  # a header would make clients retry in silence
        status['disruptionsAllowed'] = allowed - 1
        status.setdefault('disruptedPods', {})[pod_name] = now
        return budget

    write = Write(ctx.user, options, ctx.warnings, subresource='status', admitted=True)
    await ctx.server.registry.update(budgets, namespace, name, transform, write)


def _violation(why: str, *, retry_after_s: int) -> TooManyRequests:
    return TooManyRequests(
        "Cannot evict pod as it would violate the pod's disruption budget.",
        retry_after_s=retry_after_s,
        causes=[{'reason': 'DisruptionBudget', 'message': why}],
    )
