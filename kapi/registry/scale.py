"""`/scale`: an autoscaling/v1 Scale read from, and written into, the paths that a kind declares."""

from __future__ import annotations

from typing import Any

from kapi.errors import InvalidObject
from kapi.registry.kind import Col, Kind, Scale
from kapi.registry.strategy import Invalid
from kcore.meta.gvk import Resource
from kcore.meta.objects import get_path
from kcore.meta.selectors import SelectorError, from_label_selector, from_labels

Obj = dict[str, Any]

SCALES = Kind(
    Resource('autoscaling', 'v1', 'scales', 'Scale'),
    columns=(
        Col('Desired', 'spec.replicas', 'integer'),
        Col('Available', 'status.replicas', 'integer'),
        Col('Age', 'metadata.creationTimestamp', 'date'),
    ),
)
"""How a Scale is printed; it has no place of its own in the store."""


def scale_of(kind: Kind, scale: Scale, obj: Obj) -> Obj:
    """The Scale of an object; its metadata is the parent's, so that versions can be compared."""
    meta = obj['metadata']
    kept = ('name', 'namespace', 'uid', 'resourceVersion', 'creationTimestamp')
    status: Obj = {'replicas': get_path(obj, scale.status_replicas) or 0}
    if scale.selector and (text := _selector_text(get_path(obj, scale.selector))):
        status['selector'] = text
    return {
        'kind': 'Scale',
        'apiVersion': 'autoscaling/v1',
        'metadata': {k: meta[k] for k in kept if k in meta},
        'spec': {'replicas': get_path(obj, scale.replicas) or 0},
        'status': status,
    }


def _selector_text(selector: Any) -> str:
    if isinstance(selector, str):
        return selector
    if not isinstance(selector, dict):
        return ''
    try:
        structured = 'matchLabels' in selector or 'matchExpressions' in selector
        return str(from_label_selector(selector) if structured else from_labels(selector))
    except SelectorError:
        return ''


def apply_scale(scale: Scale, wanted: Obj, obj: Obj) -> Obj:
    """`obj` with the replicas and the version of the Scale. Raises InvalidObject for a negative number."""
    replicas = (wanted.get('spec') or {}).get('replicas') or 0
    name = obj['metadata']['name']
    if not isinstance(replicas, int) or replicas < 0:
        why = f'Invalid value: {replicas}: must be greater than or equal to 0'
        raise InvalidObject('Scale', 'autoscaling', name, [Invalid('spec.replicas', why)])
    target = obj
    *parents, leaf = scale.replicas.split('.')
    for part in parents:
        target = target.setdefault(part, {})
    target[leaf] = replicas
    given = wanted.get('metadata') or {}
    for field in ('resourceVersion', 'uid'):
        if given.get(field):
            obj['metadata'][field] = given[field]
    return obj
