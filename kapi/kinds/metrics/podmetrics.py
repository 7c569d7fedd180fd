"""PodMetrics: what each container of a pod uses."""

from __future__ import annotations

from datetime import datetime
from functools import reduce

from kapi.kinds.metrics.nodemetrics import WINDOW
from kapi.registry.kind import Col, Kind, Obj
from kcore.meta import quantity
from kcore.meta.gvk import Resource


def _used(name: str) -> Col:
    def cell(obj: Obj, _now: datetime) -> str:
        parts = [str(c['usage'][name]) for c in obj.get('containers') or () if name in c.get('usage', {})]
        return reduce(quantity.add, parts, '0')

    return Col(name, cell, format='quantity')


KIND = Kind(
    resource=Resource('metrics.k8s.io', 'v1beta1', 'pods', 'PodMetrics'),
    verbs=('get', 'list'),
    columns=(_used('cpu'), _used('memory'), WINDOW),
)
