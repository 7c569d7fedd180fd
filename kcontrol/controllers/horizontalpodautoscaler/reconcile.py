"""The HorizontalPodAutoscaler controller: looks every 15 s, writes the target's scale."""

from __future__ import annotations

from kclient.errors import ApiError
from kclient.model import Obj
from kcontrol.controller import Ctx, Result, Watching, controller
from kcontrol.controllers.horizontalpodautoscaler.limits import Past
from kcontrol.controllers.horizontalpodautoscaler.metrics import Target, answer
from kcontrol.controllers.horizontalpodautoscaler.plan import Plan, after_refusal, after_rescale, no_scale, plan
from kcontrol.controllers.horizontalpodautoscaler.replicas import TOLERANCE, Tolerances
from kcontrol.figures import HPA_PASS_S, HPA_PASSES
from kcontrol.kinds import HORIZONTALPODAUTOSCALERS
from kcore.meta import quantity
from kcore.meta.gvk import PODS, Resource
from kcore.meta.objects import key_of, labels_of, namespace_of
from kcore.meta.selectors import parse_label_selector

PERIOD_S = 15.0
DEFAULT_METRIC: Obj = {
    'type': 'Resource', 'resource': {'name': 'cpu', 'target': {'type': 'Utilization', 'averageUtilization': 80}},
}  # fmt: skip


@controller(
    'horizontalpodautoscaler',
    primary=HORIZONTALPODAUTOSCALERS,
    watches=[Watching(PODS, lambda _c, _old, _new: ())],
    workers=5,
)
async def reconcile(c: Ctx, key: str) -> Result | None:
    hpa = c.get(HORIZONTALPODAUTOSCALERS, key)
    pasts: dict[str, Past] = c.state.setdefault('past', {})
    if hpa is None:
        pasts.pop(key, None)
        return None
    due: dict[str, float] = c.state.setdefault('due', {})
    now = c.env.clock.monotonic()
    if now < due.get(key, now):  # our own status write: the metrics are not newer than a moment ago
        return Result(due[key] - now)
    due[key] = now + PERIOD_S
    found, ref = await c.discovery(), hpa['spec']['scaleTargetRef']
    resource = found.find(str(ref.get('apiVersion') or 'v1'), str(ref['kind']))
    try:
        if resource is None:
            raise LookupError(f'no matches for kind {ref["kind"]!r} in {ref.get("apiVersion")!r}')
        scale = await c.client.get(resource, str(ref['name']), namespace_of(hpa), subresource='scale')
    except (ApiError, LookupError) as e:
        c.event(hpa, 'Warning', 'FailedGetScale', str(e))
        await c.patch_status(HORIZONTALPODAUTOSCALERS, hpa, no_scale(hpa, str(e), c.now()))
        _count(c, now, 'none', 'internal')
        return Result(PERIOD_S)
    target = _target(c, hpa, scale)
    metrics = hpa['spec'].get('metrics') or [DEFAULT_METRIC]
    answers = [await answer(c.client, m, target, _tolerances(hpa), found) for m in metrics]
    for failed in (a for a in answers if a.error):
        c.event(hpa, 'Warning', failed.reason, failed.error)
    past = pasts.setdefault(key, Past())
    step = plan(hpa, target.replicas, answers, past, c.now())
    if step.error:
        c.event(hpa, 'Warning', 'FailedComputeMetricsReplicas', step.error)
    status = step.status
    if step.rescale:
        status = await _rescale(c, hpa, resource, scale, (step, past))
    await c.patch_status(HORIZONTALPODAUTOSCALERS, hpa, status, conditional=False)
    action = 'none' if not step.rescale else 'scale_up' if step.replicas > target.replicas else 'scale_down'
    _count(c, now, action, 'internal' if step.error else 'none')
    return Result(PERIOD_S)


def _count(c: Ctx, began: float, action: str, error: str) -> None:
    c.figures.count(HPA_PASSES, action, error)
    c.figures.observe(HPA_PASS_S, c.env.clock.monotonic() - began, action, error)


def _target(c: Ctx, hpa: Obj, scale: Obj) -> Target:
    text = str((scale.get('status') or {}).get('selector') or '')
    selector = parse_label_selector(text)
    mine = [p for p in c.in_namespace(PODS, namespace_of(hpa)) if text and selector.matches(labels_of(p))]
    replicas = int((scale.get('spec') or {}).get('replicas') or 0)
    return Target(namespace_of(hpa), replicas, int((scale.get('status') or {}).get('replicas') or 0), text, mine)


def _tolerances(hpa: Obj) -> Tolerances:
    behavior = hpa['spec'].get('behavior') or {}
    up, down = ((behavior.get(s) or {}).get('tolerance') for s in ('scaleUp', 'scaleDown'))
    return Tolerances(*(float(quantity.parse(t)) if t is not None else TOLERANCE for t in (up, down)))


async def _rescale(c: Ctx, hpa: Obj, resource: Resource, scale: Obj, decided: tuple[Plan, Past]) -> Obj:
    """Write the scale. Returns the status that tells of it. Raises ApiError when it was refused."""
    step, past = decided
    before = int((scale.get('spec') or {}).get('replicas') or 0)
    text = f'New size: {step.replicas}; reason: {step.why}'
    try:
        wanted = {**scale, 'spec': {**(scale.get('spec') or {}), 'replicas': step.replicas}}
        await c.client.update(resource, wanted, subresource='scale')
    except ApiError as e:
        c.state['due'].pop(key_of(hpa), None)  # tried again after the back-off, not at the next look
        c.event(hpa, 'Warning', 'FailedRescale', f'{text}; error: {e}')
        await c.patch_status(
            HORIZONTALPODAUTOSCALERS, hpa, after_refusal(hpa, step, str(e), c.now()), conditional=False
        )
        raise
    past.scaled(before, step.replicas, c.now(), hpa['spec'].get('behavior') or {})
    c.event(hpa, 'Normal', 'SuccessfulRescale', text)
    return after_rescale(step, c.now())
