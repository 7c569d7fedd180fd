"""One pass of an autoscaler: proposals of its metrics → replicas, conditions, status. Pure.

Source: pkg/controller/podautoscaler/horizontal.go (reconcileAutoscaler, computeReplicasForMetrics).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from kclient.model import Obj
from kcontrol.controllers.horizontalpodautoscaler.limits import Past, Verdict, limit, stabilize
from kcontrol.controllers.horizontalpodautoscaler.replicas import Proposal
from kcore.meta.objects import set_condition
from kcore.meta.times import format_time


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one metric of the spec."""

    name: str
    """As messages name it, such as `cpu resource utilization (percentage of request)`."""
    proposal: Proposal | None
    current: Obj | None
    """Its entry of `status.currentMetrics`."""
    error: str = ''
    reason: str = ''
    """Of the ScalingActive condition and the event, when it failed."""
    context: str = ''
    """What the failure of the pass as a whole says before the error."""


@dataclass(frozen=True, slots=True)
class Plan:
    replicas: int
    rescale: bool
    status: Obj
    why: str = ''
    """For the event of a change."""
    error: str = ''


def plan(hpa: Obj, current: int, answers: Sequence[Answer], past: Past, now: datetime) -> Plan:
    """current: replicas of the target's scale. Adds to `past`."""
    spec = hpa['spec']
    low, high = int(spec.get('minReplicas', 1)), int(spec['maxReplicas'])
    holder = _holder(hpa)
    past.begin(current, now)
    _say(
        holder,
        'AbleToScale',
        ('True', 'SucceededGetScale', "the HPA controller was able to get the target's current scale"),
        now,
    )
    if current == 0 and low != 0:
        text = 'scaling is disabled since the replica count of the target is zero'
        _say(holder, 'ScalingActive', ('False', 'ScalingDisabled', text), now)
        return _result(hpa, holder, current, 0, answers, rescale=False)
    if current > high:
        return _result(hpa, holder, current, high, answers, why='Current number of replicas above Spec.MaxReplicas')
    if current < low:
        return _result(hpa, holder, current, low, answers, why='Current number of replicas below Spec.MinReplicas')
    good = [a for a in answers if a.proposal is not None]
    bad = [a for a in answers if a.proposal is None]
    best = max(good, key=lambda a: a.proposal.replicas if a.proposal else 0, default=None)
    asked = best.proposal.replicas if best is not None and best.proposal is not None else 0
    if not good or (bad and asked < current):
        first = bad[0] if bad else Answer('', None, None, 'no metrics', 'InvalidMetricSourceType')
        _say(
            holder,
            'ScalingActive',
            ('False', first.reason, f'the HPA was unable to compute the replica count: {first.error}'),
            now,
        )
        text = (
            f'invalid metrics ({len(bad)} invalid out of {len(answers)}), first error is: {first.context}{first.error}'
        )
        shown = int((hpa.get('status') or {}).get('desiredReplicas') or 0)
        return _result(hpa, holder, current, shown, answers, rescale=False, error=text)
    assert best is not None
    found = f'the HPA was able to successfully calculate a replica count from {best.name}'
    _say(holder, 'ScalingActive', ('True', 'ValidMetricFound', found), now)
    stable, able = stabilize(past, spec.get('behavior'), current, asked, now)
    desired, limited = limit(past, spec, current, stable, now)
    _say(holder, 'AbleToScale', able, now)
    _say(holder, 'ScalingLimited', limited, now)
    why = f'{best.name} above target' if desired > current else 'All metrics below target'
    return _result(hpa, holder, current, desired, answers, why=why)


def _holder(hpa: Obj) -> Obj:
    """Something with conditions to set."""
    return {'status': {'conditions': [dict(c) for c in (hpa.get('status') or {}).get('conditions') or ()]}}


def _say(holder: Obj, kind: str, verdict: Verdict, now: datetime) -> None:
    status, reason, message = verdict
    set_condition(holder, kind, status, now, reason=reason, message=message)


def _result(
    hpa: Obj, holder: Obj, current: int, desired: int, answers: Sequence[Answer],
    *, rescale: bool | None = None, why: str = '', error: str = '',
) -> Plan:  # fmt: skip
    old = hpa.get('status') or {}
    metrics = [a.current or {'type': ''} for a in answers]
    status: Obj = {
        'currentReplicas': current, 'desiredReplicas': desired, 'conditions': holder['status']['conditions'],
    }  # fmt: skip
    if metrics and any(a.current for a in answers):
        status['currentMetrics'] = metrics
    elif old.get('currentMetrics'):
        status['currentMetrics'] = old['currentMetrics']
    if old.get('lastScaleTime'):
        status['lastScaleTime'] = old['lastScaleTime']
    return Plan(desired, desired != current if rescale is None else rescale, status, why, error)


def after_rescale(step: Plan, now: datetime) -> Obj:
    """The status once the scale was written."""
    holder: Obj = {'status': {**step.status, 'conditions': [dict(c) for c in step.status['conditions']]}}
    text = f'the HPA controller was able to update the target scale to {step.replicas}'
    _say(holder, 'AbleToScale', ('True', 'SucceededRescale', text), now)
    return {**holder['status'], 'lastScaleTime': format_time(now)}


def after_refusal(hpa: Obj, step: Plan, error: str, now: datetime) -> Obj:
    """The status once the scale was refused."""
    holder: Obj = {'status': {'conditions': [dict(c) for c in step.status['conditions']]}}
    text = f'the HPA controller was unable to update the target scale: {error}'
    _say(holder, 'AbleToScale', ('False', 'FailedUpdateScale', text), now)
    return {
        **step.status,
        'desiredReplicas': int((hpa.get('status') or {}).get('desiredReplicas') or 0),
        'conditions': holder['status']['conditions'],
    }


def no_scale(hpa: Obj, error: str, now: datetime) -> Obj:
    """The status when the target cannot be read."""
    holder = _holder(hpa)
    text = f"the HPA controller was unable to get the target's current scale: {error}"
    _say(holder, 'AbleToScale', ('False', 'FailedGetScale', text), now)
    old = hpa.get('status') or {}
    return {
        **old,
        'desiredReplicas': int(old.get('desiredReplicas') or 0),
        'conditions': holder['status']['conditions'],
    }
