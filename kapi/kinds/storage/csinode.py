"""CSINode: the storage drivers on a node."""

from __future__ import annotations

from kapi.kinds.base import PlainStrategy
from kapi.kinds.printing import AGE, count_of
from kapi.registry.kind import Col, Kind
from kcore.meta.gvk import Resource

KIND = Kind(
    resource=Resource('storage.k8s.io', 'v1', 'csinodes', 'CSINode', namespaced=False),
    strategy=PlainStrategy(),
    columns=(Col('Drivers', count_of('spec.drivers'), 'integer', description='Number of drivers.'), AGE),
)
