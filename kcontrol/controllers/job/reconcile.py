"""The Job controller: carry out one pass of the plan; delete finished Jobs whose time to live is over."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from kclient.errors import NotFound
from kclient.model import Obj
from kclient.retry import change
from kcontrol.adoption import carry_out
from kcontrol.claim import plan_claim
from kcontrol.controller import Ctx, Result, controller
from kcontrol.controllers.job.indexes import INDEX
from kcontrol.controllers.job.plan import FINALIZER, Plan, finished, plan, tracked
from kcontrol.controllers.replicaset.plan import pod_from_template
from kcontrol.figures import (
    JOB_PODS_CREATED,
    JOB_PODS_FINISHED,
    JOB_SYNC_S,
    JOB_SYNCS,
    JOBS_FINISHED,
    TTL_DELETION_S,
)
from kcontrol.kinds import JOBS
from kcontrol.pods import Failed, create_pods, delete_pods
from kcore.meta.gvk import PODS
from kcore.meta.objects import deleting, name_of, namespace_of, owner_ref

CATCH_UP_S = 5.0
"""Safety net: the event that shows our own write brings us back much earlier."""
OURS = 'kubernetes.io/job-controller'


@controller('job', primary=JOBS, owns=[PODS], workers=5)
async def reconcile(c: Ctx, key: str) -> Result | None:
    job = c.get(JOBS, key)
    if job is None:
        await _release_orphans(c, key)
        return None
    if job['spec'].get('managedBy') not in (None, OURS):
        return None
    began, mode = c.env.clock.monotonic(), str(job['spec'].get('completionMode') or 'NonIndexed')
    result = 'error'
    try:
        outcome = await _sync(c, key, job)
        result = 'success'
    finally:
        c.figures.count(JOB_SYNCS, mode, result, 'reconciling')
        c.figures.observe(JOB_SYNC_S, c.env.clock.monotonic() - began, mode, result, 'reconciling')
    return outcome


async def _sync(c: Ctx, key: str, job: Obj) -> Result | None:
    if not c.caught_up(key, PODS):
        return Result(CATCH_UP_S)
    candidates = [*c.owned(PODS, job), *c.orphans(PODS, namespace_of(job))]
    pods = await carry_out(c, plan_claim(job, candidates), job, JOBS, PODS)
    step = plan(job, pods, c.now())
    over = finished(job)
    if over is not None and step.recheck_s is not None and step.recheck_s <= 0:
        if deleting(job):
            return None
        meta = job['metadata']
        await c.client.delete(JOBS, meta['name'], meta['namespace'], uid=meta['uid'], propagation='Foreground')
        c.figures.observe(TTL_DELETION_S, -step.recheck_s)
        return None
    # The uids of ended pods must be in the status before their finalizers go.
    await c.patch_status(JOBS, job, step.status)
    _count(c, job, step.status)
    if step.note is not None:
        kind, reason, message = step.note
        c.event(job, 'Normal' if kind == 'Normal' else 'Warning', reason, message)
    for pod in [*step.release, *(p for p in step.delete if tracked(p))]:
        await _release(c, pod)
    try:
        await delete_pods(c, job, step.delete)
        if step.create:
            await _create(c, job, step)
    except Failed as e:
        raise e.cause from e
    return Result(step.recheck_s) if step.recheck_s is not None else None


async def _create(c: Ctx, job: Obj, step: Plan) -> None:
    """Raises Failed."""
    reason, made = _why_now(job, step.status), 0
    try:
        made = len(await create_pods(c, job, [new_pod(job, index, step.annotations) for index in step.create]))
    except Failed as e:
        made = e.done
        c.figures.count(JOB_PODS_CREATED, reason, 'failed', by=len(step.create) - made)
        raise
    finally:
        c.figures.count(JOB_PODS_CREATED, reason, 'succeeded', by=made)


def _why_now(job: Obj, status: Obj) -> str:
    """Whether pods are the Job's first, or stand for others that failed."""
    if job['spec'].get('podReplacementPolicy') == 'Failed':
        return 'recreate_failed' if status.get('failed') else 'new'
    return 'recreate_terminating_or_failed' if status.get('failed') or status.get('terminating') else 'new'


def _count(c: Ctx, job: Obj, status: Obj) -> None:
    """What the status says now and did not say before."""
    mode, before = str(job['spec'].get('completionMode') or 'NonIndexed'), job.get('status') or {}
    for result in ('succeeded', 'failed'):
        more = int(status.get(result) or 0) - int(before.get(result) or 0)
        if more > 0:
            c.figures.count(JOB_PODS_FINISHED, mode, result, by=more)
    over = finished({**job, 'status': status})
    if over is not None and finished(job) is None:
        result = 'succeeded' if over['type'] == 'Complete' else 'failed'
        c.figures.count(JOBS_FINISHED, mode, result, str(over.get('reason') or ''))


def new_pod(job: Obj, index: int | None, annotations: Mapping[int, dict[str, str]] = MappingProxyType({})) -> Obj:
    """A pod of the Job, held by the counting finalizer; with an index also its name, hostname and environment."""
    pod = pod_from_template(job, owner_ref(job, JOBS), job['spec']['template'])
    meta = pod['metadata']
    meta['finalizers'] = sorted({*meta.get('finalizers', ()), FINALIZER})
    if index is None:
        return pod
    meta['generateName'] = f'{name_of(job)}-{index}-'
    meta['annotations'] = {**meta.get('annotations', {}), INDEX: str(index), **annotations.get(index, {})}
    meta['labels'] = {**meta.get('labels', {}), INDEX: str(index)}
    spec = {'hostname': f'{name_of(job)}-{index}', **pod['spec']}
    for field in ('initContainers', 'containers'):
        if spec.get(field):
            spec[field] = [_with_index(container) for container in spec[field]]
    return {**pod, 'spec': spec}


def _with_index(container: Obj) -> Obj:
    held = container.get('env') or []
    if any(e.get('name') == 'JOB_COMPLETION_INDEX' for e in held):
        return container
    source = {'fieldRef': {'fieldPath': f"metadata.annotations['{INDEX}']"}}
    return {**container, 'env': [*held, {'name': 'JOB_COMPLETION_INDEX', 'valueFrom': source}]}


def without_finalizer(pod: Obj) -> Obj | None:
    """The patch; None when the finalizer is gone already."""
    if not tracked(pod):
        return None
    return {'metadata': {'finalizers': [f for f in pod['metadata']['finalizers'] if f != FINALIZER] or None}}


async def _release(c: Ctx, pod: Obj) -> None:
    """Remove the counting finalizer."""
    try:
        await change(c.client, PODS, pod, without_finalizer)
    except NotFound:
        return


async def _release_orphans(c: Ctx, key: str) -> None:
    """The Job is gone: its pods must not hang on a finalizer that nobody serves any more."""
    namespace, _, name = key.partition('/')
    for pod in c.in_namespace(PODS, namespace):
        refs = pod['metadata'].get('ownerReferences') or ()
        if tracked(pod) and any(r.get('kind') == 'Job' and r.get('name') == name for r in refs):
            await _release(c, pod)
