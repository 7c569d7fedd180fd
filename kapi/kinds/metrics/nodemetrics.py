"""NodeMetrics: what a node uses."""

from __future__ import annotations

from datetime import datetime

from kapi.registry.kind import Col, Kind, Obj
from kcore.meta.gvk import Resource


def used(name: str) -> Col:
    def cell(obj: Obj, _now: datetime) -> str:
        return str((obj.get('usage') or {}).get(name) or '0')

    return Col(name, cell, format='quantity')


WINDOW = Col('Window', 'window', format='duration')
KIND = Kind(
    resource=Resource('metrics.k8s.io', 'v1beta1', 'nodes', 'NodeMetrics', namespaced=False),
    verbs=('get', 'list'),
    columns=(used('cpu'), used('memory'), WINDOW),
)
