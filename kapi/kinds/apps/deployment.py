"""Deployment: a rolling, reversible way from one pod template to the next."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from kapi.kinds.base import BuiltinStrategy, put_defaults, spec_of
from kapi.kinds.core.pod_defaults import default_template
from kapi.kinds.core.pod_rules import template
from kapi.kinds.printing import AGE, CONTAINERS, IMAGES, SELECTOR, number
from kapi.kinds.rules import (
    forbidden,
    immutable,
    int_or_percent,
    invalid,
    not_negative,
    one_of,
    percent_of,
    selects_template,
)  # fmt: skip
from kapi.registry.kind import Col, Kind, Obj, Scale, Status
from kapi.registry.strategy import Invalid
from kcore.meta import gvk
from kcore.meta.objects import get_path

HISTORY_LIMIT = 10
PROGRESS_DEADLINE_S = 600
SURGE = '25%'


class DeploymentStrategy(BuiltinStrategy):
    status_keeps = ('labels',)

    def default(self, obj: Obj) -> None:
        spec = spec_of(obj)
        put_defaults(
            spec,
            replicas=1,
            revisionHistoryLimit=HISTORY_LIMIT,
            progressDeadlineSeconds=PROGRESS_DEADLINE_S,
        )
        strategy = spec.setdefault('strategy', {})
        if not strategy.get('type'):
            strategy['type'] = 'RollingUpdate'
        if strategy['type'] == 'RollingUpdate':
            put_defaults(strategy.setdefault('rollingUpdate', {}), maxUnavailable=SURGE, maxSurge=SURGE)
        default_template(spec.get('template'))

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        spec = new.get('spec') or {}
        for field in ('replicas', 'minReadySeconds', 'revisionHistoryLimit', 'progressDeadlineSeconds'):
            yield from not_negative(f'spec.{field}', spec.get(field))
        deadline, ready = spec.get('progressDeadlineSeconds'), spec.get('minReadySeconds') or 0
        if deadline is not None and deadline <= ready:
            yield invalid('spec.progressDeadlineSeconds', deadline, 'must be greater than minReadySeconds')
        yield from selects_template(spec)
        yield from template('spec.template', spec.get('template'))
        yield from rollout('spec.strategy', spec.get('strategy') or {})
        if old is not None:
            yield from immutable('spec.selector', spec.get('selector'), get_path(old, 'spec.selector'))

    def validate_status(self, new: Obj, old: Obj) -> Iterator[Invalid]:
        yield from replica_counts(new.get('status') or {})


def rollout(at: str, strategy: Obj) -> Iterator[Invalid]:
    yield from one_of(f'{at}.type', strategy.get('type'), ('Recreate', 'RollingUpdate'))
    rolling = strategy.get('rollingUpdate')
    if strategy.get('type') == 'Recreate' and rolling is not None:
        yield forbidden(f'{at}.rollingUpdate', "may not be specified when strategy `type` is 'Recreate'")
        return
    if strategy.get('type') != 'RollingUpdate' or rolling is None:
        return
    unavailable, surge = rolling.get('maxUnavailable'), rolling.get('maxSurge')
    yield from int_or_percent(f'{at}.rollingUpdate.maxUnavailable', unavailable)
    yield from int_or_percent(f'{at}.rollingUpdate.maxSurge', surge)
    if (percent_of(unavailable) or 0) > 100:
        yield invalid(f'{at}.rollingUpdate.maxUnavailable', unavailable, 'must not be greater than 100%')
    if unavailable in (0, '0%') and surge in (0, '0%'):
        yield invalid(f'{at}.rollingUpdate.maxUnavailable', unavailable, 'may not be 0 when `maxSurge` is 0')


def replica_counts(status: Obj) -> Iterator[Invalid]:
    """No count may exceed the number of replicas there are."""
    total = status.get('replicas') or 0
    for field in ('updatedReplicas', 'readyReplicas', 'availableReplicas', 'fullyLabeledReplicas'):
        count = status.get(field) or 0
        yield from not_negative(f'status.{field}', count)
        if count > total:
            yield invalid(f'status.{field}', count, 'cannot be greater than status.replicas')
    ready = status.get('readyReplicas') or 0
    available = status.get('availableReplicas') or 0
    if available > ready:
        yield invalid('status.availableReplicas', available, 'cannot be greater than readyReplicas')


def _ready(obj: Obj, _now: datetime) -> str:
    return f'{get_path(obj, "status.readyReplicas") or 0}/{get_path(obj, "spec.replicas") or 0}'


KIND = Kind(
    resource=gvk.DEPLOYMENTS,
    strategy=DeploymentStrategy(),
    short=('deploy',),
    categories=('all',),
    subresources=(Scale('spec.replicas', 'status.replicas', 'spec.selector'), Status()),
    columns=(
        Col('Ready', _ready, description='Pods that are ready, of all that are wanted.'),
        Col('Up-to-date', number('status.updatedReplicas'), 'string', description='Pods of the newest template.'),
        Col('Available', number('status.availableReplicas'), 'string', description='Pods ready for long enough.'),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ),
)
