"""HorizontalPodAutoscaler v1: the CPU target as one number. Stored as v2; what v1 cannot say travels in annotations.

Source: pkg/apis/autoscaling/v1/conversion.go.
"""

from __future__ import annotations

from typing import Any

import orjson

from kapi.errors import BadRequest
from kapi.kinds.autoscaling import horizontalpodautoscaler as v2
from kapi.kinds.printing import AGE, UNSET, number, text
from kapi.registry.kind import Alias, Col, Kind, Obj, Status
from kcore.meta.gvk import Resource
from kcore.meta.objects import get_path

_ANNOTATION = 'autoscaling.alpha.kubernetes.io/'
_METRICS, _CURRENT, _BEHAVIOR = f'{_ANNOTATION}metrics', f'{_ANNOTATION}current-metrics', f'{_ANNOTATION}behavior'
_TARGET, _SEEN = 'targetCPUUtilizationPercentage', 'currentCPUUtilizationPercentage'


def _cpu(metric: Obj, side: str) -> Any:
    """The CPU percentage of a resource metric's `target` or `current`; None for any other."""
    if metric.get('type') != 'Resource' or get_path(metric, 'resource.name') != 'cpu':
        return None
    return get_path(metric, f'resource.{side}.averageUtilization')


def _to_served(obj: Obj) -> Obj:
    spec, status = dict(obj.get('spec') or {}), dict(obj.get('status') or {})
    metrics, current = spec.pop('metrics', None) or [], status.pop('currentMetrics', None) or []
    status.pop('conditions', None)
    notes = dict(obj['metadata'].get('annotations') or {})
    percents = [m for m in metrics if _cpu(m, 'target') is not None]
    if percents:
        spec[_TARGET] = _cpu(percents[0], 'target')
    if others := [m for m in metrics if m not in percents[:1]]:
        notes[_METRICS] = orjson.dumps(others).decode()
    if current:
        notes[_CURRENT] = orjson.dumps(current).decode()
    seen = next((p for m in current if (p := _cpu(m, 'current')) is not None), None)
    if seen is not None:
        status[_SEEN] = seen
    if behavior := spec.pop('behavior', None):
        notes[_BEHAVIOR] = orjson.dumps(behavior).decode()
    metadata = {**obj['metadata'], 'annotations': notes} if notes else obj['metadata']
    status = {'currentReplicas': 0, 'desiredReplicas': 0, **status}  # clients' models require both
    return {**obj, 'apiVersion': 'autoscaling/v1', 'metadata': metadata, 'spec': spec, 'status': status}


def _read(notes: Obj, key: str, form: type) -> Any:
    """Raises BadRequest when the annotation is not what we wrote there."""
    found = notes.pop(key, None)
    if found is None:
        return None
    try:
        value = orjson.loads(found)
    except orjson.JSONDecodeError as e:
        raise BadRequest(f'metadata.annotations[{key}]: {e}') from e
    if not isinstance(value, form):
        raise BadRequest(f'metadata.annotations[{key}]: must be a JSON {"array" if form is list else "object"}')
    return value


def _to_stored(obj: Obj) -> Obj:
    spec, status = dict(obj.get('spec') or {}), dict(obj.get('status') or {})
    metadata = dict(obj['metadata'])
    notes = dict(metadata.get('annotations') or {})
    percent, seen = spec.pop(_TARGET, None), status.pop(_SEEN, None)
    metrics: list[Obj] = []
    if percent is not None:
        target = {'type': 'Utilization', 'averageUtilization': percent}
        metrics.append({'type': 'Resource', 'resource': {'name': 'cpu', 'target': target}})
    metrics += _read(notes, _METRICS, list) or []
    current = _read(notes, _CURRENT, list)
    if current is None and seen is not None:
        current = [{'type': 'Resource', 'resource': {'name': 'cpu', 'current': {'averageUtilization': seen}}}]
    if (behavior := _read(notes, _BEHAVIOR, dict)) is not None:
        spec['behavior'] = behavior
    if metrics:
        spec['metrics'] = metrics
    if current:
        status['currentMetrics'] = current
    metadata.pop('annotations', None)
    if notes:
        metadata['annotations'] = notes
    stored = {**obj, 'apiVersion': 'autoscaling/v2', 'metadata': metadata, 'spec': spec}
    stored.pop('status', None)
    return {**stored, 'status': status} if status else stored


KIND = Kind(
    resource=Resource('autoscaling', 'v1', 'horizontalpodautoscalers', 'HorizontalPodAutoscaler'),
    short=('hpa',),
    categories=('all',),
    subresources=(Status(),),
    columns=(
        Col('Reference', v2.reference, description='What is scaled.'),
        Col('Targets', lambda obj, now: v2.targets(_to_stored(obj), now), description='Metrics: present/wanted.'),
        Col('MinPods', text('spec.minReplicas', UNSET), description='Fewest replicas.'),
        Col('MaxPods', number('spec.maxReplicas'), description='Most replicas.'),
        Col('Replicas', number('status.currentReplicas'), description='Replicas now.'),
        AGE,
    ),
    storage=v2.KIND.resource,
    alias=Alias(v2.KIND, _to_served, _to_stored),
)
