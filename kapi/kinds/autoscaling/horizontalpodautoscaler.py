"""HorizontalPodAutoscaler: replicas that follow a metric."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from types import MappingProxyType

from kapi.kinds.base import PlainStrategy, put_defaults, spec_of
from kapi.kinds.printing import AGE, NONE, UNKNOWN, UNSET, number, text
from kapi.kinds.rules import invalid, one_of, required
from kapi.registry.kind import Col, Kind, Obj, Status
from kapi.registry.strategy import Invalid
from kcore.meta.gvk import Resource
from kcore.meta.objects import get_path

DEFAULT_CPU_PERCENT = 80
SHOWN_MAX = 2
_SOURCES = {
    'Resource': 'resource',
    'ContainerResource': 'containerResource',
    'Pods': 'pods',
    'Object': 'object',
    'External': 'external',
}
_SCALE_UP = ({'type': 'Pods', 'value': 4, 'periodSeconds': 15}, {'type': 'Percent', 'value': 100, 'periodSeconds': 15})
_SCALE_DOWN = ({'type': 'Percent', 'value': 100, 'periodSeconds': 15},)


class HorizontalPodAutoscalerStrategy(PlainStrategy):
    first_status = MappingProxyType({'desiredReplicas': 0})

    def default(self, obj: Obj) -> None:
        spec = spec_of(obj)
        put_defaults(spec, minReplicas=1)
        if not spec.get('metrics'):
            target = {'type': 'Utilization', 'averageUtilization': DEFAULT_CPU_PERCENT}
            spec['metrics'] = [{'type': 'Resource', 'resource': {'name': 'cpu', 'target': target}}]
        behavior = spec.get('behavior')
        if isinstance(behavior, dict):
            up, down = behavior.setdefault('scaleUp', {}), behavior.setdefault('scaleDown', {})
            put_defaults(up, stabilizationWindowSeconds=0, selectPolicy='Max', policies=[dict(p) for p in _SCALE_UP])
            put_defaults(down, selectPolicy='Max', policies=[dict(p) for p in _SCALE_DOWN])

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        spec = new.get('spec') or {}
        low, high = spec.get('minReplicas'), spec.get('maxReplicas') or 0
        if low is not None and low < 1:
            yield invalid('spec.minReplicas', low, 'must be greater than or equal to 1')
        if high < 1:
            yield invalid('spec.maxReplicas', high, 'must be greater than 0')
        if low is not None and high < low:
            yield invalid('spec.maxReplicas', high, 'must be greater than or equal to `minReplicas`')
        for field in ('kind', 'name'):
            if not get_path(spec, f'scaleTargetRef.{field}'):
                yield required(f'spec.scaleTargetRef.{field}')
        for i, metric in enumerate(spec.get('metrics') or ()):
            at = f'spec.metrics[{i}]'
            yield from one_of(f'{at}.type', metric.get('type'), tuple(_SOURCES))
            source = _SOURCES.get(metric.get('type', ''), '')
            if source and metric.get(source) is None:
                yield required(f'{at}.{source}', 'must populate information for the given metric source')


def reference(obj: Obj, _now: datetime) -> str:
    ref = get_path(obj, 'spec.scaleTargetRef') or {}
    return f'{ref.get("kind", "")}/{ref.get("name", "")}'


def _compared(target: Obj, source: str) -> str:
    """Which figure of a metric is compared with its target."""
    if target.get('averageValue') is not None or source == 'pods':
        return 'averageValue'
    return 'value' if source in {'object', 'external'} else 'averageUtilization'


def _metric(source: str, wanted: Obj, seen: Obj) -> str:
    target = wanted.get('target') or {}
    field = _compared(target, source)
    percent = '%' if field == 'averageUtilization' else ''
    now = f'{seen[field]}{percent}' if seen.get(field) is not None else UNKNOWN
    goal = f'{target[field]}{percent}' if target.get(field) is not None else '<auto>'
    if source in {'object', 'external'}:
        return f'{now}/{goal} (avg)' if field == 'averageValue' else f'{now}/{goal}'
    return f'{wanted["name"]}: {now}/{goal}' if wanted.get('name') else f'{now}/{goal}'


def targets(obj: Obj, _now: datetime) -> str:
    metrics = get_path(obj, 'spec.metrics') or []
    current = get_path(obj, 'status.currentMetrics') or []
    found: list[str] = []
    for i, metric in enumerate(metrics[:SHOWN_MAX]):
        source = _SOURCES.get(metric.get('type', ''), '')
        seen = (current[i].get(source) or {}).get('current') if i < len(current) else None
        found.append(_metric(source, metric.get(source) or {}, seen or {}) if source else '<unknown type>')
    more = f' + {len(metrics) - SHOWN_MAX} more...' if len(metrics) > SHOWN_MAX else ''
    return ', '.join(found) + more or NONE


KIND = Kind(
    resource=Resource('autoscaling', 'v2', 'horizontalpodautoscalers', 'HorizontalPodAutoscaler'),
    strategy=HorizontalPodAutoscalerStrategy(),
    short=('hpa',),
    categories=('all',),
    subresources=(Status(),),
    columns=(
        Col('Reference', reference, description='What is scaled.'),
        Col('Targets', targets, description='Metrics: present/wanted.'),
        Col('MinPods', text('spec.minReplicas', UNSET), description='Fewest replicas.'),
        Col('MaxPods', number('spec.maxReplicas'), description='Most replicas.'),
        Col('Replicas', number('status.currentReplicas'), description='Replicas now.'),
        AGE,
    ),
)
