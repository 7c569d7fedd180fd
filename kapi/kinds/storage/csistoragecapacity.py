"""CSIStorageCapacity: how much a driver has left, and where."""

from __future__ import annotations

from collections.abc import Iterator

from kapi.kinds.base import PlainStrategy
from kapi.kinds.rules import immutable, required
from kapi.registry.kind import Kind, Obj
from kapi.registry.strategy import Invalid
from kcore.meta.gvk import Resource


class CSIStorageCapacityStrategy(PlainStrategy):
    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        if not new.get('storageClassName'):
            yield required('storageClassName')
        for field in ('nodeTopology', 'storageClassName') if old is not None else ():
            yield from immutable(field, new.get(field), (old or {}).get(field))


KIND = Kind(
    resource=Resource('storage.k8s.io', 'v1', 'csistoragecapacities', 'CSIStorageCapacity'),
    strategy=CSIStorageCapacityStrategy(),
)
